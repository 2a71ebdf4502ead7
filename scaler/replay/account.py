"""What a replay cost: instances from their start to their end, and sums over them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

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
    factor: float = 1.0
    seen_batches: int = 0
    seen_requests: int = 0
    seen_executing_s: float = 0.0
    seen_device_s: float = 0.0


class Allotment(NamedTuple):
    """What an instance had for itself from `from_s` to `to_s`, s; a change of quota begins another."""

    instance: str
    function: str
    gpu: str
    row: int
    config: ResourceConfig
    from_s: float
    to_s: float

    @property
    def gpu_seconds(self) -> float:
        """SM share x quota x time."""
        return self.config.gpu_share * (self.to_s - self.from_s)


@dataclass(slots=True)
class Account:
    """What a replay has cost so far.

    Args:
        gpu_seconds: by function: sum over instances of SM share x quota x time, from the order to start on.
        host_core_seconds: by function: time that launching kept cores busy.
        gpu_on_seconds: time that GPUs had any instance, summed over GPUs.
        starts, resizes, drains: changes made. rejected: those that could not be made, with why.
        lost_instances: instances that crashed, or whose GPU was lost.
        allotments: what each instance had, in the order in which they ended.
    """

    gpu_seconds: dict[str, float] = field(default_factory=dict)
    host_core_seconds: dict[str, float] = field(default_factory=dict)
    gpu_on_seconds: float = 0.0
    starts: int = 0
    resizes: int = 0
    drains: int = 0
    lost_instances: int = 0
    rejected: list[tuple[float, str, str]] = field(default_factory=list)
    allotments: list[Allotment] = field(default_factory=list)

    def charge(self, placed: Placed, to_s: float) -> None:
        """Account for what an instance had since this was last called for it, up to `to_s`."""
        spent = Allotment(
            placed.id, placed.function, placed.gpu, placed.row, placed.config, placed.accounted_s, to_s
        )
        placed.accounted_s = to_s
        if spent.to_s > spent.from_s:
            self.allotments.append(spent)
            self.gpu_seconds[placed.function] = self.gpu_seconds.get(placed.function, 0.0) + spent.gpu_seconds

    def charge_host(self, placed: Placed, seconds: float) -> None:
        """Account for the time that an instance kept a core busy."""
        host = self.host_core_seconds
        host[placed.function] = host.get(placed.function, 0.0) + seconds
