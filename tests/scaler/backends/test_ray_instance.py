"""An instance of the Ray backend, and the network that it is given, without Ray."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rapp.errors import RappError
from scaler.backends.ray_instance import BatchOutcome, Instance
from scaler.backends.ray_network import RayNetwork

TABLE = np.random.default_rng(3).standard_normal((10, 4)).astype(np.float32)


@pytest.fixture
def rows(tmp_path: Path) -> RayNetwork:
    """Gives the rows of a table that it is asked for, and fails for one that is not there."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "place"], ["row"])],
        "rows",
        [helper.make_tensor_value_info("place", TensorProto.INT64, ["N", 1])],
        [helper.make_tensor_value_info("row", TensorProto.FLOAT, ["N", 1, 4])],
        [numpy_helper.from_array(TABLE, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "rows.onnx")
    return RayNetwork.read(tmp_path / "rows.onnx")


def test_one_request_that_fails_takes_no_other_of_its_batch_with_it(rows):
    def work() -> BatchOutcome:
        instance = Instance(100.0)
        instance.open(rows, {"cores": (0,)}, 4)
        return instance.run([{"place": np.array([[place]])} for place in (3, 99, 7)])

    # It pins its thread to a core, which is not to be the one of the tests.
    with ThreadPoolExecutor(1) as threads:
        outcome = threads.submit(work).result()
    first, failed, last = outcome.answers
    np.testing.assert_array_equal(first["row"], TABLE[3].reshape(1, 1, 4))
    np.testing.assert_array_equal(last["row"], TABLE[7].reshape(1, 1, 4))
    assert isinstance(failed, str)
    assert "99" in failed
    assert outcome.run_ms > 0
    assert outcome.device_ms > 0


def test_a_node_that_has_fewer_cores_than_ray_counts(rows):
    with pytest.raises(RappError, match="ray start --num-cpus"):
        Instance(100.0).open(rows, {"cores": (0, 100_000)}, 1)


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ({"place": np.zeros((1, 1), np.int64)}, None),
        ({"place": np.zeros((2, 1), np.int64)}, "int64 of 1x1, not int64 of 2x1"),
        ({"place": np.zeros((1, 1), np.int32)}, "not int32 of 1x1"),
        ({"place": np.zeros(1, np.int64)}, "not int64 of 1"),
        ({}, "its inputs are place"),
        ({"place": np.zeros((1, 1), np.int64), "more": np.zeros(1)}, "not place, more"),
    ],
)
def test_which_tensors_a_network_takes(rows, tensors, why):
    told = rows.why_not(tensors)
    assert told is None if why is None else why in told
