"""Measured points of a user as observations on the knots."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from rapp.inference.posterior import Observations
from rapp.knots import Knots
from rapp.types import FloatArray, MeasuredPoint, QuotaKind

LatencyAt = Callable[[FloatArray, FloatArray, FloatArray, NDArray[np.bool_]], FloatArray]
"""Predicted latency, ms, (K,), at batch, sm_pct, quota_pct and gpu_time, each (K,)."""


def observations(
    points: Sequence[MeasuredPoint], knots: Knots, credit: float, predicted: LatencyAt
) -> Observations:
    """Put each point on its nearest knot.

    A latency that was measured beside a knot is multiplied by the ratio of the predicted latencies there and
    where it was measured: the prediction's slope between two knots is better known than its level. A quota
    of device time needs no knot, since its law is exact.

    Args:
        credit: `rapp.inference.law.credit_ms` of the loop that measured.
        predicted: what is believed before the points.
    """
    batch = np.array([point.config.batch for point in points], dtype=np.float64)
    sm_pct = np.array([point.config.sm_pct for point in points], dtype=np.float64)
    quota_pct = np.array([point.config.quota_pct for point in points], dtype=np.float64)
    gpu_time = np.array([point.quota_kind == QuotaKind.GPU_TIME for point in points], dtype=bool)
    latency_ms = np.array([point.latency_ms for point in points], dtype=np.float64)
    b, s, q = knots.nearest(batch, sm_pct, quota_pct)
    there = knots.batch[b], knots.sm_pct[s], np.where(gpu_time, quota_pct, knots.quota_pct[q])
    beside = (there[0] != batch) | (there[1] != sm_pct) | (there[2] != quota_pct)
    log_latency = np.log(latency_ms)
    if beside.any():
        moved = predicted(*there, gpu_time) / predicted(batch, sm_pct, quota_pct, gpu_time)
        log_latency = np.where(beside, log_latency + np.log(moved), log_latency)
    return Observations(b, s, q, there[2] / 100, log_latency, gpu_time, credit)
