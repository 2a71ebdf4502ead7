"""Small graphs: what is kept, what is left out, what the edges are, and what cannot be read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).parent))

from graph_parts import Make, kinds, node, shapes, wires

from rapp.errors import GraphError, UnknownShapeError
from rapp.graph import BatchPolynomial, OperatorGraph

NEWEST = onnx.defs.onnx_opset_version()


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 15, 17, 20, 21, 22, 23, NEWEST])
@pytest.mark.parametrize("batch", [1, "N"])
def test_every_opset(make_model: Make, opset: int, batch: int | str) -> None:
    """Convolution, normalisation, pooling and a classifier whose Reshape reads its target from the shape."""
    unsqueeze = (
        node("Unsqueeze", ["n"], ["u"], axes=[0]) if opset < 13 else node("Unsqueeze", ["n", "axes"], ["u"])
    )
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c", "s", "s", "s", "s"], ["b"]),
        node("Relu", ["b"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Shape", ["p"], ["shape"]),
        node("Gather", ["shape", "zero"], ["n"], axis=0),
        unsqueeze,
        node("Concat", ["u", "rest"], ["target"], axis=0),
        node("Reshape", ["p", "target"], ["f"]),
        node("Gemm", ["f", "v", "bias"], ["g"], transB=1),
        node("Softmax", ["g"], ["y"]),
    ]
    weights = {"w": np.ones((4, 3, 3, 3)), "s": np.ones(4), "zero": 0, "rest": [-1], "v": np.ones((5, 16)),
               "bias": np.ones(5), "axes": [0]}  # fmt: skip
    graph = OperatorGraph.from_onnx(make_model(nodes, {"x": [batch, 3, 4, 4]}, ["y"], weights, opset))
    assert kinds(graph) == ["Conv", "BatchNormalization", "Relu", "MaxPool", "Reshape", "Gemm", "Softmax"]
    assert graph.edges.tolist() == [[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]]
    assert shapes(graph, 3) == [(3, 4, 4, 4)] * 3 + [(3, 4, 2, 2), (3, 16), (3, 5), (3, 5)]
    assert graph.opset == opset
    assert graph.macs(3) == 3 * (64 * 27 + 80)
    assert graph.params == 4 * 27 + 4 + 85  # one list serves as scale and bias
    assert (graph.fixed_batch, graph.only_batch) == (1 if batch == 1 else None, None)


def test_edges_lead_through_what_is_left_out(make_model: Make) -> None:
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("Identity", ["a"], ["b"]),
        node("Dropout", ["b"], ["c"]),
        node("Cast", ["c"], ["d"], to=TensorProto.FLOAT),
        node("Sigmoid", ["d"], ["e"]),
        node("Add", ["e", "b"], ["y"]),
        node("Tanh", ["x"], ["nobody reads this"]),
    ]
    graph = OperatorGraph.from_onnx(make_model(nodes, {"x": ["N", 3]}, ["y"]))
    assert kinds(graph) == ["Relu", "Sigmoid", "Add"]
    assert wires(graph) == [("Relu", "Sigmoid"), ("Relu", "Add"), ("Sigmoid", "Add")]


def test_what_does_something_stays(make_model: Make) -> None:
    nodes = [
        node("Dropout", ["x", "", "yes"], ["a"]),
        node("Cast", ["a"], ["b"], to=TensorProto.FLOAT16),
        node("Dropout", ["b"], ["y", "mask"]),
    ]
    model = make_model(nodes, {"x": ["N", 3]}, [])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
    for name, kind in (("y", TensorProto.FLOAT16), ("mask", TensorProto.BOOL)):
        model.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    graph = OperatorGraph.from_onnx(model)
    assert kinds(graph) == ["Dropout", "Cast", "Dropout"]
    assert [op.dtype for op in graph.operators] == ["float32", "float16", "float16"]
    assert graph.operators[1].output_bytes(1) == 6
    assert graph.operators[2].output_bytes(1) == 6 + 3


def test_operators_on_weights_alone_are_weights(make_model: Make) -> None:
    nodes = [
        node("Transpose", ["w"], ["t"], perm=[1, 0]),
        node("Mul", ["t", "t"], ["m"]),
        node("MatMul", ["x", "m"], ["y"]),
    ]
    graph = OperatorGraph.from_onnx(make_model(nodes, {"x": ["N", 3]}, ["y"], {"w": np.ones((5, 3))}))
    (operator,) = graph.operators
    assert operator.weight_shapes == ((BatchPolynomial((3,)), BatchPolynomial((5,))),)
    assert (operator.params, graph.edges.shape) == (15, (2, 0))


def test_random_numbers_are_no_constants(make_model: Make) -> None:
    nodes = [node("RandomNormal", [], ["r"], shape=[3]), node("Add", ["x", "r"], ["y"])]
    assert kinds(OperatorGraph.from_onnx(make_model(nodes, {"x": ["N", 3]}, ["y"]))) == [
        "RandomNormal",
        "Add",
    ]


def test_a_file_out_of_order_is_read(make_model: Make) -> None:
    nodes = [node("Add", ["a", "b"], ["y"]), node("Sigmoid", ["a"], ["b"]), node("Relu", ["x"], ["a"])]
    graph = OperatorGraph.from_onnx(make_model(nodes, {"x": ["N", 3]}, ["y"]))
    assert kinds(graph) == ["Relu", "Sigmoid", "Add"]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"])], "in a circle"),
        ([node("Relu", ["x"], ["b"]), node("Tanh", ["x"], ["b"])], "'b' is made twice"),
        ([node("Add", ["x", "nowhere"], ["b"])], "uses 'nowhere', which nothing makes"),
        ([node("Conv", ["x", "w"], ["b"])], "Conv 'b': its input has 3 channels, its weights want 4"),
        ([node("Relu", ["x"], ["c"])], "output b: nothing makes it"),
    ],
)
def test_contradictions_are_errors(make_model: Make, nodes: list[Any], message: str) -> None:
    weights = {"w": np.ones((4, 4, 1, 1))} if nodes[0].op_type == "Conv" else {}
    with pytest.raises(GraphError, match=message):
        OperatorGraph.from_onnx(make_model(nodes, {"x": ["N", 3, 8, 8]}, ["b"], weights))


def test_sequences(make_model: Make) -> None:
    nodes = [
        node("SplitToSequence", ["x", "two"], ["q"], axis=1),
        node("SequenceAt", ["q", "one"], ["y"]),
    ]
    model = make_model(nodes, {"x": ["N", 4]}, {"y": ["N", 2]}, {"two": [2, 2], "one": 1})
    assert kinds(OperatorGraph.from_onnx(model)) == ["SplitToSequence", "SequenceAt"]


def test_quantised_weights(make_model: Make) -> None:
    nodes = [node("DequantizeLinear", ["q", "s"], ["w"]), node("MatMul", ["x", "w"], ["y"])]
    model = make_model(nodes, {"x": ["N", 3]}, ["y"], {"s": np.float32(0.1)})
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((3, 5), np.int8), "q"))
    graph = OperatorGraph.from_onnx(model)
    assert kinds(graph) == ["MatMul"]
    assert graph.params == 15


def test_structure_only_weights_that_shapes_hang_on_are_refused(make_model: Make) -> None:
    """A Reshape whose target the file does not hold: no guess."""
    model = make_model([node("Reshape", ["x", "s"], ["y"])], {"x": ["N", 4]}, ["y"], {"s": [-1, 2, 2]})
    model.graph.initializer[0].ClearField("raw_data")
    with pytest.raises(UnknownShapeError, match="Reshape 'y'"):
        OperatorGraph.from_onnx(model)


def test_arrays_of_a_graph_follow_its_operators(zoo: Path, parsed: Callable[[Path], OperatorGraph]) -> None:
    graph = parsed(zoo / "squeezenet1_1.onnx")
    for batch in (1, 3):
        for quantity in ("macs", "flops", "input_bytes", "weight_bytes", "output_bytes"):
            wanted = [getattr(op, quantity)(batch) for op in graph.operators]
            assert graph.array(quantity, batch).tolist() == wanted
            assert graph.total(quantity, batch) == sum(wanted)


def test_views_launch_nothing(make_model: Make) -> None:
    nodes = [node("Flatten", ["x"], ["a"]), node("Transpose", ["a"], ["b"]), node("Relu", ["b"], ["y"])]
    graph = OperatorGraph.from_onnx(make_model(nodes, {"x": ["N", 2, 3]}, ["y"]))
    assert [op.is_view for op in graph.operators] == [True, False, False]
