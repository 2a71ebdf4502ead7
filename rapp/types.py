"""The words of the project as small immutable values.

`ResourceConfig` is what a scheduler chooses, `LatencyEstimate` what the predictor
answers. Units are in the names: percent (`_pct`), milliseconds (`_ms`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from rapp.errors import ConfigError

FloatArray = NDArray[np.float64]


class QuotaKind(StrEnum):
    """What a time quota limits.

    `gpu_time`: device time per window, a token bucket whose debt is repaid.
    `launch_gate`: the time in which the host may launch operators; what is already
    queued on the device runs on. The public V100 profiles gate launches.
    """

    GPU_TIME = "gpu_time"
    LAUNCH_GATE = "launch_gate"


def _check_percent(name: str, value: float) -> None:
    if not (math.isfinite(value) and 0 < value <= 100):
        raise ConfigError(f"{name} is {value:g}: it must lie in (0, 100]")


def _check_batch(value: int) -> None:
    if not (math.isfinite(value) and value == int(value) and value >= 1):
        raise ConfigError(f"batch is {value}: it must be a whole number, 1 or more")


@dataclass(frozen=True, slots=True, order=True)
class ResourceConfig:
    """What one instance of a network gets.

    Args:
        sm_pct: share of the streaming multiprocessors, %, in (0, 100].
        quota_pct: time allowed per window, %, in (0, 100]; what it limits is the `QuotaKind`.
        batch: requests executed together, >= 1.

    Raises:
        ConfigError: a value out of its range.
    """

    sm_pct: float
    quota_pct: float
    batch: int = 1

    def __post_init__(self) -> None:
        _check_percent("sm_pct", self.sm_pct)
        _check_percent("quota_pct", self.quota_pct)
        _check_batch(self.batch)

    @property
    def gpu_share(self) -> float:
        """Share of one GPU while it runs, in (0, 1]: sm_pct/100 x quota_pct/100."""
        return self.sm_pct * self.quota_pct / 1e4


@dataclass(frozen=True, slots=True)
class ResourceGrid:
    """The product of SM partitions, quotas and batches; arrays over it have shape (S, Q, B).

    Each axis is kept in the order given.

    Raises:
        ConfigError: an empty axis or a value out of its range.
    """

    sm_pct: Sequence[float] = field(default_factory=lambda: tuple(range(5, 101, 5)))
    quota_pct: Sequence[float] = field(default_factory=lambda: tuple(range(10, 101, 10)))
    batch: Sequence[int] = (1, 2, 4, 8)

    def __post_init__(self) -> None:
        for name in ("sm_pct", "quota_pct", "batch"):
            if len(getattr(self, name)) == 0:
                raise ConfigError(f"the axis {name} of the grid is empty")
        for value in self.sm_pct:
            _check_percent("sm_pct", value)
        for value in self.quota_pct:
            _check_percent("quota_pct", value)
        for value in self.batch:
            _check_batch(value)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(S, Q, B): the number of SM partitions, of quotas, of batches."""
        return len(self.sm_pct), len(self.quota_pct), len(self.batch)

    def __iter__(self) -> Iterator[ResourceConfig]:
        """Every configuration, the batch running fastest: the order of `ravel()` of an (S, Q, B) array."""
        for sm in self.sm_pct:
            for quota in self.quota_pct:
                for batch in self.batch:
                    yield ResourceConfig(sm, quota, batch)

    def __len__(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class MeasuredPoint:
    """One measured latency of the network that is asked about.

    Args:
        config: where it was measured.
        latency_ms: mean wall time of one batch, ms, > 0.
        quota_kind: what the quota limited.
    """

    config: ResourceConfig
    latency_ms: float
    quota_kind: QuotaKind = QuotaKind.LAUNCH_GATE

    def __post_init__(self) -> None:
        if not (math.isfinite(self.latency_ms) and self.latency_ms > 0):
            raise ConfigError(f"latency_ms is {self.latency_ms:g}: it must be a positive number")


@dataclass(frozen=True, slots=True)
class LatencyEstimate:
    """What the predictor says of one configuration; all times in ms.

    Args:
        mean_ms: predicted mean latency of one batch.
        low_ms: lower end of the 90 % interval of that mean.
        high_ms: upper end of the 90 % interval of that mean.
        device_ms: device time D at this SM partition and batch.
        host_ms: host time H, launching without a quota.
        extrapolated: the question lies outside the training's operators, SM partitions, quotas,
            batches or device, and the interval does not cover that.
    """

    mean_ms: float
    low_ms: float
    high_ms: float
    device_ms: float
    host_ms: float
    extrapolated: bool


@dataclass(frozen=True, slots=True, eq=False)
class LatencyGrid:
    """`LatencyEstimate` over a `ResourceGrid`: arrays of shape (S, Q, B), ms; `extrapolated` is boolean."""

    grid: ResourceGrid
    mean_ms: FloatArray
    low_ms: FloatArray
    high_ms: FloatArray
    device_ms: FloatArray
    host_ms: FloatArray
    extrapolated: NDArray[np.bool_]
