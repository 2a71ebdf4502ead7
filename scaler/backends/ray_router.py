"""The router: the actor that holds the queues, starts and stops instances, and sees what becomes of them.

It outlives the controller, so that serving goes on without one. It runs on the head node, and ends with it:
so does the cluster. All methods run in one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rapp.runtime.ray_cluster import outcome_behind
from rapp.types import ResourceConfig
from scaler.backends.fencing import Terms
from scaler.backends.ray_devices import Devices
from scaler.backends.ray_instance import Instance
from scaler.backends.ray_network import RayFunction, Tensors
from scaler.backends.ray_placement import Seat
from scaler.backends.ray_queue import FailedError, FunctionQueue, Request
from scaler.backends.ray_report import InstanceReport, Marks, Report
from scaler.core.decision import Action, Drain, Resize, Start
from scaler.core.observation import InstanceView, Phase

_log = logging.getLogger(__name__)

DEVICES_S = 20.0
"""How long a new router waits for the devices of the cluster."""

LOST_KEPT = 1000
"""Instances that were lost last, for readers that have not looked yet."""


@dataclass(slots=True, eq=False)
class _Placed:
    """An instance: what is reported of it, where it sits, its actor and the task that gives it work."""

    view: InstanceView
    seat: Seat
    actor: Any
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    at_work: list[Request] = field(default_factory=list)
    run_s: float = 0.0
    device_s: float = 0.0
    started_s: float = field(default_factory=time.monotonic)

    def enter(self, phase: Phase) -> None:
        self.view = replace(self.view, phase=phase, since_s=time.monotonic())

    def ran(self, requests: int, run_ms: float, device_ms: float) -> None:
        """Count a batch."""
        view = self.view
        self.view = replace(view, batches=view.batches + 1, requests=view.requests + requests)
        self.run_s += run_ms / 1e3
        self.device_s += device_ms / 1e3

    def report(self) -> InstanceReport:
        return InstanceReport(self.view, self.started_s, self.run_s, self.device_s)


class Router:
    """See the module. Its name in the cluster is given by who starts it."""

    def __init__(self) -> None:
        self._functions: dict[str, RayFunction] = {}
        self._networks: dict[str, Any] = {}
        self._queues: dict[str, FunctionQueue] = {}
        self._devices = Devices()
        self._placed: dict[str, _Placed] = {}
        self._name = secrets.token_hex(8)
        self._terms = Terms()
        self._lost: deque[InstanceReport] = deque(maxlen=LOST_KEPT)
        self._lost_total = 0

    async def configure(self, functions: Sequence[RayFunction]) -> None:
        """Serve these functions from now on; instances of others stay until they are drained."""
        import ray

        # In the cluster's memory once, however many functions run it.
        there = {one.network: self._networks[name] for name, one in self._functions.items()}
        for function in functions:
            if function.network not in there:
                there[function.network] = ray.put(function.network)
            self._networks[function.name] = there[function.network]
            settings = (
                function.queue_limit,
                function.max_batch_delay_ms / 1e3,
                function.slo_ms,
                function.slo_quantile,
            )
            if function.name in self._queues:
                self._queues[function.name].configure(*settings)
            else:
                self._queues[function.name] = FunctionQueue(function.name, *settings)
        self._functions = {function.name: function for function in functions}
        await self._devices.refresh()
        await self._devices.settled(DEVICES_S)

    async def infer(self, function: str, inputs: Tensors, timeout_ms: float) -> Tensors:
        """Answer a request; see `FunctionQueue.ask`."""
        if function not in self._functions:
            raise FailedError(f"there is no function {function}: {', '.join(self._functions)} are served")
        why = self._functions[function].network.why_not(inputs)
        if why is not None:
            raise FailedError(f"{function}: {why}")
        return await self._queues[function].ask(inputs, timeout_ms / 1e3)

    async def process_of(self, instance: str) -> int:
        """Process id of an instance on its node, for who looks for it there."""
        pid: int = await self._placed[instance].actor.pid.remote()
        return pid

    # --- what a controller sees and does --------------------------------------------------------------------

    async def report(self, marks: Marks | None) -> Report:
        """What there is; latencies and lost instances are those after the marks, None: none."""
        await self._devices.refresh()
        completed = {} if marks is None else marks.completed
        new = 0 if marks is None else min(max(self._lost_total - marks.lost, 0), len(self._lost))
        return Report(
            router=self._name,
            now_s=time.monotonic(),
            functions={name: self._queues[name].view(completed.get(name)) for name in self._functions},
            instances=tuple(placed.report() for placed in self._placed.values()),
            lost=tuple(self._lost)[len(self._lost) - new :],
            lost_total=self._lost_total,
            gpus=tuple(device.room.view for device in self._devices.there.values()),
        )

    async def apply(self, actions: Sequence[Action], term: int | None = None) -> list[tuple[str, str]]:
        """As `Backend.apply`, under a lease of this term; nothing comes between the changes."""
        self._terms.admit(term)
        refused = []
        for action in actions:
            why = self._apply(action)
            if why is not None:
                refused.append((action.id, why))
        return refused

    def _apply(self, action: Action) -> str | None:
        placed = self._placed.get(action.id)
        if isinstance(action, Start):
            return self._start(action) if placed is None else _why_another(placed.view, action)
        if isinstance(action, Drain):
            if placed is not None and placed.view.phase != Phase.DRAINING:
                self._drain(placed)
            return None
        return "there is no such instance" if placed is None else self._resize(placed, action)

    def _start(self, action: Start) -> str | None:
        import ray

        function = self._functions.get(action.function)
        if function is None:
            return f"there is no function {action.function}"
        device = self._devices.there.get(action.gpu)
        if device is None:
            return f"there is no GPU {action.gpu}"
        seats = self._seats(action.gpu)
        why = device.room.why_not(seats, action.row, action.config, function.max_batch, function.memory_mib)
        if why is not None:
            return why
        cores = device.room.cores_for(seats, action.row, action.config.sm_pct)
        # `live`, a `run` and a `resize` at a time. What is lost the core replaces: Ray must not.
        remote: Any = ray.remote(Instance)
        actor = remote.options(
            max_concurrency=3, max_restarts=0, **device.options(action.config.sm_pct)
        ).remote(action.config.quota_pct)
        view = InstanceView(
            action.id,
            action.function,
            action.gpu,
            action.row,
            action.config,
            Phase.STARTING,
            time.monotonic(),
        )
        placed = _Placed(view, Seat(action.row, action.config, function.memory_mib, cores), actor)
        self._placed[action.id] = placed
        placed.tasks += [asyncio.create_task(self._watch(placed)), asyncio.create_task(self._serve(placed))]
        return None

    def _resize(self, placed: _Placed, action: Resize) -> str | None:
        view = placed.view
        config = ResourceConfig(view.config.sm_pct, action.quota_pct, action.batch)
        function, device = self._functions.get(view.function), self._devices.there.get(view.gpu)
        if function is None or device is None:
            return f"its function {view.function} or its GPU {view.gpu} is gone"
        others = self._seats(view.gpu, besides=view.id)
        why = device.room.why_not(others, view.row, config, function.max_batch, function.memory_mib)
        if why is not None:
            return why
        placed.view, placed.seat = replace(view, config=config), replace(placed.seat, config=config)
        placed.actor.resize.remote(config.quota_pct)
        # With a smaller batch, what waits may be one already.
        self._queues[view.function].notify()
        return None

    def _drain(self, placed: _Placed) -> None:
        starting = placed.view.phase == Phase.STARTING
        placed.enter(Phase.DRAINING)
        if starting:
            self._remove(placed)
        else:
            self._queues[placed.view.function].notify()

    def _seats(self, device: str, besides: str | None = None) -> list[Seat]:
        return [
            placed.seat
            for placed in self._placed.values()
            if placed.view.gpu == device and placed.view.id != besides
        ]

    # --- the life of an instance ----------------------------------------------------------------------------

    async def _serve(self, placed: _Placed) -> None:
        """Load its network, give it batches until it drains, and let it go."""
        import ray

        view = placed.view
        queue, device = self._queues[view.function], self._devices.there.get(view.gpu)
        if device is None:
            self._lose(placed)
            return
        place = device.place(view.config.sm_pct, placed.seat.cores)
        try:
            await placed.actor.open.remote(self._networks[view.function], place, view.config.batch)
        except ray.exceptions.RayError as error:  # it does not load, or it was lost meanwhile
            _log.warning("%s does not start: %s", view.id, outcome_behind(error) or error)
            self._lose(placed)
            return
        placed.enter(Phase.READY)
        while batch := await queue.take(
            lambda: placed.view.config.batch, lambda: placed.view.phase != Phase.READY
        ):
            placed.at_work = batch
            try:
                outcome = await placed.actor.run.remote([request.inputs for request in batch])
            except ray.exceptions.RayError:
                self._lose(placed)
                return
            placed.at_work = []
            queue.answered(batch, outcome.answers)
            placed.ran(len(batch), outcome.run_ms, outcome.device_ms)
        self._remove(placed)

    async def _watch(self, placed: _Placed) -> None:
        """Notice an instance that is lost while it has nothing to do."""
        import ray

        try:
            await placed.actor.live.remote()
        except ray.exceptions.RayError:
            self._lose(placed)

    def _lose(self, placed: _Placed) -> None:
        """An instance is gone by itself; what it was at is tried again."""
        if self._placed.get(placed.view.id) is not placed:
            return
        at_work, placed.at_work = placed.at_work, []
        if at_work:
            self._queues[placed.view.function].give_back(at_work)
        if placed.view.phase != Phase.DRAINING:
            placed.enter(Phase.LOST)
            self._lost.append(placed.report())
            self._lost_total += 1
        self._remove(placed)

    def _remove(self, placed: _Placed) -> None:
        import ray

        self._placed.pop(placed.view.id, None)
        ray.kill(placed.actor)
        current = asyncio.current_task()
        for task in placed.tasks:
            if task is not current:
                task.cancel()


def _why_another(there: InstanceView, asked: Start) -> str | None:
    """Why an instance is not the one that is to be started; None: it was started already."""
    if there.phase == Phase.DRAINING:
        return "there is an instance of this name, which drains"
    same = (there.function, there.gpu, there.row, there.config.sm_pct)
    wanted = (asked.function, asked.gpu, asked.row, asked.config.sm_pct)
    return None if same == wanted else "there is another instance of this name"
