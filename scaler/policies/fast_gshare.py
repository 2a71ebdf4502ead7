"""`FastGshare`: replicas of one fixed configuration, after FaST-GShare-Autoscaler (public at f3e88c7).

Every 10 s the rate over the last 10 s is compared with the capacity of all instances
(`internal/controller/fastfunc_controller.go`, getDesiredFastfuncSpec and schedule):

    rate - capacity > 0.2 capacity      start ceil((rate - capacity) / unit) instances
    capacity - rate > 0.2 capacity      stop floor((capacity - rate) / unit) instances

`unit` is what one instance serves. FaST-GShare looks it up in a profile of throughputs; in the public file
the look-up is a stub that answers 30. Here it is what such a profile holds, batch / latency, without any
waiting: the objective plays no part in it, and an instance that is loaded to its capacity has an unbounded
queue. That is its design, and kept.

`fast-gshare` has SM 30 %, quota 50 %, batch 1: the configuration of HAS-GPU's comparison (`validation/`, FaST
yaml: SM 30, quota request and limit 0.5, batch 1; other runs had other ones, set by hand). `fast-gshare-best`
has the best fixed configuration of each function, see `best_config`. `initial` of a function is not used.

Apart from the public code: the call that scales is commented out there, here it scales; the rate is that of
arrivals instead of completed invocations, which under saturation do not show demand; the last instances stay
as the function's specification says, where the public code goes to zero at low load; and what fits nowhere is
not started. A stopped instance drains, where the recorded runs answered with errors (502).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rapp.errors import ConfigError
from rapp.types import ResourceConfig
from scaler.core.decision import Action, Reason
from scaler.packing import Pool
from scaler.policies import windows
from scaler.policies.base import Case, Memory
from scaler.policies.changes import Changes, Remembered, decide_each, nothing_decided, throughput_rps

PERIOD_S = 10.0
"""Time between decisions, s: `time.NewTicker(10 * time.Second)`."""

RATE_WINDOW_S = 10.0
"""What a rate is taken over, s: `rate(gateway_function_invocation_total[10s])`."""

THRESHOLD = 0.2
"""Part of the capacity by which rate and capacity may differ (getDesiredFastfuncSpec)."""

PUBLISHED = ResourceConfig(30.0, 50.0, 1)
"""SM partition, quota and batch of FaST-GShare's instances in HAS-GPU's `validation/`."""

QUOTAS_PCT = tuple(range(10, 101, 10))
"""Quotas that the best configuration is chosen from, %: those of the public profiles."""


@dataclass(frozen=True, slots=True)
class FastGshare:
    """Horizontal scaling alone.

    Args:
        config: configuration of every instance; None: the best fixed one of each function.
        reserve: part of the objective, in [0, 1), that the latency of a batch leaves free when the best
            configuration is chosen. Default 0.2: the tail of execution times alone takes 0.15 (runs differ by
            2.9 %, instances by 5.8 %, p99 of both together), and little is left for waiting, as its capacity
            without waiting suggests. More of it makes it dearer and later less often.

    Raises:
        ConfigError: a reserve out of its range.
    """

    config: ResourceConfig | None = PUBLISHED
    reserve: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.reserve < 1:
            raise ConfigError(f"reserve {self.reserve:g} must lie in [0, 1)")

    @property
    def name(self) -> str:
        """`fast-gshare` or `fast-gshare-best`."""
        return "fast-gshare-best" if self.config is None else "fast-gshare"

    def start(self) -> Memory:
        """No decision yet, nothing counted, no configuration chosen."""
        return nothing_decided()

    def decide(
        self, memory: Memory, now_s: float, cases: Sequence[Case], pool: Pool
    ) -> tuple[Memory, list[Action], Mapping[str, float]]:
        """As `Policy.decide`. The rates answered are capacities as FaST-GShare counts them."""
        return decide_each(memory, now_s, PERIOD_S, cases, pool, self._decide)

    def _decide(self, changes: Changes, known: Remembered | None, due: bool) -> tuple[Remembered, float]:
        case, now_s = changes.case, changes.now_s
        known = {"rates": [], "config": None} if known is None else known
        rates = windows.added(known["rates"], now_s, case.rate_rps, RATE_WINDOW_S)
        config = self._config(case, known["config"])
        least = changes.keep_fewest(lambda reason: changes.start(config, reason))
        if least > 0 and due:
            _scale(changes, windows.mean(rates, now_s, RATE_WINDOW_S), config, least)
        kept = {"rates": rates, "config": [config.sm_pct, config.quota_pct, config.batch]}
        return kept, throughput_rps(case, changes.live.values())

    def _config(self, case: Case, chosen: Sequence[float] | None) -> ResourceConfig:
        if self.config is not None:
            return self.config
        if chosen is not None:
            return ResourceConfig(float(chosen[0]), float(chosen[1]), int(chosen[2]))
        return best_config(case, self.reserve)


def best_config(case: Case, reserve: float) -> ResourceConfig:
    """The fixed configuration that serves a function at the least GPU-seconds a request.

    Chosen among the SM partitions and batches of the times and quotas in steps of 10 %: those where a full
    batch takes at most (1 - reserve) of the objective; of like cheap ones that with the least GPU share,
    since replicas of it follow the load most closely. If none is as fast, the fastest there is: what it can
    do for an objective that leaves no room for the reserve.
    """
    times = case.times
    batches = times.batch[times.batch <= case.spec.max_batch]
    sm, quota, batch = (
        axis.ravel() for axis in np.meshgrid(times.sm_pct, np.array(QUOTAS_PCT, np.float64), batches)
    )
    latency_ms = times.latency_ms(sm, quota, batch)
    share = sm * quota / 1e4
    allowed = np.flatnonzero(latency_ms <= (1 - reserve) * case.slo_ms)
    if len(allowed) == 0:
        best = np.lexsort((share, latency_ms))[0]
        return ResourceConfig(float(sm[best]), float(quota[best]), int(batch[best]))
    # To nine digits, so that what is equal but for rounding is told apart by its share.
    cost = np.array([float(f"{seconds:.9g}") for seconds in (share * latency_ms / batch)[allowed]])
    best = allowed[np.lexsort((latency_ms[allowed], share[allowed], cost))[0]]
    return ResourceConfig(float(sm[best]), float(quota[best]), int(batch[best]))


def _scale(changes: Changes, rate_rps: float | None, config: ResourceConfig, least: int) -> None:
    if rate_rps is None:
        return
    capacity_rps = throughput_rps(changes.case, changes.live.values())
    unit_rps = throughput_rps(changes.case, [config])
    missing_rps = rate_rps - capacity_rps
    if abs(missing_rps) <= THRESHOLD * capacity_rps:
        return
    more = math.ceil(missing_rps / unit_rps) if missing_rps > 0 else -math.floor(-missing_rps / unit_rps)
    changes.scale_to(max(len(changes.live) + more, least), config, Reason.DEMAND_UP, Reason.DEMAND_DOWN)
