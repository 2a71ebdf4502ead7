"""`Fleet`: functions and their instances on one device, and the changes that a controller makes."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress

from rapp.errors import ConfigError
from rapp.types import ResourceConfig
from scaler.core.decision import Action, Decision, Drain, Resize, Start
from scaler.core.observation import Phase
from scaler.functions import FunctionSpec
from scaler.serving.arena import Arena
from scaler.serving.devices import ServingDevice
from scaler.serving.function import ServedFunction
from scaler.serving.instance import Instance, Place
from scaler.serving.network import ServedNetwork
from scaler.serving.placement import Occupant, why_no_room

MOST_IN_FLIGHT = 1024
"""Samples in batches of a function at a time for which there are slots beside those that wait."""
ARENA_SHARE = 0.25
"""Most of the machine's memory that the requests of one function may fill."""
EVENTS_KEPT = 200
STOP_TIMEOUT_S = 15.0
"""For all workers to end, s, before they are killed."""
HUNG_S = 60.0
"""A batch that takes so long means that its worker hangs; far above any run at the least quota."""


class Fleet:
    """What is served. It must be made and used on the event loop's thread.

    Args:
        functions: what to serve. networks: by function, as prepared. device: what to run on.
        hung_s: a batch that takes so long means that its worker hangs.
    """

    def __init__(
        self,
        functions: tuple[FunctionSpec, ...],
        networks: Mapping[str, ServedNetwork],
        device: ServingDevice,
        hung_s: float = HUNG_S,
    ) -> None:
        self.device, self.boot_id = device, uuid.uuid4().hex
        self.functions: dict[str, ServedFunction] = {}
        self.instances: dict[str, Instance] = {}
        self.changes: dict[tuple[str, str], int] = {}
        self.events: deque[dict[str, object]] = deque(maxlen=EVENTS_KEPT)
        self.log: Callable[[str], None] = lambda line: None
        self._hung_s = hung_s
        self._is_closing = False
        for spec in functions:
            network = networks[spec.name]
            most_bytes = device_memory_bytes() * ARENA_SHARE
            slots = int(min(spec.queue_limit + MOST_IN_FLIGHT, most_bytes // network.slot_bytes))
            if slots < spec.max_batch:
                raise ConfigError(
                    f"function {spec.name}: {spec.max_batch} samples of {network.slot_bytes:,} bytes are more"
                    f" than {ARENA_SHARE:.0%} of the memory: set a smaller max_batch"
                )
            arena = Arena.make(slots, network.slot_bytes)
            self.functions[spec.name] = ServedFunction(spec, network, arena, spec.slo_ms)

    # --- what a controller does -----------------------------------------------------------------------------

    def apply(self, decision: Decision) -> list[tuple[str, str]]:
        """Make changes in their order; those that were made already count as made.

        Returns:
            Those that cannot be made: (id of the instance, why).
        """
        refused = []
        for action in decision.actions:
            why = self._apply(action)
            if why is not None:
                refused.append((action.id, why))
                self.note(action.id, f"{action.kind} refused: {why}")
        return refused

    def _apply(self, action: Action) -> str | None:
        there = self.instances.get(action.id)
        if isinstance(action, Start):
            return self._start(action, there)
        if isinstance(action, Drain):
            if there is not None and there.phase is not Phase.DRAINING:
                self._count(action)
                there.drain()
            return None
        if there is None:
            return "there is no such instance"
        return self._resize(action, there)

    def _start(self, action: Start, there: Instance | None) -> str | None:
        if self._is_closing:
            return "the server is shutting down"
        function = self.functions.get(action.function)
        if function is None:
            return f"there is no function {action.function}"
        if there is not None:
            same = (there.function, there.place.gpu, there.place.row) == (
                action.function, action.gpu, action.row,
            )  # fmt: skip
            if there.phase is Phase.DRAINING:
                return "an instance of this name drains"
            return None if same else "there is an instance of this name elsewhere"
        if action.gpu != self.device.view.id:
            return f"there is no GPU {action.gpu}"
        why = self.device.why_not(action.config.sm_pct) or self._no_room(function, action.row, action.config)
        if why is not None:
            return why
        device, environment = self.device.open_row(action.row, action.config.sm_pct)
        place = Place(action.gpu, action.row, device, environment)
        instance = Instance(
            action.id, action.function, function, function.network, function.arena,
            function.spec.max_batch, place, action.config,
            hung_s=self._hung_s, note=self.note, on_gone=self._gone,
        )  # fmt: skip
        self.instances[action.id] = instance
        function.instances.append(instance)
        self._count(action)
        self.note(action.id, f"starts: {described(action.config)} ({action.reason.value})")
        return None

    def _resize(self, action: Resize, there: Instance) -> str | None:
        try:
            config = ResourceConfig(there.config.sm_pct, action.quota_pct, action.batch)
        except ConfigError as error:
            return str(error)
        why = self._no_room(self.functions[there.function], there.place.row, config, besides=there.id)
        if why is None and config != there.config:
            there.resize(config.quota_pct, config.batch)
            self._count(action)
            self.note(there.id, f"has {described(config)} ({action.reason.value})")
            self.functions[there.function].dispatch()
        return why

    def _no_room(
        self, function: ServedFunction, row: int, config: ResourceConfig, besides: str | None = None
    ) -> str | None:
        there = (
            Occupant(one.place.row, one.config, self.functions[one.function].memory_mib)
            for one in self.instances.values()
            if one.id != besides
        )
        new = Occupant(row, config, function.memory_mib)
        return why_no_room(self.device.view, there, new, function.spec.max_batch)

    def _gone(self, instance: Instance) -> None:
        del self.instances[instance.id]
        self.functions[instance.function].instances.remove(instance)
        if all(one.place.row != instance.place.row for one in self.instances.values()):
            self.device.close_row(instance.place.row)
        self.note(instance.id, "is gone")

    def _count(self, action: Action) -> None:
        key = (action.kind, action.reason.value)
        self.changes[key] = self.changes.get(key, 0) + 1

    # --- the rest -------------------------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether every function that keeps instances has one that serves."""
        return not self._is_closing and all(
            function.spec.min_instances == 0 or any(one.phase is Phase.READY for one in function.instances)
            for function in self.functions.values()
        )

    def note(self, instance: str, what: str) -> None:
        """Remember what happened to an instance, and log it."""
        self.events.append({"at_s": time.monotonic(), "instance": instance, "what": what})
        self.log(f"{instance} {what}")

    async def close(self) -> None:
        """End all workers, those that have a batch after it; what hangs is killed."""
        self._is_closing = True
        for instance in list(self.instances.values()):
            instance.drain()
        end_s = time.monotonic() + STOP_TIMEOUT_S
        while self.instances:
            if time.monotonic() > end_s:
                for instance in list(self.instances.values()):
                    instance.kill()
                end_s += STOP_TIMEOUT_S
            await asyncio.sleep(0.01)
        for function in self.functions.values():
            function.arena.close()


def described(config: ResourceConfig) -> str:
    """A configuration, for people."""
    return f"SM {config.sm_pct:g} %, quota {config.quota_pct:g} %, batch {config.batch}"


def device_memory_bytes() -> float:
    """Memory of the host, bytes."""
    from scaler.serving.devices import memory_mib

    with suppress(OSError):
        return min(memory_mib() * 2**20, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return memory_mib() * 2**20
