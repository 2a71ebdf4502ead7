"""Policies side by side: means over seeds, for the table on the terminal and in the report."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scaler.replay.result import ReplayResult

T_975 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Quantile 0.975 of Student's t for 1 to 9 degrees of freedom; beyond, that of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over seeds, and half the width of its 95 % interval by Student's t; None: a single seed."""

    value: float
    within: float | None


def by_policy(results: Sequence[ReplayResult]) -> dict[str, list[ReplayResult]]:
    """The results of each policy, in the order in which they came."""
    found: dict[str, list[ReplayResult]] = {}
    for one in results:
        found.setdefault(one.policy, []).append(one)
    return found


def mean_of(results: Sequence[ReplayResult], figure: Callable[[ReplayResult], float]) -> Mean:
    """The mean of a figure over seeds."""
    values = [figure(one) for one in results]
    if len(values) < 2 or not all(math.isfinite(value) for value in values):
        return Mean(fmean(values), None)
    t = T_975[len(values) - 2] if len(values) - 2 < len(T_975) else 1.96
    return Mean(fmean(values), t * stdev(values) / math.sqrt(len(values)))


FIGURES: Mapping[str, Callable[[ReplayResult], float]] = {
    "gpu_s_per_1000": lambda one: one.total.gpu_seconds_per_1000,
    "whole_gpu_h": lambda one: one.whole_gpu_hours,
    "host_core_h": lambda one: one.total.host_core_hours,
    "violations_pct": lambda one: 100 * one.total.violation_share,
    "p50_ms": lambda one: one.total.p50_ms,
    "p95_ms": lambda one: one.total.p95_ms,
    "p99_ms": lambda one: one.total.p99_ms,
    "instances": lambda one: one.total.mean_instances,
    "most_instances": lambda one: float(one.total.most_instances),
    "starts": lambda one: float(one.account.starts),
    "resizes": lambda one: float(one.account.resizes),
    "drains": lambda one: float(one.account.drains),
    "refused": lambda one: float(one.total.refused),
    "lost": lambda one: float(one.total.lost),
    "unfinished": lambda one: float(one.total.unfinished),
    "not_made": lambda one: float(one.changes_not_made),
}
"""What policies are compared by."""


def violations_pct_at(multiplier: float) -> Callable[[ReplayResult], float]:
    """Violations in % of arrivals under the objective of this multiple of the base latency."""
    return lambda one: 100 * one.total.violation_share_at(multiplier)
