from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiler.device import Failure, MeasureError, NetworkFile
from profiler.devices.replay import ReplayDevice, ReplayOptions
from profiler.testing import DeviceContract
from rapp.errors import ConfigError, ProfileError
from rapp.profiles import ProfileTable
from rapp.types import QuotaKind

NET = NetworkFile("net", None, "abc")
Row = dict[str, Any]


def row(**changes: object) -> Row:
    made: Row = {
        "network": "net", "graph_hash": "abc", "device": "NVIDIA V100-16GB", "runtime": "pytorch-eager",
        "precision": "fp32", "batch": 1, "sm_pct": 50.0, "quota_pct": 100.0, "quota_kind": "launch_gate",
        "idle_ms": 5.0, "latency_ms": 10.0, "derived": False, "status": "ok", "campaign_id": "c1",
        "anchor": False,
    }  # fmt: skip
    return made | changes


def grid() -> list[Row]:
    return [
        row(sm_pct=sm, quota_pct=quota, batch=batch, latency_ms=batch * 1e5 / (sm * quota))
        for sm in (50.0, 100.0)
        for quota in (20.0, 100.0)
        for batch in (1, 2)
    ]


def device(rows: list[Row] | None = None, **options: Any) -> ReplayDevice:
    return ReplayDevice(ProfileTable.from_rows(rows or grid(), "t.parquet"), ReplayOptions(**options))


def sampled(replay: ReplayDevice, count: int, **where: Any) -> np.ndarray:
    place = {"sm_pct": 50.0, "batch": 1, "quota_pct": 100.0} | where
    with replay.open(NET, place["sm_pct"]) as session:
        session.prepare(place["batch"])
        session.set_quota(place["quota_pct"])
        return session.run(count).wall_ms


class TestContract(DeviceContract):
    partitions = (50.0, 100.0)
    absent = (30.0,)
    bad_batches = (0, -1, 3)

    @pytest.fixture
    def device(self) -> ReplayDevice:
        return device()

    @pytest.fixture
    def network(self) -> NetworkFile:
        return NET


def test_without_noise_it_answers_the_table() -> None:
    replay = device(run=0.0, process=0.0)
    assert sampled(replay, 3).tolist() == [20.0] * 3
    assert sampled(replay, 2, sm_pct=100.0, batch=2, quota_pct=20.0).tolist() == [100.0] * 2


def test_the_noise_of_runs_is_log_normal_and_keeps_the_mean() -> None:
    times = sampled(device(run=0.1, process=0.0), 20_000) / 20.0
    assert np.mean(times) == pytest.approx(1, abs=0.003)
    assert np.std(np.log(times)) == pytest.approx(0.1, rel=0.03)
    centred = np.log(times) - np.log(times).mean()
    assert abs(np.mean(centred**3)) < 0.1 * 0.1**3, "the logarithm is symmetric"


def test_the_noise_of_processes_is_one_factor_a_session_and_keeps_the_mean() -> None:
    replay = device(run=0.0, process=0.1)
    factors = []
    for _ in range(3000):
        times = sampled(replay, 2)
        assert times[0] == times[1]
        factors.append(times[0] / 20.0)
    assert np.mean(factors) == pytest.approx(1, abs=0.01)
    assert np.std(np.log(factors)) == pytest.approx(0.1, rel=0.06)


def test_the_defaults_are_those_of_the_v100_data() -> None:
    assert (ReplayOptions().run, ReplayOptions().process) == (0.029, 0.058)


def test_noise_hangs_on_seed_network_partition_place_and_visit_alone() -> None:
    first = sampled(device(seed=1), 5)
    assert np.array_equal(sampled(device(seed=1), 5), first)
    assert not np.array_equal(sampled(device(seed=2), 5), first)
    other = device(seed=1)
    sampled(other, 7, sm_pct=100.0)
    with other.open(NET, 50.0) as session:
        session.prepare(2)
        session.run(4)
        session.prepare(1)
        assert np.array_equal(session.run(5).wall_ms, first), "what ran before does not matter"
    assert not np.array_equal(sampled(other, 5), first), "another visit is another process"


def test_its_rows_say_that_they_are_replayed() -> None:
    info = device(seed=4).info
    assert (info.device, info.runtime, info.quota_kind) == (
        "NVIDIA V100-16GB",
        "pytorch-eager",
        QuotaKind.LAUNCH_GATE,
    )
    assert (info.idle_ms, info.window_ms, info.virtual_time) == (5.0, None, True)
    assert info.software["replay_noise"] == "run 0.029, process 0.058, seed 4"
    assert len(info.software["replay_of_rows"]) == 64
    json.dumps(dict(info.software))


