"""Loading a network at a batch, in memory or in files, and what of its outputs is compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from profiler.device import Failure, MeasureError
from profiler.devices.network_io import (
    MOST_OUTPUT_ELEMENTS,
    compared_outputs,
    fp32_inputs,
    network_at_batch,
)
from rapp.runtime import cpu_session


def save(path: Path, dtype: int = TensorProto.FLOAT) -> np.ndarray:
    """y = x w with a random w, made for batch 2; answers w."""
    weight = np.random.default_rng(0).standard_normal((300, 5)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", dtype, [2, 300])],
        [helper.make_tensor_value_info("y", dtype, [2, 5])],
        [numpy_helper.from_array(weight.astype(helper.tensor_dtype_to_np_dtype(dtype)), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return weight


@pytest.mark.parametrize("largest_bytes", [2**31, 100])
@pytest.mark.parametrize("batch", [2, 7])
def test_large_networks_go_through_files_and_answer_alike(
    tmp_path: Path, largest_bytes: int, batch: int
) -> None:
    weight = save(tmp_path / "net.onnx")
    with network_at_batch(tmp_path / "net.onnx", batch, largest_bytes) as network:
        assert isinstance(network, bytes) == (largest_bytes > 100)
        session = cpu_session(network, threads=1)
        if isinstance(network, Path):
            folder = network.parent
            # The weights lie beside the structure, which alone must fit into a message.
            assert network.stat().st_size < weight.nbytes
    if largest_bytes == 100:
        assert not folder.exists()
    feeds = fp32_inputs(session, batch)
    (output,) = session.run(None, feeds)
    assert output.shape == (batch, 5)
    np.testing.assert_allclose(output, feeds["x"] @ weight, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_read_is_unsupported(tmp_path: Path) -> None:
    with (
        pytest.raises(MeasureError, match=r"absent\.onnx") as caught,
        network_at_batch(tmp_path / "absent.onnx", 1),
    ):
        pytest.fail("there is no such file")
    assert caught.value.failure == Failure.UNSUPPORTED


def test_another_precision_than_the_rows_say_is_unsupported(tmp_path: Path) -> None:
    save(tmp_path / "net.onnx", TensorProto.DOUBLE)
    session = cpu_session(tmp_path / "net.onnx")
    with pytest.raises(MeasureError, match="input x is float64: this device's rows say fp32") as caught:
        fp32_inputs(session, 2)
    assert caught.value.failure == Failure.UNSUPPORTED


def test_a_large_output_is_thinned_and_no_column_left_out() -> None:
    array = np.arange(4 * 1000 * 250, dtype=np.float32).reshape(4, 1000, 250)
    outputs = compared_outputs([array])
    assert outputs is not None
    (thin,) = outputs
    assert MOST_OUTPUT_ELEMENTS / 2 < thin.size <= MOST_OUTPUT_ELEMENTS
    assert len(np.unique(thin % 250)) == 250


def test_floats_alone_are_compared() -> None:
    small = np.zeros((3, 4), np.float16)
    outputs = compared_outputs([np.arange(3), small, ["a list"], np.array(["text"])])
    assert outputs is not None
    assert [array.shape for array in outputs] == [(3, 4)]
    assert compared_outputs([np.arange(3)]) is None
