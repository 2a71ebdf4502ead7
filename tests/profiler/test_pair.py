"""Two networks side by side: on a device whose interference is known, and on the cores of this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from profiler.device import Block, DeviceInfo, Failure, MeasureError, NetworkFile
from profiler.devices.cpu import CpuDevice
from profiler.measure import Measurement, StopRule
from profiler.pair import BATCHES_OF_THE_OTHER, STAGES, run_pair, slowdown_interval
from rapp.errors import ConfigError
from rapp.profiles.pairs import PairTable
from rapp.runtime.cores import usable_cores
from rapp.types import QuotaKind

INFO = DeviceInfo("shared", "S-1", "none", "fp32", QuotaKind.GPU_TIME, 40.0, None, 0.0)
FIRST, SECOND = NetworkFile("first", None), NetworkFile("second", None)
QUICK = StopRule(max_samples=40, warm_up_seconds=0.5)


@dataclass
class SharedDevice:
    """Batches of `alone_ms`, x `slowdown` while the other session is running; they sleep a tenth of it.

    Args:
        alone_ms, slowdown: by network.
        fails: whether run i (from 0) of a network fails.
        drift: factor on the time of run i of a network.
    """

    alone_ms: dict[str, float] = field(default_factory=lambda: {"first": 10.0, "second": 20.0})
    slowdown: dict[str, float] = field(default_factory=lambda: {"first": 1.5, "second": 1.1})
    fails: Callable[[str, int], bool] = lambda *_: False
    drift: Callable[[str, int], float] = lambda *_: 1.0
    info: DeviceInfo = INFO
    running: set[str] = field(default_factory=set)
    opened: list[tuple[str, float]] = field(default_factory=list)
    prepared: list[tuple[str, int]] = field(default_factory=list)
    runs: dict[str, int] = field(default_factory=dict)
    disturbed_alone: bool = False

    def why_not(self, sm_pct: float) -> str | None:
        return None

    @contextmanager
    def open(self, network: NetworkFile, sm_pct: float) -> Iterator[SharedSession]:
        self.opened.append((network.name, sm_pct))
        yield SharedSession(self, network.name)

    def close(self) -> None:
        pass


@dataclass
class SharedSession:
    device: SharedDevice
    name: str
    batch: int = 0
    sm_count: int | None = None
    peak_memory_mib: float | None = None

    def prepare(self, batch: int) -> None:
        self.device.prepared.append((self.name, batch))
        self.batch = batch

    def set_quota(self, quota_pct: float) -> None:
        pass

    def outputs(self) -> None:
        return None

    def run(self, count: int) -> Block:
        device, walls = self.device, []
        device.running.add(self.name)
        beside = set()
        for _ in range(count):
            number = device.runs.get(self.name, 0)
            device.runs[self.name] = number + 1
            if device.fails(self.name, number):
                raise MeasureError(Failure.CRASHED, f"{self.name} run {number}")
            wall_ms = device.alone_ms[self.name] * self.batch * device.drift(self.name, number)
            time.sleep(wall_ms / 1e4)
            beside |= device.running - {self.name}
            walls.append(wall_ms)
        device.running.discard(self.name)
        return Block(np.array(walls) * (device.slowdown[self.name] if beside else 1.0))


def test_each_row_says_what_one_suffered_from_the_other() -> None:
    device, told = SharedDevice(), []
    table = run_pair(
        device, FIRST, SECOND, (30, 70), [(1, 2), (4, 1)], QUICK, lambda *args: told.append(args)
    )
    assert device.opened == [("first", 30), ("second", 70)]
    assert device.prepared == [("first", 1), ("second", 2), ("first", 4), ("second", 1)]
    assert told == [(STAGES[n % 5], n, 10) for n in range(10)]
    found = [
        (r.network, r.other, r.sm_pct, r.other_sm_pct, r.batch, r.other_batch, r.alone_ms) for r in table.rows
    ]
    assert found == [
        ("first", "second", 30, 70, 1, 2, 10),
        ("second", "first", 70, 30, 2, 1, 40),
        ("first", "second", 30, 70, 4, 1, 40),
        ("second", "first", 70, 30, 1, 4, 20),
    ]
    for row in table.rows:
        assert row.slowdown == pytest.approx(device.slowdown[row.network])
        assert row.slowdown_low == row.slowdown_high == pytest.approx(row.slowdown)
        assert row.converged
        assert (row.device, row.device_uuid, row.runtime) == ("shared", "S-1", "none")
    assert table.lookup("first", "second") == pytest.approx(1.5)


def test_the_quick_one_meets_the_slow_one_in_all_its_phases() -> None:
    device = SharedDevice({"first": 2.0, "second": 20.0})
    first, second = run_pair(device, FIRST, SECOND, (50, 50), [(1, 1)], StopRule(max_samples=300)).rows
    assert first.n_samples == BATCHES_OF_THE_OTHER * 10
    assert second.n_samples == 20
    # Either has run for the whole of the other's measurement: no sample of it is as quick as alone.
    assert first.slowdown_low == pytest.approx(1.5)
    assert second.slowdown_low == pytest.approx(1.1)


def test_a_network_beside_itself() -> None:
    device = SharedDevice({"first": 5.0}, {"first": 1.2})
    # The two sessions share a name here, so that neither sees the other: both rows are there all the same.
    rows = run_pair(device, FIRST, FIRST, (50, 50), [(1, 1)], QUICK).rows
    assert [(row.network, row.other) for row in rows] == [("first", "first")] * 2


def test_drift_between_the_two_alone_widens_the_interval() -> None:
    device = SharedDevice(drift=lambda name, run: 1.0 if run < 60 else 1.2)
    row = run_pair(device, FIRST, SECOND, (50, 50), [(1, 1)], QUICK).rows[1]
    assert row.slowdown_low is not None
    assert row.slowdown_high is not None
    assert row.slowdown_high / row.slowdown_low >= 1.19


@pytest.mark.parametrize("failing", ["first", "second"])
def test_a_failure_of_one_ends_both_at_once(failing: str) -> None:
    device = SharedDevice(fails=lambda name, run: name == failing and run >= 55)
    rule = StopRule(1e-9, max_samples=100_000, max_seconds=600, warm_up_seconds=0.01)
    device.drift = lambda name, run: 1 + run % 7 / 10
    begun_s = time.monotonic()
    with pytest.raises(MeasureError, match=f"worker crashed: {failing} run 55"):
        run_pair(device, FIRST, SECOND, (50, 50), [(1, 1)], replace(rule, max_samples=40))
    assert time.monotonic() - begun_s < 10


def test_what_cannot_be_a_pair_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one pair of batches"):
        run_pair(SharedDevice(), FIRST, SECOND, (50, 50), [])
    virtual = SharedDevice(info=replace(INFO, virtual_time=True))
    with pytest.raises(ConfigError, match="nothing runs side by side"):
        run_pair(virtual, FIRST, SECOND, (50, 50), [(1, 1)])


def measurement(low: float | None, median: float, high: float | None) -> Measurement:
    return Measurement(median, median, low, high, None, None, 0.0, None, None, 20, True)


def test_the_interval_holds_all_ratios_that_the_medians_allow() -> None:
    before, after = measurement(9, 10, 11), measurement(10, 12, 13)
    together = measurement(18, 20, 22)
    assert slowdown_interval(before, together, after) == (18 / 13, 22 / 9)
    assert slowdown_interval(before, measurement(None, 20, None), after) == (None, None)


@pytest.mark.skipif(len(usable_cores()) < 2, reason="needs two cores")
def test_two_networks_on_a_core_each(tmp_path: Path) -> None:
    light = Path(onnx.__file__).parent / "backend/test/data/light"
    networks = [NetworkFile(name, light / f"light_{name}.onnx") for name in ("shufflenet", "squeezenet")]
    cores = usable_cores()[:2]
    rule = StopRule(max_samples=20, max_seconds=2.0, warm_up_seconds=0.2)
    with CpuDevice(cores=cores) as device:
        table = run_pair(device, networks[0], networks[1], (50, 50), [(1, 1)], rule)
    assert [(row.network, row.runtime) for row in table.rows] == [
        ("shufflenet", "ort-cpu"),
        ("squeezenet", "ort-cpu"),
    ]
    for row in table.rows:
        # The machine of the tests is shared; a network beside another is not ten times as fast or slow.
        assert 0.1 < row.slowdown < 10
    table.write(tmp_path / "pairs.csv")
    assert PairTable.read(tmp_path / "pairs.csv") == table
