"""Cumulative counts of a function or instance: they only go up, so that many readers can subtract."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque

BUCKETS_S = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3,
    0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0,
)  # fmt: skip
"""Upper bounds of the latency histograms, s: about half as wide as they are high, from 1 ms on."""

LATENCY_WINDOW_S = 10.0
"""The quantile that is shown is over the answers of so long, as the replay does."""
MOST_RECENT = 512
"""Answers that are kept for it."""


class LatencyHistogram:
    """Counts of latencies by bucket, as Prometheus takes them."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.sum_s = 0.0

    def add(self, latency_s: float, times: int = 1) -> None:
        """Count a latency."""
        self.counts[bisect_left(BUCKETS_S, latency_s)] += times
        self.sum_s += latency_s * times


class FunctionCounts:
    """What happened to a function's samples; every arrival ends as exactly one of the others, or waits."""

    def __init__(self) -> None:
        self.arrivals = 0
        self.completed = 0
        self.late = 0
        self.refused = 0
        self.expired = 0
        self.failed = 0
        self.latency = LatencyHistogram()
        self._recent: deque[tuple[float, float]] = deque(maxlen=MOST_RECENT)

    def complete(self, now_s: float, latency_s: float, samples: int, slo_s: float) -> None:
        """Count a request that was answered."""
        self.completed += samples
        if latency_s > slo_s:
            self.late += samples
        self.latency.add(latency_s, samples)
        self._recent.append((now_s, latency_s))

    def latency_ms(self, now_s: float, quantile: float) -> float | None:
        """The smallest latency that a share `quantile` of the recent answers does not exceed, ms."""
        latencies = sorted(latency for at, latency in self._recent if at > now_s - LATENCY_WINDOW_S)
        if not latencies:
            return None
        return 1e3 * latencies[max(math.ceil(quantile * len(latencies) - 1e-9), 1) - 1]


class InstanceCounts:
    """What an instance did, over all its restarts."""

    def __init__(self) -> None:
        self.batches = 0
        self.samples = 0
        self.run_s = 0.0
        self.device_s = 0.0
        self.held_s = 0.0
        self.restarts = 0
        self.latency = LatencyHistogram()
