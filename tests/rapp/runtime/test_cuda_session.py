"""CUDA sessions, against an ONNX Runtime that claims the provider: on the GPU wholly, or a typed error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from rapp.errors import DataError
from rapp.runtime.cuda_session import (
    BoundNetwork,
    CudaProviderError,
    CudaSessionError,
    OutOfDeviceMemoryError,
    UnsupportedOperatorError,
    cuda_session,
    provider_options,
)
from rapp.runtime.driver import Context, Driver, Stream
from rapp.runtime.inputs import seeded_inputs


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """y = relu(x W), x of shape (n, 3), with seeded W of shape (3, 2)."""
    weight = np.random.default_rng(7).standard_normal((3, 2)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Relu", ["z"], ["y"])],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.tobytes(), raw=True)],
    )
    path = tmp_path / "network.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture
def context(stub_driver: Path, fake_runtime: None) -> Iterator[Context]:
    with Driver(str(stub_driver)).context(0) as context:
        yield context


@pytest.fixture
def stream(context: Context) -> Iterator[Stream]:
    with context.stream() as stream:
        yield stream


def fake(monkeypatch: pytest.MonkeyPatch, **settings: object) -> None:
    monkeypatch.setenv("FAKE_ORT", json.dumps(settings))


@pytest.mark.usefixtures("fake_runtime")
class TestLoading:
    def test_the_options_are_explicit_and_texts(self) -> None:
        options = provider_options(stream=0x7F00, memory_limit_mib=1024.5)
        assert (options["user_compute_stream"], options["gpu_mem_limit"]) == (
            "32512",
            str(1024 * 2**20 + 2**19),
        )
        assert (options["cudnn_conv_algo_search"], options["device_id"]) == ("HEURISTIC", "0")
        assert {"user_compute_stream", "gpu_mem_limit"}.isdisjoint(provider_options())

    def test_file_and_content_load_on_the_gpu(self, network: Path, capfd: pytest.CaptureFixture[str]) -> None:
        for source in (network, str(network), network.read_bytes()):
            assert cuda_session(source).get_providers()[0] == "CUDAExecutionProvider"
        assert capfd.readouterr().out == ""

    def test_an_onnxruntime_without_cuda_is_named_with_the_repair(
        self, network: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake(monkeypatch, provider="absent")
        with pytest.raises(CudaProviderError, match=r"no CUDA provider, only CPU: .*rapp\[gpu\]"):
            cuda_session(network)

    def test_a_provider_that_does_not_load_is_no_silent_cpu(
        self, network: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake(monkeypatch, provider="broken")
        with pytest.raises(CudaProviderError, match=r"does not load.*onnxruntime-gpu\[cuda,cudnn\]"):
            cuda_session(network)

    def test_an_operator_left_to_the_cpu_is_named(
        self, network: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake(monkeypatch, cpu_operators=["NonZero", "MatMul"])
        with pytest.raises(UnsupportedOperatorError, match="leaves MatMul, NonZero to the CPU"):
            cuda_session(network)

    def test_files_that_are_none(self, network: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no such file"):
            cuda_session(tmp_path / "none.onnx")
        with pytest.raises(CudaSessionError, match=r"INVALID_(ARGUMENT|PROTOBUF)"):
            cuda_session(b"not a network")


def test_the_real_cpu_build_of_onnxruntime_is_refused(network: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(CudaProviderError, match="no CUDA provider"):
        cuda_session(network)


class TestRunning:
    def test_a_launch_returns_before_the_device_has_finished(
        self, network: Path, stream: Stream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake(monkeypatch, kernel_us=10_000)
        session = cuda_session(network, stream=stream.handle)
        bound = BoundNetwork(session, seeded_inputs(session, 1))
        bound.launch()
        stream.synchronize()
        timer = stream.timer()
        before_s = time.perf_counter()
        timer.start()
        bound.launch()
        timer.stop()
        launched_ms = (time.perf_counter() - before_s) * 1e3
        assert timer.elapsed_ms() == pytest.approx(40, rel=0.05)
        assert launched_ms < 30

    def test_outputs_are_the_networks(self, network: Path, stream: Stream) -> None:
        initial = onnx.load(network).graph.initializer[0]
        weight = np.frombuffer(initial.raw_data, np.float32).reshape(3, 2)
        session = cuda_session(network, stream=stream.handle)
        inputs = seeded_inputs(session, 5)
        bound = BoundNetwork(session, inputs)
        bound.launch()
        stream.synchronize()
        (y,) = bound.outputs()
        np.testing.assert_allclose(y, np.maximum(inputs["x"] @ weight, 0), rtol=1e-5)
        assert (y > 0).any() and (y == 0).any()

    def test_running_out_of_memory_is_recognised(
        self, network: Path, stream: Stream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake(monkeypatch, oom_batch=4)
        session = cuda_session(network, stream=stream.handle)
        BoundNetwork(session, seeded_inputs(session, 3)).launch()
        with pytest.raises(OutOfDeviceMemoryError, match="requested buffer of size 8388608000"):
            BoundNetwork(session, seeded_inputs(session, 4)).launch()


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (
            "CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc(&p, size);",
            OutOfDeviceMemoryError,
        ),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0", OutOfDeviceMemoryError),
        ("CUDNN failure 4001: CUDNN_STATUS_ALLOC_FAILED", OutOfDeviceMemoryError),
        ("Available memory of 1048576 is smaller than requested bytes of 2097152", OutOfDeviceMemoryError),
        ("9 : NOT_IMPLEMENTED : Could not find an implementation for Foo(1) node", UnsupportedOperatorError),
        ("CUDA failure 700: an illegal memory access was encountered", CudaSessionError),
    ],
)
def test_messages_of_onnxruntime_and_cuda_are_told_apart(
    message: str, kind: type[Exception], network: Path, fake_runtime: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing:
        def __init__(self, *_: object, **__: object) -> None:
            raise RuntimeError(message)

    monkeypatch.setattr(sys.modules["onnxruntime"], "InferenceSession", Refusing)
    with pytest.raises(CudaSessionError) as caught:
        cuda_session(network)
    assert type(caught.value) is kind
    assert message.split(";")[0].strip() in str(caught.value)


def test_a_bug_keeps_its_traceback(
    network: Path, fake_runtime: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise TypeError("wrong arguments")

    monkeypatch.setattr(sys.modules["onnxruntime"], "InferenceSession", fail)
    with pytest.raises(TypeError, match="wrong arguments"):
        cuda_session(network)
