"""The quota axis computed from quota 100 %, under the law of a token bucket on device time.

    L(q) = max(L(100 %), D / q - credit)        credit = min(idle, window)

D is the device time of a batch and L(100 %) its wall time with nothing to wait for. In a closed loop the
bucket earns q a second and pays D a batch, so that a batch cannot take less than D / q together with the
pause before it; a pause longer than the window fills the bucket and earns no more. It is the law of
`rapp.inference.law` with a sharp maximum, since L(100 %) is measured here and not made from D and H. In the
fluid limit: a gate that holds back whole batches lets single ones through early or late, the mean stays.

Other quotas have other laws (`launch_gate` stretches launching), so that nothing is derived for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from profiler.device import DeviceInfo
from profiler.measure import Measurement
from profiler.outcome import Outcome, Status
from profiler.plan import FULL_PCT, Point
from rapp.errors import ConfigError
from rapp.inference.law import credit_ms
from rapp.types import QuotaKind, ResourceConfig

LAW = "max(latency at quota 100 %, device time / quota - min(idle, window))"

WORST_ERROR = 0.10
"""Mean relative error of the verified points above which a network's derived points deserve a warning."""


@dataclass(frozen=True, slots=True)
class Verification:
    """Computed against measured latency of one network, over the quotas that were measured to see it.

    Args:
        points: how many. mean_error, worst_error: |computed - measured| / measured.
    """

    points: int
    mean_error: float
    worst_error: float


def check_derivable(info: DeviceInfo) -> None:
    """Raise ConfigError if the device's quota has another law."""
    if info.quota_kind != QuotaKind.GPU_TIME:
        raise ConfigError(
            f"--quota-mode derive computes gpu_time quotas, but those of {info.device} are"
            f" {info.quota_kind.value}: use --quota-mode measure"
        )


def check_device_time(outcome: Outcome) -> None:
    """Raise ConfigError if a measured point came without device time."""
    if outcome.measurement is not None and outcome.measurement.device_ms is None:
        raise ConfigError(
            "--quota-mode derive needs the device time of a batch, which this device does not tell:"
            " use --quota-mode measure"
        )


def derived_latency_ms(full: Measurement, quota_pct: float, info: DeviceInfo) -> float:
    """Mean latency of one batch under a quota, ms, from the measurement at quota 100 %."""
    assert full.device_ms is not None, "check_device_time comes first"
    # A window that is not known holds at least the pause.
    credit = credit_ms(info.idle_ms, info.idle_ms if info.window_ms is None else info.window_ms)
    return max(full.latency_ms, full.device_ms / (quota_pct / 100) - credit)


def derive(
    point: Point, outcomes: Mapping[Point, Outcome], info: DeviceInfo, not_measured: str
) -> tuple[Status, float | str]:
    """How a derived point ends: ok and its latency, ms, or skipped and the reason.

    Args:
        not_measured: the reason where the point at quota 100 % has no outcome.
    """
    full = outcomes.get(_full(point))
    if full is None:
        return Status.SKIPPED, not_measured
    if full.measurement is None:
        return Status.SKIPPED, f"quota 100 % ended with: {full.reason}"
    return Status.OK, derived_latency_ms(full.measurement, point.config.quota_pct, info)


def verify(outcomes: Iterable[Outcome], info: DeviceInfo) -> Verification | None:
    """How well the law holds where quotas under 100 % were measured, for outcomes of one network."""
    measured = {outcome.point: outcome.measurement for outcome in outcomes if outcome.measurement is not None}
    errors = []
    for point, own in measured.items():
        full = measured.get(_full(point))
        if point.anchor is None and point.config.quota_pct < FULL_PCT and full is not None:
            computed = derived_latency_ms(full, point.config.quota_pct, info)
            errors.append(abs(computed - own.latency_ms) / own.latency_ms)
    return Verification(len(errors), fmean(errors), max(errors)) if errors else None


def _full(point: Point) -> Point:
    config = point.config
    return Point(point.network, ResourceConfig(config.sm_pct, FULL_PCT, config.batch))
