"""`with_batch` finds the old batch wherever a network holds it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from batch_parts import Make, Run, W, assert_equivalent, node

from rapp.graph import with_batch

TOKEN = np.random.default_rng(1).standard_normal((1, 1, 6)).astype(np.float32)
RECURRENT = {
    "w": np.random.default_rng(2).standard_normal((1, 20, 6)) * 0.3,
    "r": np.random.default_rng(3).standard_normal((1, 20, 5)) * 0.3,
    "h": np.full((1, 1, 5), 0.2),
    "c": np.full((1, 1, 5), -0.1),
}
PLACES: dict[str, tuple[list[Any], tuple[int, ...], dict[str, Any]]] = {
    "reshape": ([node("Reshape", ["x", "s"], ["y"])], (1, 4, 6), {"s": [1, 24]}),
    "reshape with a rest": ([node("Reshape", ["x", "s"], ["y"])], (1, 4, 6), {"s": [1, -1]}),
    "reshape that leaves the batch": ([node("Reshape", ["x", "s"], ["y"])], (1, 4, 6), {"s": [-1, 24]}),
    "reshape that copies": ([node("Reshape", ["x", "s"], ["y"])], (1, 4, 6), {"s": [0, -1]}),
    "one sample, one channel": ([node("Reshape", ["x", "s"], ["y"])], (1, 1, 6), {"s": [1, 1, 6, 1]}),
    "batch of two": ([node("Reshape", ["x", "s"], ["y"])], (2, 2, 2, 6), {"s": [2, 24]}),
    "merged into windows and back": (
        [
            node("Reshape", ["x", "s"], ["a"]),
            node("MatMul", ["a", "w"], ["b"]),
            node("Reshape", ["b", "t"], ["y"]),
        ],
        (1, 4, 6),
        {"s": [4, 6], "w": W, "t": [1, 4, 6]},
    ),
    "steps first, as PyTorch's attention": (
        [
            node("Transpose", ["x"], ["a"], perm=[1, 0, 2]),
            node("Reshape", ["a", "s"], ["b"]),
            node("Transpose", ["b"], ["q"], perm=[1, 0, 2]),
            node("Transpose", ["q"], ["k"], perm=[0, 2, 1]),
            node("MatMul", ["q", "k"], ["l"]),
            node("Softmax", ["l"], ["p"]),
            node("MatMul", ["p", "q"], ["o"]),
            node("Transpose", ["o"], ["c"], perm=[1, 0, 2]),
            node("Reshape", ["c", "f"], ["d"]),
            node("MatMul", ["d", "w"], ["e"]),
            node("Reshape", ["e", "g"], ["h"]),
            node("Transpose", ["h"], ["y"], perm=[1, 0, 2]),
        ],
        (1, 4, 6),
        {"s": [4, 3, 2], "f": [4, 6], "w": W, "g": [4, 1, 6]},
    ),
    "channels as batch": (
        [
            node("Reshape", ["x", "s"], ["a"]),
            node("Relu", ["a"], ["b"]),
            node("Reshape", ["b", "t"], ["y"]),
        ],
        (1, 4, 6),
        {"s": [1, 24], "t": [1, 4, 6]},
    ),
    "class token": ([node("Concat", ["token", "x"], ["y"], axis=1)], (1, 4, 6), {"token": TOKEN}),
    "class token, expanded": (
        [node("Expand", ["token", "s"], ["t"]), node("Concat", ["t", "x"], ["y"], axis=1)],
        (1, 4, 6),
        {"token": TOKEN, "s": [1, 1, 6]},
    ),
    "class token for two": (
        [node("Concat", ["token", "x"], ["y"], axis=1)],
        (2, 4, 6),
        {"token": np.repeat(TOKEN, 2, axis=0)},
    ),
    "bias for two": ([node("Add", ["x", "b"], ["y"])], (2, 4), {"b": np.repeat(W[:1, :4], 2, axis=0)}),
    "expand": ([node("Expand", ["x", "s"], ["y"])], (1, 1, 6), {"s": [1, 4, 6]}),
    "slice of everything": ([node("Slice", ["x", "s", "e"], ["y"])], (1, 4, 6), {"s": [0, 1], "e": [1, 3]}),
    "resize": (
        [node("Resize", ["x", "", "", "s"], ["y"], mode="nearest")],
        (1, 2, 3, 3),
        {"s": [1, 2, 6, 6]},
    ),
    "state of an LSTM": (
        [
            node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
            node("LSTM", ["t", "w", "r", "", "", "h", "c"], ["o", "", ""], hidden_size=5),
            node("Squeeze", ["o", "one"], ["q"]),
            node("Transpose", ["q"], ["y"], perm=[1, 0, 2]),
        ],
        (1, 4, 6),
        {**RECURRENT, "one": [1]},
    ),
    "computed at run time": (
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "zero"], ["n"]),
            node("Concat", ["n", "rest"], ["t"], axis=0),
            node("Reshape", ["x", "t"], ["y"]),
        ],
        (1, 4, 6),
        {"zero": [0], "rest": [-1]},
    ),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("batch", [2, 5])
def test_every_place_of_the_batch(make_model: Make, run: Run, place: str, batch: int) -> None:
    nodes, shape, weights = PLACES[place]
    assert_equivalent(make_model(nodes, {"x": shape}, ["y"], weights), run, batch)


def test_a_size_that_equals_the_batch_is_left_alone(make_model: Make) -> None:
    """Batch 4, 4 channels, 4 x 4 pixels: only the place tells which 4 is the batch."""
    nodes = [node("Reshape", ["x", "s"], ["a"]), node("Transpose", ["a"], ["b"], perm=[0, 2, 1]),
             node("Reshape", ["b", "t"], ["y"])]  # fmt: skip
    model = make_model(nodes, {"x": (4, 4, 4, 4)}, ["y"], {"s": [4, 4, 16], "t": [4, 16, 4]})
    rewritten = with_batch(model, 6)
    constants = [onnx.numpy_helper.to_array(n.attribute[0].t).tolist() for n in rewritten.graph.node[:2]]
    assert constants == [[6, 4, 16], [6, 16, 4]]


def test_the_original_stays_as_it_is(make_model: Make) -> None:
    nodes, shape, weights = PLACES["class token, expanded"]
    model = make_model(nodes, {"x": shape}, ["y"], weights)
    before = model.SerializeToString()
    with_batch(model, 7)
    assert model.SerializeToString() == before
