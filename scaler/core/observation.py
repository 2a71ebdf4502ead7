"""What the core sees at one tick: nothing that a live system could not see.

All times are seconds on the adapter's clock, which never goes back. Counts are since the observation before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from rapp.types import ResourceConfig


class Phase(StrEnum):
    """Where an instance is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class InstanceView:
    """One instance of a function as the backend reports it.

    Args:
        id: its name; an instance that the core started has the name that the core gave it.
        function: what it serves.
        gpu: id of its GPU. row: index of its row on that GPU; rows are SM partitions side by side.
        config: SM partition, quota and batch that it has now.
        phase: where it is in its life. since_s: when it entered that phase.
        batches: batches that it executed. requests: requests in them.
        run_ms: mean time from the start of a batch until it is computed, ms, before its result is held for
            the quota; None: no batch. device_ms: mean device time charged for a batch, ms; None: not known.
    """

    id: str
    function: str
    gpu: str
    row: int
    config: ResourceConfig
    phase: Phase
    since_s: float
    batches: int = 0
    requests: int = 0
    run_ms: float | None = None
    device_ms: float | None = None


@dataclass(frozen=True, slots=True)
class FunctionView:
    """One function as the gateway reports it; None where a count could not be had.

    Args:
        arrivals: requests that came. completed: answered. late: of those, after the objective.
        refused: turned away or dropped.
        queue: requests that wait now. in_flight: requests in a batch now.
        latency_ms: the function's `slo_quantile` of the latencies answered, ms; None: none answered.
    """

    arrivals: int | None
    queue: int = 0
    in_flight: int = 0
    completed: int = 0
    late: int = 0
    refused: int = 0
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class GpuView:
    """One GPU that is there.

    Args:
        id: its name.
        memory_mib: memory for instances, MiB.
        host_cores: cores of its machine that instances on this GPU may keep busy with launching.
        sm_step_pct: SM partitions are multiples of it, %, such as whole cores of a CPU; 0: any can be had.
    """

    id: str
    memory_mib: float
    host_cores: float
    sm_step_pct: float = 0.0


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything at one tick.

    Args:
        now_s: time of the tick.
        functions: by name; one that is absent could not be observed.
        instances: all there are, those that the core did not start included.
        gpus: those that are there now.
    """

    now_s: float
    functions: Mapping[str, FunctionView] = field(default_factory=dict)
    instances: tuple[InstanceView, ...] = ()
    gpus: tuple[GpuView, ...] = ()
