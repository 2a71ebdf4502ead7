"""Which dimension of a file is the batch, and what the other open ones need."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from graph_parts import Make, node, shapes

from rapp.errors import UnknownShapeError
from rapp.graph import BatchPolynomial, OperatorGraph


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
