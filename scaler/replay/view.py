"""What a controller sees of the simulated cluster: nothing that a live system could not see."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from rapp.types import FloatArray
from scaler.core.observation import FunctionView, InstanceView, Phase
from scaler.replay.account import Placed
from scaler.replay.physics import ServedFunction
from scaler.replay.world import STARTING, World

LATENCY_WINDOW_S = 10.0
"""The latency that is shown is over the answers of so long, as a query of a gateway's histogram takes."""


class Viewer:
    """Counts since the last look, per function and instance.

    Args:
        world: what is looked at. functions: in the order of the world's columns.
    """

    def __init__(self, world: World, functions: Sequence[ServedFunction]) -> None:
        self._world, self._functions = world, functions
        # Views of the tables, once: to make one takes longer than to look at it.
        self._totals = tuple(
            getattr(world, name) for name in ("arrived", "served", "late", "refused", "lost")
        )
        self._queue_length, self._carried_count = world.queue_length, world.carried_count
        self._stage = world.stage
        self._sums = tuple(getattr(world, name) for name in ("requests", "executing", "device_used"))
        self._batches = world.batches
        self._seen = self._counted()
        self._answered: deque[tuple[float, list[int]]] = deque([(-math.inf, self._seen[1])])

    def functions(self, now_s: float, instances: Mapping[str, Placed]) -> dict[str, FunctionView]:
        """Each function as its gateway would report it; counts since this was last called."""
        totals, seen = self._counted(), self._seen
        self._seen = totals
        before = self._a_while_ago(now_s, totals[1])
        queues = self._queue_length.tolist()
        in_flight = dict.fromkeys((one.name for one in self._functions), 0)
        for placed in instances.values():
            in_flight[placed.function] += int(self._carried_count[placed.slot])
        views = {}
        for f, function in enumerate(self._functions):
            arrivals, completed, late, refused, lost = (
                now[f] - then[f] for now, then in zip(totals, seen, strict=True)
            )
            latency_ms = self._latency_ms(f, totals[1][f] - before[f], totals[1][f])
            views[function.name] = FunctionView(
                arrivals, queues[f], in_flight[function.name], completed, late, refused + lost, latency_ms
            )
        return views

    def instance(self, placed: Placed) -> InstanceView:
        """An instance as its backend would report it; counts since this was last called for it."""
        slot = placed.slot
        batches = requests = 0
        run_ms = device_ms = None
        # The slot of one that has ended may be another's by now.
        if placed.ended_s is None:
            batches = int(self._batches[slot]) - placed.seen_batches
            if batches:
                requests_now, executing_now, device_now = (sums[slot] for sums in self._sums)
                requests = int(requests_now) - placed.seen_requests
                executing_s = float(executing_now) - placed.seen_executing_s
                device_s = float(device_now) - placed.seen_device_s
                placed.seen_batches += batches
                placed.seen_requests += requests
                placed.seen_executing_s += executing_s
                placed.seen_device_s += device_s
                run_ms, device_ms = 1e3 * executing_s / batches, 1e3 * device_s / batches
        phase, since_s = self._phase(placed)
        return InstanceView(
            placed.id, placed.function, placed.gpu, placed.row, placed.config, phase, since_s,
            batches, requests, run_ms, device_ms,
        )  # fmt: skip

    def _a_while_ago(self, now_s: float, served: list[int]) -> list[int]:
        """How many answers each function had given `LATENCY_WINDOW_S` ago."""
        self._answered.append((now_s, served))
        while len(self._answered) > 1 and self._answered[1][0] <= now_s - LATENCY_WINDOW_S:
            self._answered.popleft()
        return self._answered[0][1]

    def _latency_ms(self, f: int, count: int, served: int) -> float | None:
        """The function's quantile over its last answers, the smallest that enough of them do not exceed."""
        count = min(count, self._world.recent.shape[1])
        if count == 0:
            return None
        ring: FloatArray = self._world.recent[f]
        first = (served - count) % len(ring)
        last = np.concatenate([ring[first:], ring[:first]])[:count]
        place = max(math.ceil(self._functions[f].slo_quantile * count - 1e-9), 1) - 1
        last.partition(place)
        return 1e3 * float(last[place])

    def _counted(self) -> list[list[int]]:
        """Arrived, served, late, refused, lost up to now, each by function. For few functions numbers of
        Python are faster than arrays."""
        return [counts.tolist() for counts in self._totals]

    def _phase(self, placed: Placed) -> tuple[Phase, float]:
        if placed.lost_s is not None:
            return Phase.LOST, placed.lost_s
        if placed.draining_s is not None:
            return Phase.DRAINING, placed.draining_s
        if self._stage[placed.slot] == STARTING:
            return Phase.STARTING, placed.started_s
        return Phase.READY, placed.ready_s
