"""The device `cuda` without a GPU: the stub driver, imitations of NVML, MPS and ONNX Runtime's CUDA provider.

Processes, files, environment, quota, timing and failures are real; kernels only take time.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).parents[2] / "fakes"))

from gpu_fixtures import UUID, Machine, machine, small_network, stub_driver

from profiler.device import Failure, MeasureError, NetworkFile
from profiler.devices.cuda import CudaDevice
from profiler.testing import DeviceContract
from rapp.runtime.inputs import InputSpec, seeded_inputs
from rapp.runtime.processes import processes_with

__all__ = ["machine", "small_network", "stub_driver"]

KERNEL_US = 1000
"""Device time of a batch of 1 on all 80 multiprocessors: 4 kernels of this."""


@pytest.fixture(autouse=True)
def settings(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_ORT", json.dumps({"kernel_us": KERNEL_US}))
    machine.gpus.reset()


@pytest.fixture
def network(small_network: Path) -> NetworkFile:
    return NetworkFile("network", small_network)


@pytest.fixture(scope="module")
def device(machine: Machine) -> Iterator[CudaDevice]:
    """One for all tests that need none of their own: a campaign has one too."""
    with CudaDevice() as device:
        yield device


def setting(monkeypatch: pytest.MonkeyPatch, **settings: object) -> None:
    monkeypatch.setenv("FAKE_ORT", json.dumps({"kernel_us": KERNEL_US, **settings}))


def daemons(root: Path) -> set[int]:
    pipes = str(root / UUID[-12:] / "p")
    return processes_with("nvidia-cuda-mps-", "CUDA_MPS_PIPE_DIRECTORY", pipes)


class TestContract(DeviceContract):
    partitions = (25.0, 50.0, 100.0)
    absent = (1.0,)
    slowdown = 2.0

    @pytest.fixture
    def device(self, device: CudaDevice) -> CudaDevice:
        return device

    @pytest.fixture
    def network(self, network: NetworkFile) -> NetworkFile:
        return network

    def test_it_can_be_closed_twice(self, device: CudaDevice) -> None:
        """In test_cuda_starting.py, with a device of its own."""


def test_device_time_is_that_of_the_partition_and_launching_is_apart(
    device: CudaDevice, network: NetworkFile
) -> None:
    for sm_pct, sm_count in ((100, 80), (25, 20)):
        with device.open(network, sm_pct) as session:
            session.prepare(2)
            assert session.sm_count == sm_count
            block = session.run(5)
            assert block.device_ms is not None and block.launch_ms is not None
            expected_ms = 4 * KERNEL_US / 1000 * 2 * 80 / sm_count
            # The host's first launch comes a moment after the first event.
            assert np.median(block.device_ms) == pytest.approx(expected_ms, rel=0.2)
            assert np.median(block.launch_ms) < expected_ms / 2
            assert (block.wall_ms >= block.device_ms - 0.01).all()
            assert block.disturbance is None


def test_the_quota_holds_device_time_back(device: CudaDevice, network: NetworkFile) -> None:
    with device.open(network, 50) as session:
        session.prepare(1)
        for quota_pct in (25.0, 50.0):
            session.set_quota(quota_pct)
            session.run(8)  # the credit of a full bucket
            block = session.run(12)
            assert block.device_ms is not None
            share = block.device_ms.sum() / block.wall_ms.sum()
            assert share == pytest.approx(quota_pct / 100, abs=0.03)


def test_outputs_hang_on_network_and_batch_and_not_on_the_partition(
    device: CudaDevice, network: NetworkFile
) -> None:
    assert network.path is not None
    weight = onnx.load(network.path).graph.initializer[0].raw_data
    answers = []
    for sm_pct in (100, 25):
        with device.open(network, sm_pct) as session:
            session.prepare(3)
            (y,) = session.outputs() or ()
            answers.append(y)
    x = seeded_inputs([InputSpec("x", "float32", (3, 6))], 3)["x"]
    np.testing.assert_allclose(
        answers[0], np.maximum(x @ np.frombuffer(weight, np.float32).reshape(6, 4), 0), rtol=1e-5
    )
    np.testing.assert_array_equal(answers[0], answers[1])


def test_two_sessions_side_by_side_are_no_strangers_to_each_other(
    device: CudaDevice, network: NetworkFile
) -> None:
    with ExitStack() as stack:
        one, other = (stack.enter_context(device.open(network, 50)) for _ in range(2))
        one.prepare(1)
        other.prepare(1)
        assert (one.sm_count, other.sm_count) == (40, 40)
        assert one.run(2).disturbance is other.run(2).disturbance is None


def test_disturbances_are_recorded_with_their_cause(
    device: CudaDevice, network: NetworkFile, machine: Machine
) -> None:
    with device.open(network, 100) as session:
        session.prepare(1)
        assert session.run(2).disturbance is None
        machine.gpus.set(throttle=0x04)
        assert session.run(2).disturbance == "throttled: power cap"
        machine.gpus.set(throttle=0, processes={"999999": 500})
        assert session.run(2).disturbance == "other process: pid 999999"
        machine.gpus.set(processes={})
        assert session.run(2).disturbance is None


def test_info_says_what_its_rows_share(device: CudaDevice) -> None:
    info = device.info
    assert (info.device, info.device_uuid, info.runtime) == ("Tesla V100-SXM2-16GB", UUID, "ort-cuda")
    assert (info.window_ms, info.idle_ms, info.memory_mib) == (40, 0, 16384)
    assert (info.software["driver"], info.software["mps"]) == ("550.54.15", "on")
    assert info == device.info, "a campaign goes on only where it is the same"


class TestFailures:
    def test_out_of_memory_ends_the_point_and_a_new_session_goes_on(
        self, device: CudaDevice, network: NetworkFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        setting(monkeypatch, oom_batch=8)
        with device.open(network, 100) as session:
            session.prepare(4)
            with pytest.raises(MeasureError, match="requested buffer") as caught:
                session.prepare(8)
            assert caught.value.failure is Failure.OUT_OF_MEMORY
            assert caught.value.hits_larger_batches
        with device.open(network, 100) as session:
            session.prepare(4)

    def test_an_operator_without_a_kernel_is_unsupported(
        self, device: CudaDevice, network: NetworkFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with device.open(network, 100):  # the device itself works
            pass
        setting(monkeypatch, cpu_operators=["Relu"])
        with device.open(network, 100) as session, pytest.raises(MeasureError, match="leaves Relu") as caught:
            session.prepare(1)
        assert caught.value.failure is Failure.UNSUPPORTED

    def test_a_network_of_another_precision_or_without_a_file_is_unsupported(
        self, device: CudaDevice, tmp_path: Path
    ) -> None:
        graph = helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"])],
            "half",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["N", 2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["N", 2])],
        )
        path = tmp_path / "half.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        with device.open(NetworkFile("half", path), 100) as session, pytest.raises(MeasureError) as caught:
            session.prepare(1)
        assert caught.value.failure is Failure.UNSUPPORTED
        with pytest.raises(MeasureError, match="no file"), device.open(NetworkFile("none", None), 100):
            pass

    def test_a_percentage_that_is_ignored_is_no_partition(
        self, device: CudaDevice, network: NetworkFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAPP_STUB_MPS", "0")
        message = r"80 of 80 SMs .* 50 %: it runs without MPS"
        with pytest.raises(MeasureError, match=message) as caught, device.open(network, 50):
            pass
        assert caught.value.failure is Failure.PARTITION

    def test_a_device_error_is_one_line_of_the_point(
        self, device: CudaDevice, network: NetworkFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with device.open(network, 100):
            pass
        monkeypatch.setenv("RAPP_STUB_FAIL", "cuEventElapsedTime=719")
        with device.open(network, 100) as session:
            session.prepare(1)
            with pytest.raises(MeasureError, match=r"CUDA_ERROR_LAUNCH_FAILED \(719\)") as caught:
                session.run(1)
        assert caught.value.failure is Failure.DEVICE


class TestBetweenSessions:
    def test_a_daemon_that_has_gone_is_started_again(
        self, machine: Machine, device: CudaDevice, network: NetworkFile, caplog: pytest.LogCaptureFixture
    ) -> None:
        with device.open(network, 100):
            pass
        for pid in daemons(machine.claims):
            os.kill(pid, 9)
        with caplog.at_level(logging.WARNING), device.open(network, 50) as session:
            session.prepare(1)
            assert session.sm_count == 40
        assert "the MPS daemon is started again" in caplog.text

    def test_it_waits_until_the_gpu_is_cool(
        self, device: CudaDevice, network: NetworkFile, machine: Machine
    ) -> None:
        machine.gpus.set(temperature_c=30)
        with device.open(network, 100):
            machine.gpus.set(temperature_c=80)
        cooling = threading.Timer(1.0, lambda: machine.gpus.set(temperature_c=35))
        cooling.start()
        before_s = time.monotonic()
        with device.open(network, 100):
            assert time.monotonic() - before_s >= 1.0
        cooling.join()
