"""A device that computes its latency and fails where a test says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from profiler.device import Block, DeviceInfo, Failure, MeasureError, NetworkFile
from profiler.measure import StopRule
from rapp.types import QuotaKind, ResourceConfig

QUICK = StopRule(min_samples=20, max_samples=40, max_seconds=60)

INFO = DeviceInfo(
    device="scripted", device_uuid="S-1", runtime="none", precision="fp32", quota_kind=QuotaKind.GPU_TIME,
    window_ms=40.0, granularity_ms=None, idle_ms=2.0, memory_mib=1000.0, software={"driver": "1.0"},
    virtual_time=True,
)  # fmt: skip


@dataclass
class ScriptedDevice:
    """Latency follows the gpu_time law exactly, with D = 10 ms x batch x 100 / sm and H = 12 ms.

    Args:
        fails: how a step ends, by (stage, network, sm_pct, batch or None, quota_pct or None); None: well.
        factor: of all times in a session: number of the session and SM partition -> factor.
        shift: added to what the network answers, by SM partition.
        tells_device_time: whether blocks have device_ms.
    """

    info: DeviceInfo = INFO
    fails: Callable[[str, str, float, int | None, float | None], Failure | None] = lambda *_: None
    factor: Callable[[int, float], float] = lambda *_: 1.0
    shift: Callable[[float], float] = lambda _: 0.0
    absent: Mapping[float, str] = field(default_factory=dict)
    tells_device_time: bool = True
    opened: list[tuple[str, float]] = field(default_factory=list)
    prepared: list[tuple[str, float, int]] = field(default_factory=list)
    measured: Counter[tuple[str, float, int, float]] = field(default_factory=Counter)
    open_now: int = 0

    def why_not(self, sm_pct: float) -> str | None:
        return self.absent.get(sm_pct)

    @contextmanager
    def open(self, network: NetworkFile, sm_pct: float) -> Iterator[ScriptedSession]:
        self.opened.append((network.name, sm_pct))
        self.fail("open", network.name, sm_pct, None, None)
        assert self.open_now == 0, "two sessions at a time"
        self.open_now += 1
        try:
            yield ScriptedSession(self, network.name, sm_pct, self.factor(len(self.opened), sm_pct))
        finally:
            self.open_now -= 1

    def fail(
        self, stage: str, network: str, sm_pct: float, batch: int | None, quota_pct: float | None
    ) -> None:
        failure = self.fails(stage, network, sm_pct, batch, quota_pct)
        if failure is not None:
            raise MeasureError(failure, f"scripted {stage}")

    def close(self) -> None:
        assert self.open_now == 0


@dataclass
class ScriptedSession:
    device: ScriptedDevice
    network: str
    sm_pct: float
    factor: float
    batch: int = 0
    quota_pct: float = 100.0
    sm_count: int | None = 7
    peak_memory_mib: float | None = 123.0

    def prepare(self, batch: int) -> None:
        self.device.prepared.append((self.network, self.sm_pct, batch))
        self.device.fail("prepare", self.network, self.sm_pct, batch, None)
        self.batch, self.quota_pct = batch, 100.0

    def set_quota(self, quota_pct: float) -> None:
        self.quota_pct = quota_pct

    def run(self, count: int) -> Block:
        self.device.fail("run", self.network, self.sm_pct, self.batch, self.quota_pct)
        self.device.measured[self.network, self.sm_pct, self.batch, self.quota_pct] += 1
        device_ms, latency_ms = truth(ResourceConfig(self.sm_pct, self.quota_pct, self.batch))
        shape = np.full(count, self.factor)
        return Block(
            wall_ms=latency_ms * shape,
            device_ms=device_ms * shape if self.device.tells_device_time else None,
            launch_ms=12.0 * shape,
        )

    def outputs(self) -> list[NDArray[np.float32]]:
        values = np.linspace(-1, 1, 5 * self.batch, dtype=np.float32)
        return [values + np.float32(self.device.shift(self.sm_pct))]


def truth(config: ResourceConfig, info: DeviceInfo = INFO) -> tuple[float, float]:
    """Device time and latency of the scripted law, ms."""
    device_ms = 10.0 * config.batch * 100 / config.sm_pct
    full_ms = max(device_ms, 12.0)
    return device_ms, max(full_ms, device_ms / (config.quota_pct / 100) - info.idle_ms)


@pytest.fixture(scope="session")
def scripted() -> Callable[..., ScriptedDevice]:
    """`scripted(fails=..., info={"memory_mib": None})`: the device with changes."""

    def make(info: Mapping[str, object] | None = None, **changes: object) -> ScriptedDevice:
        return ScriptedDevice(info=replace(INFO, **(info or {})), **changes)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def latency_truth() -> Callable[[ResourceConfig], tuple[float, float]]:
    """Device time and latency, ms, that the scripted device follows."""
    return truth


@pytest.fixture(scope="session")
def quick() -> StopRule:
    """Few samples: the scripted device has no noise."""
    return QUICK
