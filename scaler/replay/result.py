"""`ReplayResult`: what a replay came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scaler.replay.account import Account
from scaler.replay.recovery import Recovery
from scaler.replay.series import MADE, Series


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Figures of one function, or of all together.

    Args:
        arrivals: requests that came; each is one of:
        served: answered. refused: turned away at a full queue. lost: dropped, its instances died too often.
        unfinished: neither, when the replay ended.
        late: of the served, after the objective.
        violations: arrivals late, refused, lost or unfinished, under the function's own objective.
        violations_at: the same under other objectives, by multiple of the base latency.
        p50_ms, p95_ms, p99_ms: latency of the served; NaN: none.
        gpu_seconds: sum over instances of SM share x quota x time, from the order to start on.
        host_core_seconds: time that launching kept cores busy.
        mean_instances: over the trace, those that start or drain included. most_instances: at a tick.
        duration_s: length of the trace.
    """

    arrivals: int
    served: int
    refused: int
    lost: int
    unfinished: int
    late: int
    violations: int
    violations_at: Mapping[float, int]
    p50_ms: float
    p95_ms: float
    p99_ms: float
    gpu_seconds: float
    host_core_seconds: float
    mean_instances: float
    most_instances: int
    duration_s: float

    @property
    def gpu_seconds_per_1000(self) -> float:
        """GPU-seconds per 1,000 arrivals; NaN: none came."""
        return 1e3 * self.gpu_seconds / self.arrivals if self.arrivals else float("nan")

    @property
    def host_core_hours(self) -> float:
        """Host-core hours."""
        return self.host_core_seconds / 3600

    @property
    def violation_share(self) -> float:
        """Violations over all arrivals, 0 to 1; 0 where none came."""
        return self.violations / self.arrivals if self.arrivals else 0.0

    def violation_share_at(self, multiplier: float) -> float:
        """The same under the objective of this multiple of the base latency."""
        return self.violations_at[multiplier] / self.arrivals if self.arrivals else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionResult(Figures):
    """Figures of one function.

    Args:
        function: its name. slo_ms: its objective. base_ms: true latency at SM 100 %, quota 100 %, batch 1.
    """

    function: str
    slo_ms: float
    base_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayResult:
    """What a replay came to.

    Args:
        policy: its name. seed: of the replay.
        functions: by name. total: over all of them.
        account: costs in detail, changes, and what each instance had when (`allotments`).
        series: figures tick by tick, and every change with its reason.
        recoveries: how long each disturbance was felt.
        took_s: wall time of the replay.
    """

    policy: str
    seed: int
    functions: Mapping[str, FunctionResult]
    total: Figures
    account: Account
    series: Series
    recoveries: tuple[Recovery, ...]
    took_s: float

    @property
    def whole_gpu_hours(self) -> float:
        """Hours that GPUs had any instance, summed over GPUs."""
        return self.account.gpu_on_seconds / 3600

    @property
    def changes(self) -> int:
        """Starts, changes of quota or batch, and drains that were made."""
        return self.account.starts + self.account.resizes + self.account.drains

    @property
    def changes_not_made(self) -> int:
        """Changes that were decided on and could not be made."""
        return sum(change.outcome != MADE for change in self.series.changes)
