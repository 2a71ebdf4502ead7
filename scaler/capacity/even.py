"""Plans for arrivals at even distances: the table for Poisson arrivals, with what these allow beyond it.

Most of what instances are given for Poisson arrivals is for requests that come close together. A request that
comes when the one before it is answered waits for nothing, so k instances serve even arrivals at the rate

    k / s,   s = max(T[1], D[1] / q)        T pace, D device time, q quota (`scaler.capacity.rate`)

each in its own time T[1]: in Kingman's formula (1961) waiting goes with the variability of arrivals. Batches
add nothing to that, they save time where requests wait for each other. Up to a part `FULL` of these rates is
planned with. The Poisson rate counts where it is more, as with many instances, whose queue evens out anyway,
or with large batches.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from scaler.capacity.plans import QUOTAS_PCT, PlanTable

FULL = 0.8
"""Utilization by single requests that is planned with. The rest is for errors of execution times, and holds a
step up of the load by a quarter until the next tick. On HAS-GPU's workloads with even arrivals at 5 times
their rate 0.85 costs 3 % less, but up to 0.3 % more answers are late, all in the second of such a step."""

MOST = 4.0
"""Times the Poisson rate up to which even arrivals are believed to need less: without a bound an instance
alone would be left no slack at all. At HAS-GPU's rates 3 costs 1 to 4 % more; without a bound 0.5 % of
efficientnet_b0's answers are late."""

PART_STEP = 0.02
"""Parts are rounded down to multiples of it, so that few tables are made."""


class EvenTable(PlanTable):
    """The plans of a function whose requests come evenly.

    Args:
        poisson: its plans for Poisson arrivals, which are looked up and not worked out again.
        part: factor on the rates that even arrivals allow, in (0, 1].
    """

    def __init__(self, poisson: PlanTable, part: float = 1.0) -> None:
        super().__init__(
            poisson.sm_pct, poisson.batches, poisson._device_ms, poisson._pace_ms, poisson._slo_ms,
            poisson._quantile, poisson._window_ms,
        )  # fmt: skip
        self._poisson, self._part = poisson, part
        pace_ms = self._pace_ms[:, :1]
        service_ms = np.maximum(pace_ms, self._device_ms[:, :1] * 100.0 / QUOTAS_PCT)
        self._single_rps = np.where(pace_ms <= self._slo_ms, 1e3 / service_ms, 0.0)[:, None, :]

    def rates_rps(self, number: int) -> NDArray[np.float32]:
        """(S, B, Q) as `PlanTable.rates_rps`, for even arrivals; nowhere less than that."""
        if number not in self._rates:
            poisson = self._poisson.rates_rps(number)
            even = np.minimum(MOST * poisson, FULL * number * self._single_rps)
            self._rates[number] = np.maximum(poisson, self._part * even).astype(np.float32)
        return self._rates[number]


def even_table(poisson: PlanTable, part: float = 1.0) -> EvenTable:
    """The same table for the same arguments; a part below 1 counts as the next smaller step."""
    return _even_table(poisson, int(part / PART_STEP + 1e-9))


@lru_cache(maxsize=400)
def _even_table(poisson: PlanTable, steps: int) -> EvenTable:
    return EvenTable(poisson, steps * PART_STEP)
