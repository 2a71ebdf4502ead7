"""What an instance takes, for packing: computed here alone, so that policies and the core's check agree."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from rapp.types import ResourceConfig
from scaler.core.corrected import CorrectedTimes
from scaler.functions import FunctionSpec
from scaler.gpu import Need
from scaler.sources.service_times import ServiceTimes


class BatchTimes(NamedTuple):
    """Predicted times at one SM partition, ms; entry n - 1 is a batch of n."""

    device_ms: tuple[float, ...]
    pace_ms: tuple[float, ...]
    host_ms: tuple[float, ...]


def instance_need(
    function: FunctionSpec, times: ServiceTimes, memory_mib: float, config: ResourceConfig
) -> Need:
    """What an instance of `function` with `config` takes.

    Args:
        times: as in `scaler.policies.base.Case`; corrections are left out, so that what was placed does not
            outgrow its GPU when they change.
        memory_mib: device memory of one instance, MiB.
    """
    plain = times.plain if isinstance(times, CorrectedTimes) else times
    return _need(plain, function.host_cores, function.max_batch, memory_mib, config)


@lru_cache(maxsize=65_536)
def _need(
    times: ServiceTimes, given_cores: float | None, most: int, memory_mib: float, config: ResourceConfig
) -> Need:
    """By what it depends on, since every tick asks several times of every instance."""
    cores = _host_cores(times, most, config) if given_cores is None else given_cores
    return Need(config.sm_pct, config.quota_pct, memory_mib, cores)


def _host_cores(times: ServiceTimes, most: int, config: ResourceConfig) -> float:
    """Host cores that an instance keeps busy at full load: H / max(T, D / quota).

    Full batches follow each other then, the next no sooner than the pace T and the token bucket allow.
    """
    at = batch_times(times, config.sm_pct, max(most, config.batch))
    n = config.batch - 1
    return min(at.host_ms[n] / max(at.pace_ms[n], at.device_ms[n] * 100.0 / config.quota_pct), 1.0)


@lru_cache(maxsize=16_384)
def batch_times(times: ServiceTimes, sm_pct: float, most: int) -> BatchTimes:
    """Mean times of batches of 1 to `most` at an SM partition: a table is read once, not at every tick."""
    batch = np.arange(1, most + 1)
    device, host = times.device_and_host_ms(sm_pct, batch)
    pace = times.execution_ms(sm_pct, batch)
    return BatchTimes(tuple(device.tolist()), tuple(pace.tolist()), tuple(host.tolist()))


def latency_ms(times: ServiceTimes, config: ResourceConfig, most: int) -> float:
    """Mean latency of one full batch, ms: `times.latency_ms` from tables that are read once.

    Args:
        most: the function's largest batch, so that what is asked of one SM partition is one table.
    """
    if times.gate is not None:
        return _gated_ms(times, config)
    at = batch_times(times, config.sm_pct, max(most, config.batch))
    n = config.batch - 1
    return max(at.pace_ms[n], at.device_ms[n] * 100.0 / config.quota_pct)


@lru_cache(maxsize=65_536)
def _gated_ms(times: ServiceTimes, config: ResourceConfig) -> float:
    return float(times.latency_ms(config.sm_pct, config.quota_pct, config.batch))


def at_mean_batch(by_batch: tuple[float, ...], batch: float) -> float:
    """A time at a mean batch, which need not be whole: straight in between, the last one beyond."""
    low = min(max(int(batch), 1), len(by_batch))
    high = min(low + 1, len(by_batch))
    return by_batch[low - 1] + (batch - low) * (by_batch[high - 1] - by_batch[low - 1])
