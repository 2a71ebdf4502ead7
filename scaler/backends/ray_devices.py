"""The devices of a Ray cluster: each GPU, or a node without GPUs as a whole, held by a placement group.

A group of one bundle takes a whole device, and Ray gives what is placed in it that device and no other. So
the decision, not Ray, says which GPU an instance is on. An instance itself reserves next to nothing within
the group: what it has of the device changes with its quota, and Ray cannot change what a live actor holds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from scaler.backends.ray_placement import Room
from scaler.core.observation import GpuView

INSTANCE_GPUS = 0.01
"""Share of a GPU that an instance reserves with Ray, so that it is given one at all."""

MIB = 2**20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Device:
    """A device that is there: its room, its node, the group that holds it, and the SMs of a GPU."""

    room: Room
    node: str
    group: Any
    sm_total: int = 0

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU."""
        return self.room.cores is None

    def place(self, sm_pct: float, cores: tuple[int, ...]) -> dict[str, Any]:
        """What an instance must know of its place; see `Instance.open`."""
        return {"sm_pct": sm_pct, "sm_total": self.sm_total} if self.is_gpu else {"cores": cores}

    def options(self, sm_pct: float) -> dict[str, Any]:
        """Options of an actor that is to be on it, with an SM partition."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        options: dict[str, Any] = {
            "num_cpus": 0,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                self.group, placement_group_bundle_index=0
            ),
        }
        if self.is_gpu:
            options["num_gpus"] = INSTANCE_GPUS
            variables = {"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": f"{sm_pct:g}"}
            options["runtime_env"] = {"env_vars": variables}
        return options


class Devices:
    """Those of the cluster; `refresh` sees nodes come and go."""

    def __init__(self) -> None:
        self.there: dict[str, Device] = {}
        self._claims: dict[str, asyncio.Task[None]] = {}

    async def refresh(self) -> None:
        """Look at the nodes: begin to claim what is new or was not to be had, forget what is gone."""
        import ray

        nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        for device in [one for one in self.there.values() if one.node not in nodes]:
            # Ray would look for another node to put the group on.
            ray.util.remove_placement_group(device.group)
            del self.there[device.room.view.id]
        wanted = {name: claim for node in nodes.values() for name, claim in self._wanted(node).items()}
        for name in [name for name in self._claims if name not in wanted]:
            self._claims.pop(name).cancel()
        for name, claim in wanted.items():
            begun = self._claims.get(name)
            if begun is not None and begun.done() and not begun.cancelled() and begun.exception() is not None:
                _log.warning("%s cannot be had: %s", name, begun.exception())
            if name not in self.there and (begun is None or begun.done()):
                self._claims[name] = asyncio.create_task(claim())

    async def settled(self, timeout_s: float) -> None:
        """Wait until claims that have begun are through, as long as that."""
        open_claims = [task for task in self._claims.values() if not task.done()]
        if open_claims:
            await asyncio.wait(open_claims, timeout=timeout_s)

    def _wanted(self, described: dict[str, Any]) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        """Devices of a node by name, and what claims each."""
        node, there = described["NodeID"], described["Resources"]
        host = described.get("NodeManagerHostname") or described["NodeManagerAddress"]
        name = f"{host}-{node[:8]}"
        cpus, gpus = int(there.get("CPU", 0)), int(there.get("GPU", 0))
        if gpus:
            cores = max(cpus, 1) / gpus
            names = [f"{name}-gpu{place}" for place in range(gpus)]
            return {one: partial(self._claim_gpu, node, one, cores) for one in names}
        if not cpus:
            return {}
        room = Room(GpuView(name, there.get("memory", 0) / MIB, float(cpus), 100.0 / cpus), cpus)
        return {name: partial(self._claim, node, {"CPU": cpus}, room)}

    async def _claim(self, node: str, bundle: dict[str, float], room: Room) -> None:
        group = await _group(node, bundle)
        if group is not None:
            self.there[room.view.id] = Device(room, node, group)

    async def _claim_gpu(self, node: str, name: str, host_cores: float) -> None:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        group = await _group(node, {"GPU": 1})
        if group is None:
            return
        ask: Any = ray.remote(_gpu)
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
        memory_mib, sm_total = await ask.options(
            num_cpus=0, num_gpus=INSTANCE_GPUS, scheduling_strategy=strategy
        ).remote()
        self.there[name] = Device(Room(GpuView(name, memory_mib, host_cores), None), node, group, sm_total)


async def _group(node: str, bundle: dict[str, float]) -> Any:
    """A placement group on a node; None: other work holds it, so that Ray put it elsewhere."""
    import ray

    group = ray.util.placement_group([bundle], strategy="STRICT_PACK", _soft_target_node_id=node)
    try:
        await group.ready()
        places = ray.util.placement_group_table(group)["bundles_to_node_id"]
    except BaseException:
        ray.util.remove_placement_group(group)
        raise
    if places[0] == node:
        return group
    ray.util.remove_placement_group(group)
    return None


def _gpu() -> tuple[float, int]:
    """Memory, MiB, and multiprocessors of the GPU that Ray gives to this process."""
    from rapp.runtime.driver import Driver

    device = Driver().device(0)
    return float(device.memory_mib), device.sm_count
