"""Campaigns over a Ray cluster: one GPU a worker; units of work go to whichever is free.

    with RayCluster.connect("auto", "cuda", settings) as cluster:
        plan with cluster.info and cluster.why_not
        halt = cluster.run(campaign)

Every outcome travels to the driver as soon as there is one, and from there into the campaign's journal. When
a worker or its node is lost, the points of its unit that are not in the journal go back to the queue:
nothing is lost, and what a worker measured but could not deliver is measured again and counted once.

A device is a GPU of the cluster for `cuda`, a node as a whole for `cpu`, and a process on each node for
`replay`, whose table has to be there under the same path. Needs the extra `ray`, and RaPP on every node.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from types import ModuleType
from typing import Any, Self

from profiler.campaign import Campaign, Halt
from profiler.cluster_host import Host, Shipment
from profiler.device import DeviceInfo
from profiler.devices.opening import DeviceSettings, device_kind
from profiler.plan import NetworkPlan, WorkUnit
from rapp.errors import ConfigError, RappError
from rapp.runtime.ray_cluster import join, outcome_behind

START_TIMEOUT_S = 120.0
"""Time for the workers to start and open their devices: MPS daemons and first imports take some seconds."""

POLL_S = 0.5
"""How often the driver looks at the brake while no outcome comes."""

MOST_LOSSES = 3
"""Workers that a unit may cost before its points end the campaign: it is the unit then, not the nodes."""


@dataclass(slots=True)
class _Work:
    """A unit that waits, and how many workers it has cost."""

    unit: WorkUnit
    plan: NetworkPlan
    losses: int = 0


@dataclass(slots=True, eq=False)
class _Worker:
    """A host, what it is at, and the outcomes that come of it."""

    actor: Any
    node: str
    info: DeviceInfo
    work: _Work | None = None
    outcomes: Any = None


class RayCluster:
    """The devices of a Ray cluster. A context manager; leaving it ends the workers, not the cluster.

    Attributes:
        info: what their rows have in common.
    """

    def __init__(self, ray: ModuleType, workers: list[_Worker], connected: bool) -> None:
        self._ray, self._workers, self._connected = ray, workers, connected
        self.info = _common_info([worker.info for worker in workers])
        self._shipments: dict[str, Any] = {}

    @classmethod
    def connect(cls, address: str, device: str, settings: DeviceSettings | None = None) -> RayCluster:
        """Connect to a cluster and start one worker for each of its devices.

        Args:
            address: `auto`, HOST:PORT or ray://HOST:PORT.
            device: `cuda`, `cpu` or `replay:TABLE`.

        Raises:
            MissingExtraError: Ray is not installed.
            ConfigError: a single GPU is named; the devices are not alike.
            RappError: there is no such cluster, it has no such device, or a worker does not start.
        """
        kind = device_kind(device)
        if kind == "cuda" and device != "cuda":
            raise ConfigError(f"--device {device}: with --ray every GPU of the cluster is used: write cuda")
        ray, connected = join(address)
        try:
            return cls(ray, _started(ray, kind, device, settings or DeviceSettings()), connected)
        except BaseException:
            if connected:
                ray.shutdown()
            raise

    def why_not(self, sm_pct: float) -> str | None:
        """Why its devices have no such SM partition; None if they have."""
        answer: str | None = self._ray.get(self._workers[0].actor.why_not.remote(sm_pct))
        return answer

    def __len__(self) -> int:
        return len(self._workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, and the connection if it was made here."""
        for worker in self._workers:
            self._ask(worker.actor.close)
        for worker in self._workers:
            self._ray.kill(worker.actor)
        self._workers.clear()
        if self._connected and self._ray.is_initialized():
            self._ray.shutdown()

    def run(self, campaign: Campaign) -> Halt | None:
        """Measure what is left, as `Campaign.run` does on one device.

        Returns:
            Why it stopped; None: every planned point has an outcome.

        Raises:
            RappError: every worker is lost, or one unit has cost `MOST_LOSSES` of them.
        """
        queue = deque(_Work(unit, plan) for plan in campaign.plans for unit in campaign.units_left(plan))
        stopped = False
        while True:
            if campaign.brake.halt is not None and not stopped:
                stopped = True
                queue.clear()
                for worker in self._workers:
                    self._ask(worker.actor.stop)
            self._hand_out(campaign, queue)
            if not any(worker.work for worker in self._workers):
                return campaign.brake.halt if any(campaign.left.values()) else None
            self._collect(campaign, queue)

    def _hand_out(self, campaign: Campaign, queue: deque[_Work]) -> None:
        for worker in self._workers:
            if worker.work is None and queue:
                worker.work = work = queue.popleft()
                ended = tuple(campaign.failures_at(work.unit.network.name, work.unit.sm_pct))
                campaign.watcher.begin(work.unit.points[0])
                worker.outcomes = worker.actor.run.options(num_returns="streaming").remote(
                    work.unit, self._shipped(work.plan), campaign.rule, ended
                )

    def _collect(self, campaign: Campaign, queue: deque[_Work]) -> None:
        """Take what has come, or wait a moment for it."""
        busy = {worker.outcomes: worker for worker in self._workers if worker.work is not None}
        ready, _ = self._ray.wait(list(busy), num_returns=1, timeout=POLL_S)
        for outcomes in ready:
            try:
                outcome = self._ray.get(next(outcomes))
            except StopIteration:
                busy[outcomes].work = None
            except self._ray.exceptions.RayTaskError as error:
                raise error.as_instanceof_cause() from error
            except self._ray.exceptions.RayError:
                self._lose(busy[outcomes], campaign, queue)
            else:
                campaign.report(outcome)

    def _lose(self, worker: _Worker, campaign: Campaign, queue: deque[_Work]) -> None:
        """Take a worker out, and put what it has not done to the head of the queue."""
        self._workers.remove(worker)
        work = worker.work
        points = tuple(p for p in work.unit.points if p not in campaign.outcomes) if work else ()
        if work is not None and points and campaign.brake.halt is None:
            work.losses += 1
            if work.losses >= MOST_LOSSES:
                raise RappError(
                    f"{points[0]}: {MOST_LOSSES} workers were lost over it: what is measured is safe; leave"
                    " the network out, or look into the logs of Ray"
                )
            work.unit = replace(work.unit, points=points)
            queue.appendleft(work)
        if not self._workers and queue:
            raise RappError(
                f"the last worker was lost, on node {worker.node}: what is measured is safe; the same command"
                " goes on when the cluster is back"
            )

    def _shipped(self, plan: NetworkPlan) -> Any:
        name = plan.network.name
        if name not in self._shipments:
            self._shipments[name] = self._ray.put(Shipment.pack(plan.network, plan.batches))
        return self._shipments[name]

    def _ask(self, method: Any) -> None:
        """Call a worker that may be gone, without waiting for more than a moment."""
        try:
            self._ray.get(method.remote(), timeout=10)
        except self._ray.exceptions.RayError:
            return


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a worker goes."""

    node: str
    resources: dict[str, float] = field(default_factory=dict)


def _places(nodes: Iterable[dict[str, Any]], kind: str) -> list[_Place]:
    """One for each device: GPUs by number, a node with all its cores for `cpu`, a node for a replay."""
    found: list[_Place] = []
    for node in nodes:
        if not node["Alive"]:
            continue
        there = node["Resources"]
        if kind == "cuda":
            found += [_Place(node["NodeID"], {"num_gpus": 1})] * int(there.get("GPU", 0))
        elif there.get("CPU", 0) >= 1:
            # Nothing else that Ray starts may disturb what is measured on the cores.
            found.append(_Place(node["NodeID"], {"num_cpus": there["CPU"] if kind == "cpu" else 0}))
    return found


def _started(ray: ModuleType, kind: str, device: str, settings: DeviceSettings) -> list[_Worker]:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    places = _places(ray.nodes(), kind)
    if not places:
        raise RappError(
            f"the Ray cluster has no {'GPU' if kind == 'cuda' else 'node with a CPU'} to measure on"
        )
    actors = []
    for place in places:
        options: dict[str, Any] = {"num_cpus": 0, "num_gpus": 0} | place.resources
        remote: Any = ray.remote(Host)
        actors.append(
            remote.options(
                **options,
                max_concurrency=2,
                scheduling_strategy=NodeAffinitySchedulingStrategy(place.node, soft=False),
            ).remote(device, settings)
        )
    try:
        infos = ray.get([actor.open.remote() for actor in actors], timeout=START_TIMEOUT_S)
    except BaseException as error:
        for actor in actors:
            ray.kill(actor)
        if isinstance(error, ray.exceptions.GetTimeoutError):
            raise RappError(
                f"the Ray cluster does not give its {len(actors)} devices within {START_TIMEOUT_S:g} s: other"
                " work holds them; `ray status` shows it"
            ) from error
        cause = outcome_behind(error)
        raise (cause if cause is not None else error) from error
    return [
        _Worker(actor, place.node, info) for actor, place, info in zip(actors, places, infos, strict=True)
    ]


def _common_info(infos: list[DeviceInfo]) -> DeviceInfo:
    """What the devices have in common.

    Raises:
        ConfigError: they differ in something that their rows do not tell.
    """
    first = infos[0]
    for other in infos[1:]:
        mine, theirs = asdict(first), asdict(other)
        for name in ("device_uuid", "memory_mib"):
            del mine[name], theirs[name]
        for name, value in mine.items():
            if theirs[name] != value:
                raise ConfigError(
                    f"the devices of the cluster differ in {name} ({value}, {theirs[name]}): profile one kind"
                    " at a time, on a cluster of its own"
                )
    memory = [info.memory_mib for info in infos if info.memory_mib is not None]
    uuid = first.device_uuid if len({info.device_uuid for info in infos}) == 1 else None
    return replace(first, device_uuid=uuid, memory_mib=min(memory) if memory else None)
