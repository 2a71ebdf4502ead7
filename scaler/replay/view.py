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
from scaler.replay.world import STARTING, IntArray, World

LATENCY_WINDOW_S = 10.0
"""The latency that is shown is over the answers of so long, as a query of a gateway's histogram takes."""


class Viewer:
    """Counts since the last look, per function and instance.

    Args:
        world: what is looked at. functions: in the order of the world's columns.
    """

    def __init__(self, world: World, functions: Sequence[ServedFunction]) -> None:
        self._world, self._functions = world, functions
        self._seen = _totals(world)
        self._answered: deque[tuple[float, IntArray]] = deque([(-math.inf, world.served.copy())])

    def functions(self, instances: Mapping[str, Placed]) -> dict[str, FunctionView]:
        """Each function as its gateway would report it; counts since this was last called."""
        w = self._world
        totals = _totals(w)
        counts = (totals - self._seen).T.tolist()
        self._seen = totals
        answered = self._recently_answered(totals[1])
        queues = w.queue_length.tolist()
        in_flight = dict.fromkeys((one.name for one in self._functions), 0)
        for placed in instances.values():
            in_flight[placed.function] += int(w.carried_count[placed.slot])
        views = {}
        for f, function in enumerate(self._functions):
            arrivals, completed, late, refused = counts[f]
            latency_ms = self._latency_ms(f, answered[f], int(totals[1, f]))
            views[function.name] = FunctionView(
                arrivals, queues[f], in_flight[function.name], completed, late, refused, latency_ms
            )
        return views

    def instance(self, placed: Placed) -> InstanceView:
        """An instance as its backend would report it; counts since this was last called for it."""
        w, slot = self._world, placed.slot
        batches = requests = 0
        run_ms = device_ms = None
        # The slot of one that has ended may be another's by now.
        if placed.ended_s is None:
            batches = int(w.batches[slot]) - placed.seen_batches
            if batches:
                requests = int(w.requests[slot]) - placed.seen_requests
                executing_s = float(w.executing[slot]) - placed.seen_executing_s
                device_s = float(w.device_used[slot]) - placed.seen_device_s
                placed.seen_batches += batches
                placed.seen_requests += requests
                placed.seen_executing_s += executing_s
                placed.seen_device_s += device_s
                run_ms, device_ms = 1e3 * executing_s / batches, 1e3 * device_s / batches
        phase, since_s = _phase(placed, w)
        return InstanceView(
            placed.id, placed.function, placed.gpu, placed.row, placed.config, phase, since_s,
            batches, requests, run_ms, device_ms,
        )  # fmt: skip

    def _recently_answered(self, served: IntArray) -> list[int]:
        """How many answers each function gave in the last `LATENCY_WINDOW_S`."""
        now = float(self._world.now[0])
        self._answered.append((now, served))
        while len(self._answered) > 1 and self._answered[1][0] <= now - LATENCY_WINDOW_S:
            self._answered.popleft()
        counts: list[int] = (served - self._answered[0][1]).tolist()
        return counts

    def _latency_ms(self, f: int, count: int, served: int) -> float | None:
        """The function's quantile over its last answers, the smallest that enough of them do not exceed."""
        count = min(count, self._world.recent.shape[1])
        if count == 0:
            return None
        ring: FloatArray = self._world.recent[f]
        first = (served - count) % len(ring)
        last = np.concatenate([ring[first:], ring[:first]])[:count]
        last.sort()
        rank = math.ceil(self._functions[f].slo_quantile * count - 1e-9)
        return 1e3 * float(last[max(rank, 1) - 1])


def _totals(w: World) -> IntArray:
    """Arrived, served, late, refused or lost: (4, F)."""
    return np.stack([w.arrived, w.served, w.late, w.refused + w.lost])


def _phase(placed: Placed, w: World) -> tuple[Phase, float]:
    if placed.lost_s is not None:
        return Phase.LOST, placed.lost_s
    if placed.draining_s is not None:
        return Phase.DRAINING, placed.draining_s
    if w.stage[placed.slot] == STARTING:
        return Phase.STARTING, placed.started_s
    return Phase.READY, placed.ready_s
