"""`Device`: what runs networks under a resource configuration, so that they can be timed.

A campaign opens one session for each network and SM partition (on a GPU: one fresh process), and inside it
goes over batches and quotas:

    with device.open(network, sm_pct=50) as session:
        session.prepare(batch=4)             # load, allocate, run once; raises MeasureError
        session.set_quota(50)                # at once, no restart
        block = session.run(10)              # ten batches, one after another, timed

`profiler.testing.DeviceContract` is the test that each device passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rapp.errors import RappError
from rapp.types import FloatArray, QuotaKind


class Failure(StrEnum):
    """How a point can end without a latency. The value is what the column `reason` begins with."""

    OUT_OF_MEMORY = "out of memory"
    TIMEOUT = "time-out"
    CRASHED = "worker crashed"
    UNSUPPORTED = "unsupported"
    PARTITION = "partition not obtained"
    WRONG_OUTPUT = "outputs differ from those at SM 100 %"
    DEVICE = "device error"


class MeasureError(RappError):
    """A point that could not be measured; expected, and the sweep goes on.

    Args:
        failure: how it ended.
        detail: one line for a person.
    """

    def __init__(self, failure: Failure, detail: str) -> None:
        self.failure, self.detail = failure, " ".join(detail.split())
        super().__init__(f"{failure.value}: {self.detail}" if self.detail else failure.value)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.failure, self.detail)

    @property
    def hits_larger_batches(self) -> bool:
        """Whether a larger batch at the same SM partition would end the same way."""
        return self.failure in (Failure.OUT_OF_MEMORY, Failure.TIMEOUT)


@dataclass(frozen=True, slots=True)
class NetworkFile:
    """A network to profile.

    Args:
        name: its name in the table: the file's stem.
        path: the ONNX file; None for a device that needs none (replay).
        graph_hash: of its operator graph; None where there is no file.
        batches: which batches it can be run with; None: any.
    """

    name: str
    path: Path | None
    graph_hash: str | None = None
    batches: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What the rows of a device have in common: columns of the profile table.

    Args:
        device: model of the device. device_uuid: which one; None: unknown.
        runtime: `ort-cuda`, `ort-cpu`, ...
        precision: `fp32`, ...
        quota_kind: what its quota limits.
        window_ms: window of the quota; None: unknown.
        granularity_ms: smallest device time that the quota can hold back; 0: any; None: a whole batch.
        idle_ms: pause between one batch and the next.
        memory_mib: device memory that a network may use; None: unknown, nothing is skipped for it.
        software: versions, for the column `software`.
        virtual_time: the device computes its answers and no time passes.
    """

    device: str
    device_uuid: str | None
    runtime: str
    precision: str
    quota_kind: QuotaKind
    window_ms: float | None
    granularity_ms: float | None
    idle_ms: float
    memory_mib: float | None = None
    software: Mapping[str, str] = field(default_factory=dict)
    virtual_time: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Batches that ran one after another.

    Args:
        wall_ms: (N,) wall time of each batch, until its result is there and the quota lets it go, ms.
        device_ms: (N,) device time of each; None: the device does not tell.
        launch_ms: (N,) host time until everything was launched; None: the device does not tell.
        disturbance: why the block cannot be trusted, such as `throttled`; None: nothing was seen.
    """

    wall_ms: FloatArray
    device_ms: FloatArray | None = None
    launch_ms: FloatArray | None = None
    disturbance: str | None = None


class Session(Protocol):
    """One network under one SM partition. Every method may raise `MeasureError`."""

    @property
    def sm_count(self) -> int | None:
        """Streaming multiprocessors (cores on a CPU) that it really got; None: the device has none."""

    def prepare(self, batch: int) -> None:
        """Load the network for `batch` and run it once under quota 100 %; the quota is then 100 %."""

    def set_quota(self, quota_pct: float) -> None:
        """Change the time quota, %, in (0, 100], from the next run on."""

    def run(self, count: int) -> Block:
        """Run `count` batches one after another, with the device's `idle_ms` between them."""

    def outputs(self) -> Sequence[NDArray[np.generic]] | None:
        """Outputs of the last run, on inputs that hang on network and batch alone; None: there are none."""

    @property
    def peak_memory_mib(self) -> float | None:
        """Most memory that the session has used so far, MiB; None: unknown."""


class Device(Protocol):
    """Something that runs networks under resource configurations."""

    @property
    def info(self) -> DeviceInfo:
        """What its rows have in common."""

    def why_not(self, sm_pct: float) -> str | None:
        """Why there is no such SM partition; None if there is."""

    def open(self, network: NetworkFile, sm_pct: float) -> AbstractContextManager[Session]:
        """A session in a process of its own; leaving it ends that process, whatever state it is in.

        Raises:
            MeasureError: it cannot be had; for a partition other than asked, `Failure.PARTITION`.
        """

    def close(self) -> None:
        """Give back what the device holds (daemons, clocks, files); may be called again."""
