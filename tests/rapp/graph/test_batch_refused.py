"""Networks of one batch only: `with_batch` refuses them and names the operator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from batch_parts import Make, W, node

from rapp.errors import BatchRewriteError
from rapp.graph import OperatorGraph, with_batch

REFUSED: dict[str, tuple[list[Any], tuple[int, ...], dict[str, Any], str]] = {
    "mean over the batch": ([node("ReduceMean", ["x", "a"], ["y"])], (1, 4), {"a": [0]}, "ReduceMean 'y'"),
    "softmax over the batch": ([node("Softmax", ["x"], ["y"], axis=0)], (1, 4), {}, "Softmax 'y'"),
    "one sample taken out": ([node("Gather", ["x", "i"], ["y"], axis=0)], (1, 4), {"i": 0}, "Gather 'y'"),
    "batch joined with itself": ([node("Concat", ["x", "x"], ["y"], axis=0)], (1, 4), {}, "Concat 'y'"),
    "all samples in one row": ([node("Flatten", ["x"], ["y"], axis=0)], (1, 4), {}, "output y"),
    "product over the batch": (
        [node("Transpose", ["x"], ["t"], perm=[1, 0]), node("MatMul", ["t", "x"], ["y"])],
        (1, 4), {}, "MatMul 'y'",
    ),
    "batch squeezed away": ([node("Squeeze", ["x", "a"], ["y"])], (1, 4), {"a": [0]}, "Squeeze 'y'"),
    "a bias of its own for each sample": (
        [node("Add", ["x", "b"], ["y"])], (2, 4), {"b": [[1.0, 2, 3, 4], [5.0, 6, 7, 8]]}, "Add 'y'",
    ),
    "an output that is constant": ([node("Relu", ["b"], ["y"])], (1, 4), {"b": W}, "output y"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_operator(make_model: Make, case: str) -> None:
    nodes, shape, weights, place = REFUSED[case]
    model = make_model(nodes, {"x": shape}, ["y"], weights)
    with pytest.raises(BatchRewriteError, match=place):
        with_batch(model, 3)


def test_a_graph_of_one_batch_says_so(make_model: Make) -> None:
    model = make_model([node("ReduceMean", ["x"], ["y"])], {"x": (2, 4)}, ["y"])
    graph = OperatorGraph.from_onnx(model)
    assert graph.fixed_batch == 2
    assert graph.only_batch is not None
    assert graph.flops(2) == 8
    for ask in (graph.flops, graph.macs, lambda batch: graph.array("macs", batch)):
        with pytest.raises(BatchRewriteError, match="it serves batch 2 only: ReduceMean 'y'"):
            ask(1)
