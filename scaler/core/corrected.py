"""`CorrectedTimes`: predicted execution times at the risk planned for, scaled by what was observed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rapp.errors import ConfigError
from rapp.inference.law import soft_maximum
from rapp.recommend import Risk
from rapp.types import FloatArray
from scaler.sources.service_times import Gate, ServiceTimes


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CorrectedTimes(ServiceTimes):
    """Execution times whose device time and pace have factors of their own.

    The law T = softmax(D, H) cannot hold for both: a batch may use the device as predicted and yet run
    longer, beside others. softmax scales with its arguments, so the tables hold D and H scaled as the pace
    is, from which T follows, and the device time is that of the tables times `device_over_pace`.

    Args:
        plain: the prediction as it was.
        device_over_pace: factor of the device time over factor of the pace.
    """

    plain: ServiceTimes
    device_over_pace: float = 1.0

    # Parents are named instead of `super()`: a dataclass with slots is made anew, which super() does not see.
    def device_and_host_ms(
        self, sm_pct: ArrayLike, batch: ArrayLike, risk: Risk = Risk.MEAN
    ) -> tuple[FloatArray, FloatArray]:
        """D and H of one batch, ms, corrected."""
        device, host = ServiceTimes.device_and_host_ms(self, sm_pct, batch, risk)
        return device * self.device_over_pace, host

    def execution_ms(self, sm_pct: ArrayLike, batch: ArrayLike, risk: Risk = Risk.MEAN) -> FloatArray:
        """T: wall time of one batch without a quota, ms, corrected; not below its device time."""
        device, host = ServiceTimes.device_and_host_ms(self, sm_pct, batch, risk)
        pace = np.exp(soft_maximum(np.log(device), np.log(host)))
        return np.asarray(np.maximum(pace, device * self.device_over_pace))

    def latency_ms(
        self,
        sm_pct: ArrayLike,
        quota_pct: ArrayLike,
        batch: ArrayLike,
        *,
        credit_ms: float = 0.0,
        risk: Risk = Risk.MEAN,
    ) -> FloatArray:
        """L: wall time of one batch under a quota, ms, corrected."""
        if self.gate is not None:
            return ServiceTimes.latency_ms(self, sm_pct, quota_pct, batch, credit_ms=credit_ms, risk=risk)
        quota = np.asarray(quota_pct, np.float64)
        if not ((quota > 0) & (quota <= 100)).all():
            raise ConfigError("a quota must lie in (0, 100] %")
        device, _ = self.device_and_host_ms(sm_pct, batch, risk)
        owed = device * 100.0 / quota - credit_ms
        return np.asarray(np.maximum(self.execution_ms(sm_pct, batch, risk), owed))


SPREAD_STEPS = 8
"""Quanta of the spread between 0 and 1."""

SPREADS = np.linspace(0.0, 1.0, SPREAD_STEPS + 1)
"""Powers that `bearable_spread` chooses from."""


def corrected(
    plain: ServiceTimes, *, device_factor: float, pace_factor: float, spread: float
) -> CorrectedTimes:
    """A prediction with factors.

    Args:
        plain: the prediction. device_factor: on device time. pace_factor: on the wall time of a batch.
        spread: power, 0 to 1, to which the factor from the mean to the upper end is raised: 1 plans with the
            upper end, 0 with the mean. It is in the tables then, and `Risk.UPPER` of them adds nothing.
    """
    widened = plain.upper**spread * pace_factor
    gate = None
    if plain.gate is not None:
        gate = Gate(plain.gate.quota_pct, plain.gate.latency_ms * widened[:, None])
    return CorrectedTimes(
        plain.network, plain.source, plain.sm_pct, plain.batch, plain.device_ms * widened,
        plain.host_ms * widened, np.ones_like(plain.upper), plain.memory_mib, gate,
        plain=plain, device_over_pace=device_factor / pace_factor,
    )  # fmt: skip


def bearable_spread(plain: ServiceTimes, pace_factor: float, slo_ms: float) -> float:
    """How much of the interval can be planned with so that it still says which configuration to take.

    The upper end of a wide interval, as without any measured point, may meet an objective that the mean meets
    easily only on whole GPUs, or nowhere. So it may take up half of what the mean leaves, in logarithms: the
    fastest configuration is planned with as at most sqrt(mean x objective).

    Args:
        plain: the prediction. pace_factor: on the wall time of a batch.
        slo_ms: objective less the batching delay.

    Returns:
        The power, 0 to 1, for `corrected`; 0 if the mean misses the objective already.
    """
    mean_ms = pace_factor * plain.latency_ms(plain.sm_pct[:, None], 100.0, plain.batch[None])
    most_ms = math.sqrt(max(slo_ms, 0.0) * float(mean_ms.min()))
    fastest_ms = (mean_ms * plain.upper ** SPREADS[:, None, None]).min(axis=(1, 2))
    return float(SPREADS[max(int(np.searchsorted(fastest_ms, most_ms, side="right")) - 1, 0)])
