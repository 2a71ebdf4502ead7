"""The test that each device passes.

    from profiler.testing import DeviceContract

    class TestMine(DeviceContract):
        partitions = (50, 100)
        absent = (30,)

        @pytest.fixture
        def device(self):
            device = MyDevice(...)
            yield device
            device.close()

        @pytest.fixture
        def network(self):
            return NetworkFile("resnet18", Path("resnet18.onnx"))

pytest collects the subclass. Needs the extra `dev` (pytest).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from profiler.device import Device, Failure, MeasureError, NetworkFile, Session
from profiler.measure import StopRule, measure
from rapp.errors import MissingExtraError, RappError

try:
    import pytest
except ModuleNotFoundError as error:
    raise MissingExtraError(str(error.name), "dev") from error


class DeviceContract:
    """The contract of `profiler.device.Device`. A subclass overrides the fixtures `device` and `network`.

    partitions: SM partitions that the device has, %, ascending.
    absent: SM partitions that it does not have.
    batches: batches that the network can be run with, ascending.
    bad_batches: batches that it cannot be run with.
    quotas: a tight quota and one that does not hold back, %.
    slowdown: how much slower than at the wide quota a batch is at the tight one, at least. Quotas of a device
        that is busy all the time slow it down by their ratio; a shared machine hides a part of it.
    runs: batches that a comparison is made of.
    """

    partitions: Sequence[float] = (100.0,)
    absent: Sequence[float] = ()
    batches: Sequence[int] = (1, 2)
    bad_batches: Sequence[int] = (0, -1)
    quotas: tuple[float, float] = (20.0, 100.0)
    slowdown: float = 1.5
    runs: int = 12

    @pytest.fixture
    def device(self) -> Device:
        """The device under test; the fixture closes it."""
        raise NotImplementedError("a subclass of DeviceContract overrides the fixture `device`")

    @pytest.fixture
    def network(self) -> NetworkFile:
        """A network that it can run. Its batches should take a millisecond or more."""
        raise NotImplementedError("a subclass of DeviceContract overrides the fixture `network`")

    def test_a_measured_point_is_a_row_of_the_profile_table(
        self, device: Device, network: NetworkFile
    ) -> None:
        from rapp.profiles import ProfileTable
        from rapp.profiles.schema import BY_NAME

        with device.open(network, self.partitions[-1]) as session:
            session.prepare(self.batches[0])
            found = measure(session, StopRule(max_samples=20, max_seconds=5.0, warm_up_seconds=1.0))
            point: dict[str, object] = {
                "network": network.name,
                "graph_hash": network.graph_hash,
                "batch": self.batches[0],
                "sm_pct": self.partitions[-1],
                "sm_count": session.sm_count,
                "quota_pct": 100.0,
                "peak_memory_mib": session.peak_memory_mib,
                "started_at": datetime.now(UTC),
            }
        for known in (found, device.info):
            point |= {name: getattr(known, name) for name in BY_NAME if hasattr(known, name)}
        point |= {"software": None, "status": "ok", "campaign_id": "contract"}
        table = ProfileTable.from_rows([{**point, "derived": False, "anchor": False}])
        assert len(table) == 1
        assert all(isinstance(part, str) for item in device.info.software.items() for part in item)

    def test_blocks_hold_positive_times_of_each_batch(self, device: Device, network: NetworkFile) -> None:
        with device.open(network, self.partitions[0]) as session:
            for batch in self.batches:
                session.prepare(batch)
                for count in (1, self.runs):
                    block = session.run(count)
                    for name in ("wall_ms", "device_ms", "launch_ms"):
                        times = getattr(block, name)
                        if times is None and name != "wall_ms":
                            continue
                        assert times.shape == (count,), f"{name} has shape {times.shape} for {count} batches"
                        assert times.dtype == np.float64, f"{name} is {times.dtype}"
                        # A launch may be too quick for the clock.
                        assert np.isfinite(times).all(), name
                        assert (times >= 0).all() if name == "launch_ms" else (times > 0).all(), name
                    if block.device_ms is not None:
                        # The two clocks differ by their resolution.
                        slack_ms = 0.02 + 0.02 * block.wall_ms
                        assert (block.device_ms <= block.wall_ms + slack_ms).all()

    def test_a_partition_can_be_had_or_the_device_says_why_not(
        self, device: Device, network: NetworkFile
    ) -> None:
        counts = []
        for sm_pct in self.partitions:
            assert device.why_not(sm_pct) is None
            with device.open(network, sm_pct) as session:
                session.prepare(self.batches[0])
                counts.append(session.sm_count)
        known = [count for count in counts if count is not None]
        assert known == sorted(known), f"SM partitions {list(self.partitions)} got {counts}"
        assert all(count >= 1 for count in known)
        for sm_pct in self.absent:
            reason = device.why_not(sm_pct)
            assert reason, f"there should be no partition of {sm_pct:g} %"
            assert "\n" not in reason
            with pytest.raises(MeasureError) as caught, device.open(network, sm_pct):
                pytest.fail(f"a session with {sm_pct:g} %, although {reason}")
            assert caught.value.failure == Failure.PARTITION

    def test_a_quota_takes_effect_at_once_and_can_be_lifted(
        self, device: Device, network: NetworkFile
    ) -> None:
        tight, wide = self.quotas
        with device.open(network, self.partitions[0]) as session:
            session.prepare(self.batches[0])
            window_ms = device.info.window_ms or 0.0
            medians: dict[float, list[float]] = {tight: [], wide: []}
            for quota_pct in (wide, tight, wide, tight):
                session.set_quota(quota_pct)
                medians[quota_pct].append(self._median_ms(session, window_ms))
            slow_ms, fast_ms = min(medians[tight]), min(medians[wide])
            assert slow_ms >= self.slowdown * fast_ms, f"{slow_ms} ms at {tight} %, {fast_ms} ms at {wide} %"
            session.set_quota(tight)
            session.prepare(self.batches[0])
            assert self._median_ms(session, window_ms) < slow_ms, "prepare sets the quota back to 100 %"

    def test_sessions_follow_each_other_and_answer_alike(self, device: Device, network: NetworkFile) -> None:
        answers = []
        for _ in range(2):
            with device.open(network, self.partitions[-1]) as session:
                session.prepare(self.batches[-1])
                session.run(2)
                answers.append(session.outputs())
        first, second = answers
        if first is None or second is None:
            assert first is second
            return
        assert len(first) == len(second) > 0
        for one, other in zip(first, second, strict=True):
            np.testing.assert_allclose(
                np.asarray(one, np.float64), np.asarray(other, np.float64), rtol=1e-3, atol=1e-4
            )

    def test_peak_memory_never_falls(self, device: Device, network: NetworkFile) -> None:
        peaks = []
        with device.open(network, self.partitions[-1]) as session:
            for batch in (*self.batches, self.batches[0]):
                session.prepare(batch)
                session.run(1)
                peaks.append(session.peak_memory_mib)
        known = [peak for peak in peaks if peak is not None]
        assert len(known) in (0, len(peaks))
        assert known == sorted(known)
        assert all(peak > 0 for peak in known)

    def test_a_batch_or_quota_that_is_none_is_a_typed_error_and_the_session_goes_on(
        self, device: Device, network: NetworkFile
    ) -> None:
        with device.open(network, self.partitions[0]) as session:
            for batch in self.bad_batches:
                with pytest.raises(RappError):
                    session.prepare(batch)
            session.prepare(self.batches[0])
            for quota_pct in (0.0, -5.0, 100.5, math.nan):
                with pytest.raises(RappError):
                    session.set_quota(quota_pct)
            assert len(session.run(1).wall_ms) == 1

    def test_an_exception_leaves_no_process_behind(self, device: Device, network: NetworkFile) -> None:
        with device.open(network, self.partitions[0]) as session:
            session.prepare(self.batches[0])
        before = children()
        with pytest.raises(_LeftError), device.open(network, self.partitions[0]) as session:
            session.prepare(self.batches[0])
            raise _LeftError
        assert children() <= before
        with device.open(network, self.partitions[0]) as session:
            session.prepare(self.batches[0])
            assert len(session.run(1).wall_ms) == 1

    def test_virtual_time_does_not_pass(self, device: Device, network: NetworkFile) -> None:
        if not device.info.virtual_time:
            pytest.skip("it runs in real time")
        with device.open(network, self.partitions[0]) as session:
            session.prepare(self.batches[0])
            session.set_quota(self.quotas[0])
            count = math.ceil(2000 / float(session.run(1).wall_ms[0]))
            before_s = time.monotonic()
            assert np.sum(session.run(count).wall_ms) > 1000
            assert time.monotonic() - before_s < 1

    def test_it_can_be_closed_twice(self, device: Device) -> None:
        device.close()
        device.close()

    def _median_ms(self, session: Session, window_ms: float) -> float:
        """Median wall time once the credit of the quota's window is used up, ms."""
        run_ms = float(session.run(1).wall_ms[0])
        session.run(min(1 + math.ceil(window_ms / run_ms), 200))
        return float(np.median(session.run(self.runs).wall_ms))


class _LeftError(Exception):
    """What a test leaves a session with."""


def children() -> set[int]:
    """The living processes that this one has started; empty where there is no /proc."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                found.add(int(folder.name))
    return found
