"""What the model sees of an operator graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from rapp.graph import OperatorGraph, features
from rapp.graph.features import COSTS, NUMBERS, OP_TYPES, WIDTH, GraphFeatures, schema_hash, unknown_types

ZOO = Path(__file__).resolve().parents[3] / "datasets" / "graphs"
FLOPS, MOVED, WEIGHTS, ELEMENTS = range(len(COSTS))


def column(found: GraphFeatures, name: str) -> np.ndarray:
    return found.operators[:, len(OP_TYPES) + 1 + NUMBERS.index(name)]


def network(*, batch: int | str = "N", mixes: bool = False) -> OperatorGraph:
    """A convolution, ReLU, reshape, matrix product; `mixes`: with a softmax over the batch."""
    from onnx import TensorProto

    weights = [
        helper.make_tensor("w", TensorProto.FLOAT, [8, 4, 3, 3], np.zeros(288, np.float32)),
        helper.make_tensor("m", TensorProto.FLOAT, [128, 10], np.zeros(1280, np.float32)),
        helper.make_tensor("s", TensorProto.INT64, [2], [-1, 128]),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=1),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Reshape", ["r", "s"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["y" if not mixes else "z"]),
    ]
    if mixes:
        nodes.append(helper.make_node("Softmax", ["z"], ["y"], axis=0))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "made",
        [value("x", TensorProto.FLOAT, [batch, 4, 4, 4])],
        [value("y", TensorProto.FLOAT, None)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return OperatorGraph.from_onnx(model)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "maxvit_t", "alexnet"])
def test_every_operator_has_a_row_of_finite_numbers(name: str) -> None:
    graph = OperatorGraph.from_onnx(ZOO / f"{name}.onnx")
    found = GraphFeatures.of(graph)
    assert found.operators.shape == (len(graph), WIDTH)
    assert found.costs.shape == (len(graph), len(COSTS))
    assert found.operators.dtype == found.costs.dtype == np.float32
    assert found.edges.dtype == np.int64
    np.testing.assert_array_equal(found.edges, graph.edges)
    assert np.isfinite(found.operators).all()
    assert np.isfinite(found.costs).all()
    assert (found.costs >= 0).all()
    # Inputs of a network far larger than any here must not blow up its first layer.
    assert np.abs(found.operators).max() < 5
    np.testing.assert_array_equal(found.operators[:, : len(OP_TYPES) + 1].sum(axis=1), 1)


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_costs_of_one_sample_add_up_to_those_of_the_graph(name: str) -> None:
    graph = OperatorGraph.from_onnx(ZOO / f"{name}.onnx")
    costs = GraphFeatures.of(graph).costs.astype(np.float64).sum(axis=0)
    views = [op for op in graph.operators if op.is_view]
    flops = graph.flops(3) - graph.flops(2) - sum(op.flops(3) - op.flops(2) for op in views)
    assert costs[FLOPS] == pytest.approx(flops, rel=1e-6)
    weights = graph.total("weight_bytes") - sum(op.weight_bytes(1) for op in views)
    assert costs[WEIGHTS] == pytest.approx(weights, rel=1e-6)


def test_numbers_of_a_convolution_are_what_it_is() -> None:
    found = GraphFeatures.of(network())
    conv = 0
    assert found.operators[conv, OP_TYPES.index("Conv")] == 1
    macs = 4 * 4 * 8 * 4 * 9
    assert column(found, "log_macs")[conv] == pytest.approx(np.log1p(macs) / 10, rel=1e-6)
    assert column(found, "log_kernel_area")[conv] == pytest.approx(np.log(9) / 4, rel=1e-6)
    assert column(found, "log_channels_in")[conv] == pytest.approx(np.log1p(4) / 10, rel=1e-6)
    assert column(found, "log_channels_out")[conv] == pytest.approx(np.log1p(8) / 10, rel=1e-6)
    assert column(found, "depthwise")[conv] == 0
    assert found.costs[conv, FLOPS] >= 2 * macs
    assert found.costs[conv, WEIGHTS] == 8 * 4 * 9 * 4
    assert found.costs[conv, MOVED] == 4 * (4 * 4 * 4 + 8 * 4 * 4)
    assert found.costs[conv, ELEMENTS] == 8 * 4 * 4


def test_a_view_costs_the_device_nothing_and_keeps_its_row() -> None:
    graph = network()
    found = GraphFeatures.of(graph)
    (reshape,) = (i for i, op in enumerate(graph.operators) if op.op_type == "Reshape")
    assert column(found, "is_view").tolist() == [float(i == reshape) for i in range(len(graph))]
    np.testing.assert_array_equal(found.costs[reshape, :ELEMENTS], 0)


def test_the_batch_of_the_file_does_not_matter() -> None:
    fixed, open_ = GraphFeatures.of(network(batch=8)), GraphFeatures.of(network())
    np.testing.assert_array_equal(fixed.costs, open_.costs)
    np.testing.assert_array_equal(fixed.operators, open_.operators)


def test_a_network_that_serves_one_batch_keeps_its_costs_a_sample() -> None:
    tied = network(batch=8, mixes=True)
    assert tied.only_batch is not None
    found, free = GraphFeatures.of(tied), GraphFeatures.of(network())
    np.testing.assert_allclose(found.costs[:4], free.costs, rtol=1e-6)
    assert column(found, "log_macs")[0] == pytest.approx(column(free, "log_macs")[0])


@pytest.fixture
def strange() -> OperatorGraph:
    """An operator of a custom domain between two that are known."""
    from onnx import TensorProto

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("Celu", ["a"], ["b"]),
            helper.make_node("Fancy", ["b"], ["y"], domain="my.own"),
        ],
        "strange",
        [value("x", TensorProto.FLOAT, ["N", 4])],
        [value("y", TensorProto.FLOAT, ["N", 4])],
        value_info=[value("b", TensorProto.FLOAT, ["N", 4])],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("my.own", 1)]
    return OperatorGraph.from_onnx(helper.make_model(graph, opset_imports=imports, ir_version=8))


def test_types_without_a_column_share_the_last(strange: OperatorGraph) -> None:
    found = GraphFeatures.of(strange)
    assert unknown_types(strange) == {"Celu", "my.own.Fancy"}
    other = found.operators[:, len(OP_TYPES)]
    assert other.tolist() == [0.0, 1.0, 1.0]
    # They are told apart by their quantities alone; both move the same.
    assert found.costs[1, MOVED] == found.costs[2, MOVED] > 0


def test_a_network_without_operators_has_no_rows() -> None:
    from onnx import TensorProto

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "empty",
        [value("x", TensorProto.FLOAT, ["N", 4])],
        [value("y", TensorProto.FLOAT, ["N", 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    found = GraphFeatures.of(OperatorGraph.from_onnx(model))
    assert found.operators.shape == (0, WIDTH)
    assert found.costs.shape == (0, len(COSTS))
    assert found.edges.shape == (2, 0)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("OP_TYPES", lambda columns: columns[::-1]),
        ("NUMBERS", lambda columns: columns[1:]),
        ("COSTS", lambda columns: (*columns, "more")),
        ("FEATURE_VERSION", lambda version: version + 1),
    ],
)
def test_the_hash_is_that_of_all_columns_and_their_order(
    monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[Any], Any]
) -> None:
    before = schema_hash()
    assert before == schema_hash()
    monkeypatch.setattr(features, name, change(getattr(features, name)))
    assert schema_hash() != before


def test_each_type_has_one_column() -> None:
    assert len(set(OP_TYPES)) == len(OP_TYPES)
    assert len(set(NUMBERS)) == len(NUMBERS)
