"""An operator graph as JSON and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, helper

from rapp.errors import GraphError
from rapp.graph import OperatorGraph

Parsed = Callable[[Path], OperatorGraph]


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "vit_b_32"])
def test_round_trip(zoo: Path, parsed: Parsed, name: str) -> None:
    graph = parsed(zoo / f"{name}.onnx")
    text = graph.to_json()
    back = OperatorGraph.from_json(text)
    assert back == graph
    assert back.to_json() == text
    assert np.array_equal(back.array("macs", 8), graph.array("macs", 8))
    assert len(text) < 600 * len(graph)


def test_infinite_bounds_and_one_batch(make_model: Callable[..., ModelProto]) -> None:
    nodes = [
        helper.make_node("Clip", ["x", "", "top"], ["a"]),
        helper.make_node("ReduceMean", ["a"], ["y"]),
    ]
    graph = OperatorGraph.from_onnx(make_model(nodes, {"x": (2, 3)}, ["y"], {"top": np.float32(np.inf)}))
    assert graph.operators[0].attributes == {"max": "inf"}
    text = graph.to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert OperatorGraph.from_json(text).only_batch == graph.only_batch is not None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"format": "rapp-operator-graph", "version": 1}', "{"]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(GraphError, match="not an operator graph"):
        OperatorGraph.from_json(text)


def test_other_versions_are_refused(zoo: Path, parsed: Parsed) -> None:
    content = json.loads(parsed(zoo / "alexnet.onnx").to_json())
    with pytest.raises(GraphError, match="format version 99"):
        OperatorGraph.from_json(json.dumps({**content, "version": 99}))
