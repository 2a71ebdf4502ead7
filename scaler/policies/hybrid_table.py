"""The table that `hybrid` plans one function with, by execution times as they are observed."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from scaler.capacity.plans import PlanTable, plan_table
from scaler.core.corrected import CorrectedTimes, corrected
from scaler.policies.base import Case
from scaler.sources.service_times import ServiceTimes

BESIDE = 1.05
"""Factor on observed execution times. They hold how much neighbours slow each other at the load there is, up
to 1.10 (V100 pairs: median 1.09); at the next load they may do so by half of it more."""

COARSE = 1.05
"""Observed times, and device time over pace, are rounded to powers of it, mostly up: a table of plans takes a
tenth of a second to make. What the times are rounded by is given back in the rates."""


def planned_table(case: Case) -> tuple[PlanTable, float]:
    """Plans of a function by execution times as observed, and `BESIDE`; and the factor on their rates.

    Times that are shorter by a factor f serve at least 1 / f times the rate: so much would be served if the
    objective and the window were shorter by f as well, and longer ones only serve more.
    """
    spec = case.spec
    return _table(case.times, case.slo_ms - spec.max_batch_delay_ms, spec.slo_quantile, spec.max_batch)


# The core keeps the times of a correction, so that they are known again by identity.
@lru_cache(maxsize=4096)
def _table(times: ServiceTimes, slo_ms: float, quantile: float, max_batch: int) -> tuple[PlanTable, float]:
    plain, pace, device_over_pace = times, BESIDE, 1.0
    if isinstance(times, CorrectedTimes):
        # One factor for all configurations, so that tables are kept while it stays.
        plain, device_over_pace = times.plain, _rounded(times.device_over_pace)
        pace *= float(np.exp(np.mean(np.log(times.device_ms / plain.device_ms))))
    rounded = _rounded(pace)
    slowed = corrected(plain, device_factor=rounded * device_over_pace, pace_factor=rounded, spread=0.0)
    return plan_table(slowed, slo_ms, quantile, max_batch), rounded / pace


def _rounded(factor: float) -> float:
    return float(COARSE ** math.ceil(math.log(factor) / math.log(COARSE) - 0.25))
