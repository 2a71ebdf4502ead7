"""The device `cpu`, on real cores of the machine that runs the tests, however busy it is."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from profiler.device import Failure, MeasureError, NetworkFile
from profiler.devices.cpu import CpuDevice
from profiler.devices.cpu_load import OTHER_PROCESS
from profiler.testing import DeviceContract
from profiler.worker import WorkerSession
from rapp.errors import ConfigError
from rapp.runtime.cores import usable_cores

CORES = usable_cores()
ONE_PCT = 100 / len(CORES)

needs_two_cores = pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")


def save(
    folder: Path, nodes: Sequence[NodeProto], shape: Sequence[int | str] = ("N", 8, 40, 40), **options: object
) -> NetworkFile:
    """A network with the input `x`, the output `y`, and a seeded random weight `w` for convolutions."""
    dtype = options.get("dtype", TensorProto.FLOAT)
    weight = np.random.default_rng(0).standard_normal((8, 8, 3, 3)).astype(np.float32) / 8
    graph = helper.make_graph(
        list(nodes),
        "made",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", dtype, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("other.domain", 1)]
    path = folder / f"{options.get('name', 'net')}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=8), path)
    return NetworkFile(path.stem, path)


def convolutions(count: int) -> list[NodeProto]:
    names = ["x", *(f"h{i}" for i in range(1, count)), "y"]
    return [
        helper.make_node("Conv", [names[i], "w"], [names[i + 1]], pads=[1, 1, 1, 1]) for i in range(count)
    ]


@pytest.fixture
def device() -> Iterator[CpuDevice]:
    with CpuDevice() as made:
        yield made


@pytest.fixture
def network(tmp_path: Path) -> NetworkFile:
    """About 4 ms a sample on one core."""
    return save(tmp_path, convolutions(20), ("N", 8, 80, 80))


class TestContract(DeviceContract):
    partitions = tuple(dict.fromkeys((ONE_PCT, 100.0)))
    absent = (ONE_PCT / 2,)
    # On a machine shared by five others, a batch takes six times as long even at 100 %.
    quotas = (10.0, 100.0)

    @pytest.fixture
    def device(self, device: CpuDevice) -> CpuDevice:
        return device

    @pytest.fixture
    def network(self, network: NetworkFile) -> NetworkFile:
        return network


def cpu_s(pid: int) -> float:
    """CPU time of another process, s; Linux makes the id of its clock of its number (clock_getcpuclockid)."""
    return time.clock_gettime((~pid << 3) | 2)


def pid_of(session: object) -> int:
    assert isinstance(session, WorkerSession)
    return session.pid


def pinned_to(pid: int) -> set[int]:
    return os.sched_getaffinity(pid)


def test_a_worker_has_its_cores_and_no_others(device: CpuDevice, network: NetworkFile) -> None:
    with device.open(network, ONE_PCT) as session:
        session.prepare(1)
        assert pinned_to(pid_of(session)) == {CORES[0]}
        assert session.sm_count == 1
    with device.open(network, 100) as session:
        session.prepare(1)
        assert pinned_to(pid_of(session)) == set(CORES)
        assert session.sm_count == len(CORES)


@needs_two_cores
def test_sessions_side_by_side_have_different_cores(device: CpuDevice, network: NetworkFile) -> None:
    with device.open(network, ONE_PCT) as first:
        with device.open(network, ONE_PCT) as second:
            assert pinned_to(pid_of(first)).isdisjoint(pinned_to(pid_of(second)))
        with (
            pytest.raises(MeasureError, match=r"cores were asked for, but \d+ are free") as caught,
            device.open(network, 100),
        ):
            pytest.fail("the first session has one of the cores")
        assert caught.value.failure == Failure.PARTITION
    with device.open(network, 100) as session:
        assert pinned_to(pid_of(session)) == set(CORES)


@pytest.mark.parametrize("quota_pct", [10.0, 50.0])
def test_the_quota_is_a_share_of_the_processs_cpu_time(
    device: CpuDevice, network: NetworkFile, quota_pct: float
) -> None:
    shares = []
    with device.open(network, ONE_PCT) as session:
        session.prepare(1)
        session.set_quota(quota_pct)
        run_ms = float(np.median(session.run(5).wall_ms))
        # Others may keep the process from its share, and what it saved in a window it may use in the next.
        for _ in range(3):
            before_s, begun_s = cpu_s(pid_of(session)), time.monotonic()
            session.run(max(1, round(1000 / run_ms)))
            used_s, elapsed_s = cpu_s(pid_of(session)) - before_s, time.monotonic() - begun_s
            shares.append(100 * used_s / elapsed_s)
            if abs(shares[-1] - quota_pct) <= 3:
                break
    assert all(share <= quota_pct + 3 for share in shares), shares
    assert max(shares) >= quota_pct - (3 if quota_pct < 50 else 25), shares


def test_a_process_on_the_same_core_is_seen_unless_the_quota_holds_anyway(
    device: CpuDevice, network: NetworkFile
) -> None:
    code = f"import os\nos.sched_setaffinity(0, [{CORES[0]}])\nprint(flush=True)\nwhile True: pass"
    with device.open(network, ONE_PCT) as session:
        session.prepare(1)
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as burner:
            try:
                assert burner.stdout is not None
                burner.stdout.readline()
                session.run(10)
                assert session.run(20).disturbance == OTHER_PROCESS
                session.set_quota(5)
                session.run(5)
                assert session.run(5).disturbance is None
            finally:
                burner.kill()


def test_batches_pause_for_idle_ms_within_and_between_blocks(network: NetworkFile) -> None:
    with CpuDevice(idle_ms=60) as device, device.open(network, 100) as session:
        session.prepare(1)
        begun_s = time.monotonic()
        walls = np.concatenate([session.run(3).wall_ms, session.run(2).wall_ms])
        elapsed_ms = (time.monotonic() - begun_s) * 1e3
    assert elapsed_ms >= walls.sum() + 4 * 60
    assert np.median(walls) < 60
    assert device.info.idle_ms == 60


def test_outputs_hang_on_the_batch_and_not_on_the_partition(device: CpuDevice, tmp_path: Path) -> None:
    network = save(tmp_path, [*convolutions(2)[:1], helper.make_node("ReduceMean", ["h1"], ["y"], axes=[2])])
    answers = {}
    for sm_pct in {ONE_PCT, 100.0}:
        with device.open(network, sm_pct) as session:
            for batch in (1, 3):
                session.prepare(batch)
                answers[sm_pct, batch] = session.outputs()
    one, three = answers[100.0, 1], answers[100.0, 3]
    assert one is not None
    assert three is not None
    assert one[0].shape == (1, 8, 1, 40)
    np.testing.assert_allclose(three[0][:1], one[0], rtol=1e-4, atol=1e-5)
    assert not np.allclose(three[0][1], three[0][0])
    np.testing.assert_allclose(answers[ONE_PCT, 3][0], three[0], rtol=1e-4, atol=1e-5)  # type: ignore[index]


def test_a_network_made_for_one_batch_runs_with_another(device: CpuDevice, tmp_path: Path) -> None:
    network = save(tmp_path, convolutions(2), (1, 8, 10, 10))
    with device.open(network, 100) as session:
        session.prepare(5)
        outputs = session.outputs()
    assert outputs is not None
    assert outputs[0].shape == (5, 8, 10, 10)


def test_what_cannot_be_run_ends_in_words(device: CpuDevice, tmp_path: Path) -> None:
    reshape = [
        helper.make_node("Constant", [], ["shape"], value_ints=[1, -1]),
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("ReduceSum", ["flat"], ["y"], keepdims=0),
    ]
    blur = [helper.make_node("Blur", ["x"], ["y"], domain="other.domain")]
    cases = {
        "unknown": (save(tmp_path, blur, (2, 8, 40, 40)), "Blur"),
        "fixed": (save(tmp_path, reshape, (1, 8), name="fixed"), "fixed"),
        "half": (save(tmp_path, convolutions(1), dtype=TensorProto.FLOAT16, name="half"), ""),
        "absent": (NetworkFile("absent", tmp_path / "absent.onnx"), "absent.onnx"),
        "none": (NetworkFile("none", None), "no file"),
    }
    (tmp_path / "text.onnx").write_text("no network")
    cases["text"] = (NetworkFile("text", tmp_path / "text.onnx"), "text.onnx")
    for name, (network, word) in cases.items():
        with pytest.raises(MeasureError) as caught, device.open(network, 100) as session:
            session.prepare(2)
        assert caught.value.failure == Failure.UNSUPPORTED, (name, caught.value)
        assert word in caught.value.detail, (name, caught.value)
        assert "\n" not in str(caught.value)


def test_memory_that_is_not_there_is_a_typed_end_and_smaller_batches_go_on(tmp_path: Path) -> None:
    grow = [
        helper.make_node("Tile", ["x", "times"], ["big"]),
        helper.make_node("ReduceMean", ["big"], ["y"], axes=[1, 2, 3]),
    ]
    times = helper.make_node("Constant", [], ["times"], value_ints=[1, 1, 50, 50])
    network = save(tmp_path, [times, *grow])  # 128 MB a sample
    with CpuDevice(memory_mib=900) as device, device.open(network, 100) as session:
        session.prepare(1)
        with pytest.raises(MeasureError) as caught:
            session.prepare(16)
        assert caught.value.failure == Failure.OUT_OF_MEMORY, caught.value
        assert caught.value.hits_larger_batches
        session.prepare(1)
        peak_mib = session.peak_memory_mib
        assert peak_mib is not None
        assert 100 < peak_mib < 900
    assert device.info.memory_mib == 900


def test_a_session_can_be_run_from_another_thread(device: CpuDevice, network: NetworkFile) -> None:
    with device.open(network, ONE_PCT) as session:
        session.prepare(1)
        found = []
        thread = threading.Thread(target=lambda: found.append(session.run(2)))
        thread.start()
        thread.join()
        assert len(found[0].wall_ms) == 2


def test_what_its_rows_say() -> None:
    info = CpuDevice(window_ms=20, idle_ms=5).info
    assert info.device.endswith(f", {len(CORES)} core{'s' * (len(CORES) > 1)}")
    assert (info.runtime, info.precision, info.quota_kind) == ("ort-cpu", "fp32", "gpu_time")
    assert (info.window_ms, info.idle_ms, info.granularity_ms, info.virtual_time) == (20, 5, None, False)
    assert info.software["onnxruntime"]
    assert info.memory_mib is not None
    assert info.memory_mib > 100
    assert info == CpuDevice(window_ms=20, idle_ms=5, memory_mib=info.memory_mib).info


@pytest.mark.parametrize(
    "wrong", [{"window_ms": 0.0}, {"idle_ms": -1.0}, {"cores": []}, {"cores": [99999]}, {"cores": [0, 0]}]
)
def test_options_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        CpuDevice(**wrong)  # type: ignore[arg-type]


def test_some_of_the_cores() -> None:
    with CpuDevice(cores=CORES[-1:]) as device:
        assert device.why_not(100) is None
        assert device.info.device.endswith(", 1 core")
        assert device.why_not(50) is not None
