"""Seeded inputs: the same everywhere, in range, and larger batches begin with smaller ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from rapp.errors import ConfigError, RappError
from rapp.runtime import cpu_session
from rapp.runtime.inputs import InputSpec, seeded_inputs, session_inputs

DTYPES = ("bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16")
IMAGES = InputSpec("x", "float32", ("batch", 3, 4))


def echo(inputs: dict[str, tuple[int, list[Any]]]) -> bytes:
    """A network that hands its inputs on."""
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in inputs]
    ins = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    outs = [helper.make_tensor_value_info(f"{name}_out", kind, None) for name, (kind, _) in inputs.items()]
    graph = helper.make_graph(nodes, "echo", ins, outs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@settings(deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    rest=st.lists(st.integers(1, 5), max_size=3),
    batches=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    seed=st.integers(0, 2**63),
    axis=st.integers(0, 3),
)
def test_a_larger_batch_begins_with_the_smaller(
    dtype: str, rest: list[int], batches: tuple[int, int], seed: int, axis: int
) -> None:
    axis = min(axis, len(rest))
    shape = (*rest[:axis], "batch", *rest[axis:])
    less, more = sorted(batches)
    small, large = (
        seeded_inputs([InputSpec("x", dtype, shape)], batch, seed=seed)["x"] for batch in (less, more)
    )
    assert large.shape == (*rest[:axis], more, *rest[axis:])
    assert large.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(np.take(large, range(less), axis), small)


@settings(deadline=None)
@given(dtype=st.sampled_from(DTYPES), less=st.integers(1, 5), more=st.integers(1, 5))
def test_numbers_instead_of_symbols_give_the_same_samples(dtype: str, less: int, more: int) -> None:
    fixed = seeded_inputs([InputSpec("x", dtype, (less, 3))], less)["x"]
    open_ = seeded_inputs([InputSpec("x", dtype, ("N", 3))], max(less, more))["x"]
    np.testing.assert_array_equal(open_[:less], fixed)


def test_values_hang_on_seed_and_name_and_not_on_the_order_of_inputs() -> None:
    two = [IMAGES, InputSpec("y", "float32", ("batch", 3, 4))]
    first, other = seeded_inputs(two, 2), seeded_inputs(two[::-1], 2)
    np.testing.assert_array_equal(first["x"], other["x"])
    assert not np.array_equal(first["x"], first["y"])
    assert not np.array_equal(first["x"], seeded_inputs(two, 2, seed=1)["x"])


def test_values_are_in_their_range() -> None:
    def values(dtype: str) -> Any:
        return seeded_inputs([InputSpec("x", dtype, (1, 20_000))], 1)["x"]

    assert abs(values("float32").mean()) < 0.03
    assert values("float32").std() == pytest.approx(1, abs=0.03)
    for dtype in ("int32", "int64", "uint32", "uint64", "bool"):
        assert set(np.unique(values(dtype)).tolist()) == {0, 1}
    for dtype in ("int8", "uint8"):
        assert len(np.unique(values(dtype))) == 256


def test_the_batch_of_a_sequence_first_network_is_its_symbol() -> None:
    specs = [
        InputSpec("x", "float32", ("seq", "batch_size", 2)),
        InputSpec("n", "int64", ("batch_size",)),
    ]
    made = seeded_inputs(specs, 5, dims={"seq": 7})
    assert made["x"].shape == (7, 5, 2)
    assert made["n"].shape == (5,)


def test_an_open_dimension_needs_a_number() -> None:
    specs = [InputSpec("ids", "int64", ("batch", "sequence"))]
    with pytest.raises(ConfigError, match="input ids: sequence is open and is not the batch"):
        seeded_inputs(specs, 2)
    assert seeded_inputs(specs, 2, dims={"sequence": 9})["ids"].shape == (2, 9)
    with pytest.raises(ConfigError, match="input x: dimension 1 is open"):
        seeded_inputs([InputSpec("x", "float32", (None, None))], 2)
    with pytest.raises(ConfigError, match="batch is 0"):
        seeded_inputs([IMAGES], 0)


def test_inputs_without_a_batch_stay_as_they_are() -> None:
    specs = [IMAGES, InputSpec("scale", "float32", ()), InputSpec("bias", "float32", (3,))]
    small, large = seeded_inputs(specs, 1), seeded_inputs(specs, 4)
    assert small["scale"].shape == ()
    assert small["scale"] == large["scale"]
    np.testing.assert_array_equal(small["bias"], large["bias"])


def test_a_session_runs_on_what_is_made_for_it() -> None:
    kinds = {
        "image": (TensorProto.FLOAT, ["N", 3, 2]),
        "ids": (TensorProto.INT64, ["N", 4]),
        "mask": (TensorProto.BOOL, ["N"]),
        "pixels": (TensorProto.UINT8, ["N", 2]),
        "half": (TensorProto.FLOAT16, ["N", 2]),
    }
    session = cpu_session(echo(kinds))
    made = seeded_inputs(session, 3)
    assert list(made) == list(kinds)
    for array, output in zip(made.values(), session.run(None, made), strict=True):
        np.testing.assert_array_equal(array, output)


def test_texts_and_sequences_are_refused() -> None:
    session = cpu_session(echo({"words": (TensorProto.STRING, ["N"])}))
    with pytest.raises(RappError, match=r"input words is tensor\(string\)"):
        session_inputs(session)


def test_a_light_network_runs_on_them() -> None:
    path = onnx.__path__[0] + "/backend/test/data/light/light_squeezenet.onnx"
    session = cpu_session(path)
    (spec,) = session_inputs(session)
    assert spec == InputSpec(spec.name, "float32", (1, 3, 224, 224))
    (output,) = session.run(None, seeded_inputs(session, 1))
    assert np.isfinite(output).all()
