"""What a replay takes for true: the times of networks, and how simulated hardware behaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rapp.types import FloatArray


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
    """

    name: str
    slo_s: float
    slo_quantile: float
    queue_limit: int
    most_delay_s: float
    cold_start_s: float
    times: Callable[[float], BatchTimes]


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
