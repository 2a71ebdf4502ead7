"""Multiply-adds against figures worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper

from rapp.graph import BatchPolynomial, OperatorGraph

node = helper.make_node
Make = Callable[..., ModelProto]


def _only(model: ModelProto) -> Any:
    (operator,) = OperatorGraph.from_onnx(model).operators
    return operator


CASES = [
    # 3x3 convolution with stride 2, padding 1: 16 outputs of 4x4, each 3 channels x 9.
    (
        node("Conv", ["x", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1]),
        (3, 8, 8),
        (16, 3, 3, 3),
        16 * 16 * 27,
    ),
    # Two groups: each output sees half of the channels.
    (node("Conv", ["x", "w"], ["y"], group=2), (4, 5, 5), (6, 2, 3, 3), 6 * 9 * 18),
    # Depthwise.
    (node("Conv", ["x", "w"], ["y"], group=8), (8, 6, 6), (8, 1, 3, 3), 8 * 16 * 9),
    # Dilation changes the output, not the work for each of its elements.
    (node("Conv", ["x", "w"], ["y"], dilations=[2, 2]), (2, 9, 9), (3, 2, 3, 3), 3 * 25 * 18),
    # One dimension.
    (node("Conv", ["x", "w"], ["y"]), (5, 10), (7, 5, 4), 7 * 7 * 20),
    # Transposed: each input element goes through kernel and output channels.
    (node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]), (4, 5, 5), (4, 6, 3, 3), 4 * 25 * 54),
    (node("MatMul", ["x", "w"], ["y"]), (6, 10), (10, 4), 6 * 10 * 4),
    (node("Gemm", ["x", "w"], ["y"], transB=1), (10,), (4, 10), 40),
    (node("Einsum", ["x", "w"], ["y"], equation="nij,jk->nik"), (6, 10), (10, 4), 6 * 10 * 4),
    (node("Einsum", ["x", "w"], ["y"], equation="...j,jk->...k"), (3, 6, 10), (10, 4), 3 * 6 * 10 * 4),
    # A matrix product with a bias or a scale makes no multiply-adds of its own.
    (node("Add", ["x", "w"], ["y"]), (6, 10), (6, 10), 0),
    (node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2]), (4, 6, 6), (1,), 0),
]


@pytest.mark.parametrize(
    ("operator", "sample", "weight", "macs"), CASES, ids=lambda v: getattr(v, "op_type", None)
)
def test_macs(
    make_model: Make, operator: Any, sample: tuple[int, ...], weight: tuple[int, ...], macs: int
) -> None:
    model = make_model([operator], {"x": ["N", *sample]}, ["y"], {"w": np.ones(weight)})
    found = _only(model)
    assert found.macs == BatchPolynomial((0, macs))
    for batch in (1, 2, 5):
        assert found.macs(batch) == macs * batch
        assert found.flops(batch) >= 2 * found.macs(batch)


def test_attention_without_weights_is_affine_in_the_batch(make_model: Make) -> None:
    nodes = [
        node("MatMul", ["q", "k"], ["s"]),
        node("Softmax", ["s"], ["a"]),
        node("MatMul", ["a", "v"], ["y"]),
    ]
    shapes = {"q": ["N", 3, 5, 8], "k": ["N", 3, 8, 7], "v": ["N", 3, 7, 8]}
    graph = OperatorGraph.from_onnx(make_model(nodes, shapes, ["y"]))
    assert [op.macs(2) for op in graph.operators] == [2 * 3 * 5 * 7 * 8, 0, 2 * 3 * 5 * 8 * 7]
    assert [len(op.weight_shapes) for op in graph.operators] == [0, 0, 0]


def test_product_over_two_batches_is_quadratic(make_model: Make) -> None:
    model = make_model(
        [node("Transpose", ["x"], ["t"], perm=[1, 0]), node("MatMul", ["x", "t"], ["y"])],
        {"x": ["N", 6]},
        ["y"],
    )
    graph = OperatorGraph.from_onnx(model)
    assert graph.operators[1].macs == BatchPolynomial((0, 0, 6))
    assert graph.array("macs", 5).tolist() == [0, 150]


@pytest.mark.parametrize(("op_type", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent(make_model: Make, op_type: str, gates: int) -> None:
    weights = {"w": np.ones((1, gates * 5, 3)), "r": np.ones((1, gates * 5, 5))}
    model = make_model(
        [node(op_type, ["x", "w", "r"], ["y"], hidden_size=5)], {"x": [7, "batch", 3]}, ["y"], weights
    )
    found = _only(model)
    assert found.macs(2) == 7 * 2 * gates * 5 * (3 + 5)
    assert found.params == gates * 5 * (3 + 5)


def test_bytes_and_flops(make_model: Make) -> None:
    nodes = [node("Conv", ["x", "w", "b"], ["c"]), node("Relu", ["c"], ["y"])]
    model = make_model(nodes, {"x": ["N", 2, 4, 4]}, ["y"], {"w": np.ones((3, 2, 1, 1)), "b": np.ones(3)})
    conv, relu = OperatorGraph.from_onnx(model).operators
    assert (conv.input_bytes(2), conv.weight_bytes(2), conv.output_bytes(2)) == (
        2 * 32 * 4,
        9 * 4,
        2 * 48 * 4,
    )
    assert conv.flops(2) == 2 * (2 * 48 * 2) + 2 * 48  # multiply-adds, and the bias
    assert (relu.flops(2), relu.macs(2)) == (2 * 48, 0)
    assert (relu.input_bytes(1), relu.weight_bytes(1), relu.params) == (48 * 4, 0, 0)


def test_running_statistics_are_no_parameters(make_model: Make) -> None:
    names = ["scale", "bias", "mean", "var"]
    model = make_model(
        [node("BatchNormalization", ["x", *names], ["y"])],
        {"x": ["N", 4, 2, 2]},
        ["y"],
        {name: np.ones(4) for name in names},
    )
    found = _only(model)
    assert found.params == 8
    assert found.weight_bytes(1) == 16 * 4


def test_shared_weights_count_once(make_model: Make) -> None:
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("MatMul", ["a", "w"], ["y"])]
    graph = OperatorGraph.from_onnx(make_model(nodes, {"x": ["N", 3]}, ["y"], {"w": np.ones((3, 3))}))
    assert graph.params == 9
    assert [op.params for op in graph.operators] == [9, 0]
    assert graph.macs(2) == 36
