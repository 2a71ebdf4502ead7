"""`with_batch`: a network at batch n answers like n runs of the original, or is refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, helper

from rapp.errors import BatchRewriteError
from rapp.graph import OperatorGraph, with_batch

node = helper.make_node
Make = Callable[..., ModelProto]
Run = Callable[..., list[list[Any]]]


def assert_equivalent(
    model: ModelProto, run: Run, batch: int, rewritten_to: tuple[int | None, ...] = ()
) -> None:
    """The network at n times its own batch, and with the batch left open, against n runs of its own."""
    constants = {tensor.name for tensor in model.graph.initializer}
    (value,) = [value for value in model.graph.input if value.name not in constants]
    own, *sample = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    rng = np.random.default_rng(1)
    x = rng.standard_normal((batch * own, *sample)).astype(np.float32)
    # White noise looks alike to a deep network, whatever its seed: give each sample colours of its own.
    x += 2 * rng.standard_normal((batch * own, *sample[:1], *[1] * len(sample[1:]))).astype(np.float32)
    single = run(model, *({value.name: x[i * own : (i + 1) * own]} for i in range(batch)))
    wanted = [np.concatenate(parts) for parts in zip(*single, strict=True)]
    spread = np.abs(wanted[0][0] - wanted[0][-1]).max() / np.abs(wanted[0]).max()
    assert spread > 1e-3, "all inputs get one answer: the comparison could not fail"
    for new in rewritten_to or (batch * own, None):
        (made,) = run(with_batch(model, new), {value.name: x})
        for found, expected in zip(made, wanted, strict=True):
            assert found.shape == expected.shape
            np.testing.assert_allclose(
                found, expected, rtol=1e-3, atol=spread * 1e-2 * np.abs(expected).max()
            )


LIGHT = ["bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet",
         "squeezenet", "vgg19", "zfnet512"]  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "vgg19" else name for name in LIGHT]
)
def test_light_networks(light: Path, randomised: Callable[..., ModelProto], run: Run, name: str) -> None:
    # The open batch of the three with 60 to 140 million weights is left out: it takes half a minute.
    heavy = name in ("bvlc_alexnet", "vgg19", "zfnet512")
    # Sums of many branches would saturate the softmax: damp them.
    damped = {"resnet50": 2.0, "shufflenet": 4.0}.get(name, 1.0)
    model = randomised(light / f"light_{name}.onnx", variance=damped)
    assert_equivalent(model, run, 2, (2,) if heavy else (2, None))


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "vit_b_32", "maxvit_t", "mobilenet_v3_small"])
def test_zoo_networks(zoo: Path, randomised: Callable[..., ModelProto], run: Run, name: str) -> None:
    """ViT reshapes to (50, heads, d), the batch inside; MaxViT counts windows together with the batch."""
    assert_equivalent(randomised(zoo / f"{name}.onnx"), run, 3)


# Networks of which each holds the old batch in another place.
W = np.random.default_rng(0).standard_normal((6, 6)).astype(np.float32)
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


@st.composite
def reshapings(draw: st.DrawFn) -> tuple[list[Any], dict[str, Any]]:
    """Random chains over one sample of 24 numbers: batch 1 stays first between the steps."""
    nodes: list[Any] = []
    weights: dict[str, Any] = {}
    current, shape = "x", [1, 2, 3, 4]
    for index in range(draw(st.integers(1, 6))):
        out = f"v{index}"
        kind = draw(st.sampled_from(["Reshape", "Windows", "Transpose", "Bias", "Scale", "Concat"]))
        if kind == "Reshape":
            shape = [1, *draw(st.sampled_from([[24], [4, 6], [2, 12], [3, 2, 4], [1, 24], [24, 1]]))]
            size = int(np.prod(shape))
            if size != 24:
                continue
            listed = list(shape)
            if draw(st.booleans()):
                listed[draw(st.integers(0, len(listed) - 1))] = -1
            weights[f"s{index}"] = listed
            nodes.append(node("Reshape", [current, f"s{index}"], [out]))
        elif kind == "Windows":
            # As in Swin and MaxViT: the batch joins the next dimension, and leaves it again.
            merged = [shape[0] * shape[1], *shape[2:]]
            weights[f"s{index}"], weights[f"t{index}"] = merged, shape
            nodes += [
                node("Reshape", [current, f"s{index}"], [f"m{index}"]),
                node("Sin", [f"m{index}"], [f"n{index}"]),
                node("Reshape", [f"n{index}", f"t{index}"], [out]),
            ]
        elif kind == "Transpose":
            order = draw(st.permutations(range(1, len(shape))))
            shape = [1, *(shape[i] for i in order)]
            nodes.append(node("Transpose", [current], [out], perm=[0, *order]))
        elif kind == "Bias":
            weights[f"b{index}"] = np.linspace(-1, 1, int(np.prod(shape))).reshape(shape)
            nodes.append(node("Add", [current, f"b{index}"], [out]))
        elif kind == "Scale":
            nodes.append(node("Cos", [current], [out]))
        else:
            weights[f"b{index}"] = np.linspace(0, 1, int(np.prod(shape))).reshape(shape)
            nodes += [
                node("Concat", [current, f"b{index}"], [f"m{index}"], axis=len(shape) - 1),
                node("Split", [f"m{index}"], [f"p{index}", f"q{index}"], axis=len(shape) - 1, num_outputs=2),
                node("Add", [f"p{index}", f"q{index}"], [out]),
            ]
        current = out
    nodes.append(node("Flatten", [current], ["y"]))
    return nodes, weights


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(reshapings(), st.integers(2, 5))
def test_any_chain_is_equivalent_or_refused(
    make_model: Make, run: Run, chain: tuple[list[Any], dict[str, Any]], batch: int
) -> None:
    nodes, weights = chain
    model = make_model(nodes, {"x": (1, 2, 3, 4)}, ["y"], weights, opset=18)
    try:
        with_batch(model, batch)
    except BatchRewriteError:
        assume(False)
    assert_equivalent(model, run, batch)


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


def test_open_and_own_batch(make_model: Make, run: Run) -> None:
    model = make_model([node("Relu", ["x"], ["y"])], {"x": ("N", 3)}, {"y": ("N", 3)})
    fixed = with_batch(model, 4)
    assert [d.dim_value for d in fixed.graph.output[0].type.tensor_type.shape.dim] == [4, 3]
    assert with_batch(model, None) == model
    assert with_batch(fixed, 4) == fixed
    back = with_batch(fixed, None)
    assert [d.dim_param or d.dim_value for d in back.graph.input[0].type.tensor_type.shape.dim] == ["N", 3]
    with pytest.raises(BatchRewriteError, match="batch 0"):
        with_batch(model, 0)


def test_the_original_stays_as_it_is(make_model: Make) -> None:
    nodes, shape, weights = PLACES["class token, expanded"]
    model = make_model(nodes, {"x": shape}, ["y"], weights)
    before = model.SerializeToString()
    with_batch(model, 7)
    assert model.SerializeToString() == before


def test_several_inputs_grow_together(make_model: Make, run: Run) -> None:
    model = make_model([node("Add", ["a", "b"], ["c"]), node("Reshape", ["c", "s"], ["y"])],
                       {"a": (1, 6), "b": (1, 6)}, ["y"], {"s": [1, 2, 3]})  # fmt: skip
    a, b = np.arange(18, dtype=np.float32).reshape(3, 6), np.ones((3, 6), np.float32)
    ((found,),) = run(with_batch(model, 3), {"a": a, "b": b})
    assert np.array_equal(found, (a + b).reshape(3, 2, 3))
