"""Times at the SM partitions that a machine can give, where it cannot give every one: whole cores, say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rapp.types import FloatArray
from scaler.sources.axes import Axes, Place
from scaler.sources.service_times import Gate, ServiceTimes

MOST_STEPS = 100
"""Partitions of a table: a machine of 128 cores has no instance whose time would change by one core more."""


def in_steps(times: ServiceTimes, step_pct: float) -> ServiceTimes:
    """The same times, with the multiples of a step for SM partitions.

    Args:
        step_pct: in (0, 100], %. Multiples below the least partition that the source knows are kept as well:
            a policy need not, but may, choose them.
    """
    sm_pct = _multiples(step_pct)
    at = sm_pct[:, None], times.batch[None]
    device_ms, host_ms = times.device_and_host_ms(*at)
    place = Place.of(Axes.of(times.sm_pct, times.batch), *at)
    log_upper = np.log(times.upper)
    gate = None
    if times.gate is not None:
        quota_pct = times.gate.quota_pct
        latency_ms = times.latency_ms(sm_pct[:, None, None], quota_pct[:, None], times.batch)
        gate = Gate(quota_pct, latency_ms)
    return replace(
        times,
        sm_pct=sm_pct,
        device_ms=device_ms,
        host_ms=host_ms,
        upper=place.read(lambda s, b: log_upper[s, b]),
        gate=gate,
    )


def _multiples(step_pct: float) -> FloatArray:
    steps = int(np.floor(100.0 / step_pct + 1e-6))
    numbers = np.unique(np.linspace(1, steps, min(steps, MOST_STEPS)).round())
    return np.minimum(numbers * step_pct, 100.0)
