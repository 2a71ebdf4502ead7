from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from profiler.memory import MIB, estimated_memory_mib, peak_activation_bytes, too_large, weight_bytes
from rapp.graph import OperatorGraph

ZOO = Path(__file__).resolve().parents[2] / "datasets" / "graphs"


def network(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], width: int = 256) -> OperatorGraph:
    """A network from `x` to `y`, both (N, width) float32."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", width])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    return OperatorGraph.from_onnx(model)


def weight(rows: int, columns: int) -> np.ndarray:
    return np.zeros((rows, columns), np.float32)


def test_a_chain_holds_two_activations_at_a_time() -> None:
    node = helper.make_node
    chain = network(
        [
            node("MatMul", ["x", "a"], ["h"]),  # (N, 1024)
            node("MatMul", ["h", "b"], ["i"]),  # (N, 512)
            node("MatMul", ["i", "c"], ["y"]),
        ],
        {"a": weight(256, 1024), "b": weight(1024, 512), "c": weight(512, 256)},
    )
    for batch in (1, 7):
        assert peak_activation_bytes(chain, batch) == 4 * batch * (1024 + 512)
    weights = 4 * (256 * 1024 + 1024 * 512 + 512 * 256)
    assert weight_bytes(chain, 3) == weights
    expected = weights + 4 * 3 * 256 + 4 * 3 * (1024 + 512)
    assert estimated_memory_mib(chain, 3) == pytest.approx(expected / MIB)


def test_an_activation_lives_until_its_last_reader_and_a_view_is_none() -> None:
    node = helper.make_node
    residual = network(
        [
            node("MatMul", ["x", "a"], ["h"]),
            node("Relu", ["h"], ["i"]),
            node("Reshape", ["i", "shape"], ["j"]),
            node("Sigmoid", ["j"], ["k"]),
            node("Add", ["k", "h"], ["y"]),
        ],
        {"a": weight(256, 256), "shape": np.array([-1, 256])},
    )
    # h is read last by Add: with i (or its view) and k that makes three of one size.
    assert peak_activation_bytes(residual, 2) == 3 * 4 * 2 * 256


def test_shared_weights_count_once() -> None:
    node = helper.make_node
    shared = network(
        [node("MatMul", ["x", "a"], ["h"]), node("MatMul", ["h", "a"], ["y"])], {"a": weight(256, 256)}
    )
    assert weight_bytes(shared, 1) == 4 * 256 * 256


@pytest.mark.parametrize(
    ("name", "params"), [("resnet50", 25_557_032), ("vgg16", 138_357_544), ("vit_b_16", 86_567_656)]
)
def test_weights_of_published_networks(name: str, params: int) -> None:
    """torchvision's published numbers of parameters."""
    graph = OperatorGraph.from_onnx(ZOO / f"{name}.onnx")
    assert weight_bytes(graph, 1) == pytest.approx(4 * params, rel=0.002)
    small, large = (estimated_memory_mib(graph, batch) for batch in (1, 64))
    assert 4 * params / MIB < small < large


def test_what_cannot_fit_is_told_with_a_margin() -> None:
    assert too_large(1000, None) is None
    assert too_large(1099, 1000) is None
    told = too_large(1101, 1000)
    assert told == "needs about 1,101 MiB by its operators, and the device has 1,000 MiB"
