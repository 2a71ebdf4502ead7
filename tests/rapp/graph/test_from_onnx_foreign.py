"""Operators that ONNX does not know, and operators that hold graphs of their own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

sys.path.insert(0, str(Path(__file__).parent))

from graph_parts import Make, kinds, node, shapes, wires

from rapp.errors import UnknownShapeError
from rapp.graph import OperatorGraph


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
