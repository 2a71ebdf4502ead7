"""`CorrectedTimes`: predicted execution times at the risk planned for, scaled by what was observed."""

from __future__ import annotations

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