def test_device_time_memory_and_sm_count_are_the_tables() -> None:
    rows = [
        row(device_ms=8.0, launch_ms=1.0, sm_count=40, peak_memory_mib=300.0),
        row(batch=2, latency_ms=19.0, peak_memory_mib=200.0),
    ]
    with device(rows, run=0.05, process=0.0).open(NET, 50.0) as session:
        assert (session.sm_count, session.peak_memory_mib) == (None, None)
        session.prepare(1)
        block = session.run(4)
        assert np.allclose(block.device_ms / block.wall_ms, 0.8)
        assert (session.sm_count, session.peak_memory_mib) == (40, 300.0)
        session.prepare(2)
        block = session.run(1)
        assert block.device_ms is None
        assert session.peak_memory_mib == 300.0
        assert session.outputs() is None


def test_a_missing_point_is_a_typed_end() -> None:
    replay = device([row(), row(sm_pct=100.0, batch=4)])
    with pytest.raises(MeasureError) as unknown, replay.open(NetworkFile("other", None), 50.0):
        pass
    assert unknown.value.failure == Failure.UNSUPPORTED
    with replay.open(NET, 50.0) as session:
        with pytest.raises(MeasureError, match="no point at SM 50 %, batch 4") as batch:
            session.prepare(4)
        session.prepare(1)
        session.set_quota(30)
        with pytest.raises(MeasureError, match="no point at quota 30 %") as quota:
            session.run(1)
        assert {batch.value.failure, quota.value.failure} == {Failure.UNSUPPORTED}
    assert replay.why_not(75) == "the table has no point at SM 75 %"


def test_failed_rows_and_anchors_are_no_answers_and_a_measured_row_goes_before_a_derived_one() -> None:
    rows = [
        row(latency_ms=30.0, derived=True),
        row(latency_ms=10.0),
        row(quota_pct=40.0, latency_ms=25.0, derived=True),
        row(latency_ms=99.0, anchor=True),
        row(batch=2, latency_ms=None, status="failed", reason="time-out"),
    ]
    replay = device(rows, run=0.0, process=0.0)
    assert sampled(replay, 1).tolist() == [10.0]
    assert sampled(replay, 1, quota_pct=40.0).tolist() == [25.0]
    with pytest.raises(MeasureError):
        sampled(replay, 1, batch=2)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (row(quota_kind="gpu_time"), r"more than one quota_kind \(launch_gate, gpu_time\): .*\?quota_kind="),
        (row(device="A100"), r"more than one device .*\?device="),
        (row(idle_ms=0.0), r"more than one idle_ms"),
        (row(campaign_id="c2"), r"SM 50 %, batch 1, quota 100 % is there more than once: .*\?campaign_id="),
        (row(quota_pct=50.0, graph_hash="def"), "rows of net have different graph hashes"),
    ],
)
def test_a_table_of_several_settings_must_be_narrowed(more: Row, told: str) -> None:
    with pytest.raises(ProfileError, match=told):
        device([row(), more])


def test_rows_can_be_chosen() -> None:
    rows = [row(), row(campaign_id="c2", latency_ms=7.0), row(idle_ms=0.0, latency_ms=6.0)]
    for text, expected in (("campaign_id=c2", 7.0), ("idle_ms=0", 6.0)):
        options = ReplayOptions.parse(f"run=0&process=0&{text}")
        replay = ReplayDevice(ProfileTable.from_rows(rows), options)
        assert sampled(replay, 1).tolist() == [expected]
    with pytest.raises(ProfileError, match="no measured point with device A100 to replay"):
        device(where={"device": "A100"})
    with pytest.raises(ProfileError, match="does not tell idle_ms"):
        device([row(idle_ms=None)])


def test_options_are_read_from_text() -> None:
    parsed = ReplayOptions.parse("run=0.02&process=0.05&seed=1&sleep=0.5&quota_kind=gpu_time")
    assert parsed == ReplayOptions(0.02, 0.05, 1, 0.5, {"quota_kind": "gpu_time"})
    assert ReplayOptions.parse("") == ReplayOptions()
    for text, told in (
        ("speed=1", "no parameter 'speed'; there are run, process, seed, sleep, device"),
        ("run=fast", "run='fast' is no float"),
        ("run=-1", "run=-1 must be 0 or more"),
        ("seed=1.5", "seed='1.5' is no int"),
        ("process=nan", "process=nan must be"),
    ):
        with pytest.raises(ConfigError, match=told):
            ReplayOptions.parse(text)


def test_it_can_take_a_share_of_the_real_time() -> None:
    before = time.monotonic()
    sampled(device(run=0.0, process=0.0, sleep=0.5), 10)
    assert time.monotonic() - before >= 0.1, "half of ten times 20 ms"


def test_it_lists_its_networks_from_a_file(tmp_path: Path) -> None:
    rows = [row(network="b", graph_hash=None), row(network="a", graph_hash="h")]
    ProfileTable.from_rows(rows).write(tmp_path / "t.parquet")
    replay = ReplayDevice.read(tmp_path / "t.parquet")
    assert replay.networks == (NetworkFile("a", None, "h"), NetworkFile("b", None, None))
