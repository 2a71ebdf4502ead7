"""What a replay cost: instances from their start to their end, and sums over them."""

from __future__ import annotations

from dataclasses import dataclass, field

from rapp.types import ResourceConfig


@dataclass(slots=True)
class Placed:
    """An instance from its start to its end, for observations and accounts."""

    id: str
    function: str
    gpu: str
    row: int
    slot: int
    config: ResourceConfig
    started_s: float
    ready_s: float
    draining_s: float | None = None
    lost_s: float | None = None
    ended_s: float | None = None
    accounted_s: float = 0.0
    gpu_seconds: float = 0.0
    seen_batches: int = 0
    seen_requests: int = 0
    seen_executing_s: float = 0.0
    seen_device_s: float = 0.0


@dataclass(slots=True)
class Account:
    """What a replay has cost so far.

    Args:
        gpu_seconds: by function: sum over instances of SM share x quota x time, from the order to start on.
        host_core_seconds: by function: time that launching kept cores busy.
        gpu_on_seconds: time that GPUs had any instance, summed over GPUs.
        starts, resizes, drains: changes made. rejected: those that could not be made, with why.
    """

    gpu_seconds: dict[str, float] = field(default_factory=dict)
    host_core_seconds: dict[str, float] = field(default_factory=dict)
    gpu_on_seconds: float = 0.0
    starts: int = 0
    resizes: int = 0
    drains: int = 0
    rejected: list[tuple[float, str, str]] = field(default_factory=list)
