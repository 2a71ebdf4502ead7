"""Small graphs: what is kept, what is left out, what the edges are, and what cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from rapp.errors import GraphError, UnknownShapeError
from rapp.graph import BatchPolynomial, OperatorGraph

node = helper.make_node
Make = Callable[..., ModelProto]
NEWEST = onnx.defs.onnx_opset_version()


def kinds(graph: OperatorGraph) -> list[str]:
    return [op.op_type for op in graph.operators]


def wires(graph: OperatorGraph) -> list[tuple[str, str]]:
    return [(graph.operators[s].op_type, graph.operators[t].op_type) for s, t in graph.edges.T]


def shapes(graph: OperatorGraph, batch: int) -> list[tuple[int, ...]]:
    return [tuple(dim(batch) for dim in op.output_shapes[0]) for op in graph.operators]


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


class TestBatch:
    def test_named_batch_need_not_be_first(self, make_model: Make) -> None:
        model = make_model([node("Relu", ["x"], ["y"])], {"x": [35, "batch_size", 8]}, ["y"])
        graph = OperatorGraph.from_onnx(model)
        assert shapes(graph, 4) == [(35, 4, 8)]

    def test_open_dimension_without_a_name(self, make_model: Make) -> None:
        graph = OperatorGraph.from_onnx(make_model([node("Relu", ["x"], ["y"])], {"x": [None, 8]}, ["y"]))
        assert shapes(graph, 4) == [(4, 8)]
        assert graph.fixed_batch is None

    def test_other_open_dimensions_need_a_number(self, make_model: Make) -> None:
        model = make_model(
            [node("MatMul", ["x", "w"], ["y"])], {"x": ["N", "seq", 8]}, ["y"], {"w": np.ones((8, 2))}
        )
        with pytest.raises(UnknownShapeError, match="input x: seq is open"):
            OperatorGraph.from_onnx(model)
        graph = OperatorGraph.from_onnx(model, dims={"seq": 7})
        assert graph.macs(2) == 2 * 7 * 8 * 2
        assert OperatorGraph.from_onnx(model, dims={"seq": 7, "N": 3}).fixed_batch == 3

    def test_input_without_a_shape(self, make_model: Make) -> None:
        model = make_model([node("Relu", ["x"], ["y"])], {"x": ["N", 8]}, ["y"])
        model.graph.input[0].type.tensor_type.ClearField("shape")
        with pytest.raises(UnknownShapeError, match="input x: the input has no shape"):
            OperatorGraph.from_onnx(model)

    def test_class_token_grows_in_a_fixed_and_in_an_open_file(self, make_model: Make) -> None:
        """The weight of the Concat is one token for each sample, whichever way the file says so."""
        weights = {"token": np.ones((1, 1, 6)), "one": [1], "zero": [0], "rest": [1, 6]}
        opened = [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "zero"], ["n"]),
            node("Concat", ["n", "rest"], ["t"], axis=0),
            node("Expand", ["token", "t"], ["tokens"]),
            node("Concat", ["tokens", "x"], ["y"], axis=1),
        ]
        fixed = [node("Concat", ["token", "x"], ["y"], axis=1)]
        graphs = [
            OperatorGraph.from_onnx(make_model(nodes, {"x": [batch, 4, 6]}, ["y"], weights))
            for nodes, batch in ((opened, "N"), (fixed, 1))
        ]
        assert graphs[0].operators == graphs[1].operators
        assert graphs[0].graph_hash == graphs[1].graph_hash
        assert graphs[0].operators[0].weight_bytes == BatchPolynomial((0, 24))


class TestUnknownOperators:
    def test_declared_shapes_serve(self, make_model: Make) -> None:
        nodes = [
            node("Relu", ["x"], ["a"]),
            node("Magic", ["a", "w"], ["b"], domain="ai.example", strength=3),
            node("Sigmoid", ["b"], ["y"]),
        ]
        for batch in ("N", 1):
            declared, weights = {"b": [batch, 2]}, {"w": np.ones((4, 2))}
            model = make_model(nodes, {"x": [batch, 4]}, ["y"], weights, 20, declared, ["ai.example"])
            graph = OperatorGraph.from_onnx(model)
            assert kinds(graph) == ["Relu", "Magic", "Sigmoid"]
            magic = graph.operators[1]
            assert (magic.domain, dict(magic.attributes), magic.dtype) == (
                "ai.example",
                {"strength": 3},
                "float32",
            )
            assert (magic.macs(3), magic.input_bytes(3), magic.output_bytes(3), magic.params) == (
                0,
                48,
                24,
                8,
            )
            assert shapes(graph, 3) == [(3, 4), (3, 2), (3, 2)]

    def test_without_declared_shapes_the_error_names_them(self, make_model: Make) -> None:
        nodes = [node("Magic", ["x"], ["b"], domain="ai.example", name="wand"), node("Relu", ["b"], ["y"])]
        model = make_model(nodes, {"x": ["N", 4]}, ["y"], domains=["ai.example"])
        with pytest.raises(UnknownShapeError, match=r"ai\.example\.Magic 'wand'"):
            OperatorGraph.from_onnx(model)

    def test_unknown_type_in_the_main_domain(self, make_model: Make) -> None:
        model = make_model([node("Frobnicate", ["x"], ["y"])], {"x": ["N", 4]}, {"y": ["N", 4]})
        assert kinds(OperatorGraph.from_onnx(model)) == ["Frobnicate"]

    def test_data_dependent_shape(self, make_model: Make) -> None:
        model = make_model(
            [node("NonZero", ["x"], ["i"]), node("Cast", ["i"], ["y"], to=1)], {"x": ["N", 4]}, ["y"]
        )
        with pytest.raises(UnknownShapeError, match="NonZero 'i'"):
            OperatorGraph.from_onnx(model)

    def test_fused_operators_of_onnx_runtime(self, make_model: Make) -> None:
        nodes = [
            node("FusedConv", ["x", "w"], ["a"], domain="com.microsoft", activation="Relu"),
            node("Gelu", ["a"], ["y"], domain="com.microsoft"),
        ]
        model = make_model(
            nodes, {"x": ["N", 3, 4, 4]}, ["y"], {"w": np.ones((8, 3, 1, 1))}, domains=["com.microsoft"]
        )
        graph = OperatorGraph.from_onnx(model)
        assert graph.macs(2) == 2 * 8 * 16 * 3
        assert shapes(graph, 2) == [(2, 8, 4, 4)] * 2


class TestSubgraphs:
    @staticmethod
    def _branches(make_model: Make, condition: str, **extra: Any) -> ModelProto:
        def branch(op_type: str) -> onnx.GraphProto:
            end = helper.make_tensor_value_info(op_type, TensorProto.FLOAT, None)
            return helper.make_graph([node(op_type, ["a"], [op_type])], op_type, [], [end])

        nodes = [
            node("Relu", ["x"], ["a"]),
            *extra.get("before", []),
            node("If", [condition], ["b"], then_branch=branch("Sigmoid"), else_branch=branch("Tanh")),
            node("Exp", ["b"], ["y"]),
        ]
        return make_model(nodes, {"x": ["N", 4]}, ["y"], extra.get("weights"))

    def test_a_known_condition_takes_its_branch(self, make_model: Make) -> None:
        before = [
            node("Shape", ["a"], ["s"]),
            node("Gather", ["s", "one"], ["w"]),
            node("Equal", ["w", "four"], ["c"]),
        ]
        for width, taken in ((4, "Sigmoid"), (5, "Tanh")):
            model = self._branches(make_model, "c", before=before, weights={"one": 1, "four": width})
            graph = OperatorGraph.from_onnx(model)
            assert kinds(graph) == ["Relu", taken, "Exp"]
            assert wires(graph) == [("Relu", taken), (taken, "Exp")]

    def test_an_open_condition_is_one_operator(self, make_model: Make) -> None:
        before = [
            node("ReduceMax", ["x"], ["top"], keepdims=0),
            node("Cast", ["top"], ["c"], to=TensorProto.BOOL),
        ]
        graph = OperatorGraph.from_onnx(self._branches(make_model, "c", before=before))
        assert sorted(kinds(graph)) == ["Cast", "Exp", "If", "ReduceMax", "Relu"]
        # The branches read the Relu from outside.
        assert {("Relu", "If"), ("Cast", "If"), ("If", "Exp")} <= set(wires(graph))
        assert shapes(graph, 2)[-1] == (2, 4)

    def test_loop(self, make_model: Make) -> None:
        info = helper.make_tensor_value_info
        body = helper.make_graph(
            [node("Identity", ["go"], ["on"]), node("Relu", ["state"], ["next"])],
            "body",
            [
                info("i", TensorProto.INT64, []),
                info("go", TensorProto.BOOL, []),
                info("state", TensorProto.FLOAT, None),
            ],
            [info("on", TensorProto.BOOL, []), info("next", TensorProto.FLOAT, ["N", 4])],
        )
        loop = node("Loop", ["count", "", "x"], ["y"], body=body)
        model = make_model([loop], {"x": ["N", 4]}, {"y": ["N", 4]}, {"count": 3})
        graph = OperatorGraph.from_onnx(model)
        assert kinds(graph) == ["Loop"]
        assert shapes(graph, 5) == [(5, 4)]

    def test_functions_are_inlined(self, make_model: Make) -> None:
        imports = [helper.make_opsetid("", 20)]
        body = [node("Sigmoid", ["a"], ["s"]), node("Mul", ["a", "s"], ["b"])]
        silu = helper.make_function("local", "SiLU", ["a"], ["b"], body, imports)
        model = make_model(
            [node("SiLU", ["x"], ["y"], domain="local")], {"x": ["N", 4]}, ["y"], domains=["local"]
        )
        model.functions.append(silu)
        assert kinds(OperatorGraph.from_onnx(model)) == ["Sigmoid", "Mul"]


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
