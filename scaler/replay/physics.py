"""What a replay takes for true: the times of networks, and how simulated hardware behaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rapp.types import FloatArray
from scaler.functions import FunctionSpec
from scaler.sources.service_times import ServiceTimes


@dataclass(frozen=True, slots=True, eq=False)
class BatchTimes:
    """The truth about one network under one SM partition, for batches of 0 to B: each (B + 1,), s.

    Args:
        device_s: device time. pace_s: time of a batch that has the device to itself, without a quota.
        host_s: time that its launching keeps a core busy.
    """

    device_s: FloatArray
    pace_s: FloatArray
    host_s: FloatArray


@dataclass(frozen=True, slots=True)
class ServedFunction:
    """What the cluster has to know of a function.

    Args:
        name: its name. slo_s: objective, s. slo_quantile: share of requests that have to meet it.
        queue_limit: requests that may wait. most_delay_s: batching delay, s.
        cold_start_s: from the order to start an instance until it serves, s.
        times: truth of its network at an SM partition, %.
        gated_pace: under a quota that gates launches: time of a batch at an SM partition and a quota, %,
            as `BatchTimes.pace_s`; such a quota limits no device time. None: quotas are of device time.
        memory_mib: device memory of one instance, MiB.
    """

    name: str
    slo_s: float
    slo_quantile: float
    queue_limit: int
    most_delay_s: float
    cold_start_s: float
    times: Callable[[float], BatchTimes]
    gated_pace: Callable[[float, float], FloatArray] | None = None
    memory_mib: float = 0.0


@dataclass(frozen=True, slots=True)
class Physics:
    """How the simulated hardware behaves.

    Args:
        window_s: window of the time quota, s; 40 ms is the profiler's default.
        run_noise: standard deviation of the log of a batch's times; 2.9 % in the public V100 profiles.
        process_noise: the same for the times of an instance as a whole; 5.8 % there.
        beside: factor on device time while another row of the GPU is busy; V100 pairs: median 1.09.
        change_delay_s: from the order to change a quota or batch until the instance has it, s.
        most_batch: largest batch of any instance.
    """

    window_s: float = 0.040
    run_noise: float = 0.029
    process_noise: float = 0.058
    beside: float = 1.10
    change_delay_s: float = 0.050
    most_batch: int = 8


def served_function(
    spec: FunctionSpec, slo_ms: float, truth: ServiceTimes, memory_mib: float, most_batch: int
) -> ServedFunction:
    """A function as the cluster has to know it.

    Args:
        spec: the function. slo_ms: its objective, ms. truth: execution times of its network.
        memory_mib: device memory of one instance, MiB.
        most_batch: largest batch of any function: the length of all tables.
    """
    batch = np.arange(1, most_batch + 1)
    known: dict[float, BatchTimes] = {}

    def times(sm_pct: float) -> BatchTimes:
        if sm_pct not in known:
            device, host = truth.device_and_host_ms(sm_pct, batch)
            known[sm_pct] = BatchTimes(
                _seconds(device), _seconds(truth.execution_ms(sm_pct, batch)), _seconds(host)
            )
        return known[sm_pct]

    def gated_pace(sm_pct: float, quota_pct: float) -> FloatArray:
        return _seconds(truth.latency_ms(sm_pct, quota_pct, batch))

    return ServedFunction(
        name=spec.name,
        slo_s=slo_ms / 1e3,
        slo_quantile=spec.slo_quantile,
        queue_limit=spec.queue_limit,
        most_delay_s=spec.max_batch_delay_ms / 1e3,
        cold_start_s=spec.cold_start_s,
        times=times,
        gated_pace=None if truth.gate is None else gated_pace,
        memory_mib=memory_mib,
    )


def _seconds(by_batch_ms: FloatArray) -> FloatArray:
    """From ms for batches of 1 to B to s for batches of 0 to B."""
    return np.append(0.0, by_batch_ms) / 1e3
