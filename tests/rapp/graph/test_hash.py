"""The hash of the canonical DAG: what it must not see, and what it must."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, helper

from rapp.graph import OperatorGraph, with_batch

node = helper.make_node
Make = Callable[..., ModelProto]
relaxed = settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))


def _hash(model: ModelProto) -> str:
    return OperatorGraph.from_onnx(model).graph_hash


@st.composite
def recipes(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """A random DAG over tensors of shape (N, 4, 6, 6): each entry is an operator and the values it reads."""
    steps = []
    for index in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(["Relu", "Sigmoid", "Add", "Mul", "Conv", "MaxPool"]))
        reads = [draw(st.integers(0, index)) for _ in range(2 if kind in ("Add", "Mul") else 1)]
        steps.append((kind, *reads))
    return steps


def build(
    make_model: Make, recipe: list[tuple[Any, ...]], batch: int | str = "N", attribute: int = 1
) -> ModelProto:
    nodes, weights, read = [], {}, set()
    for index, (kind, *reads) in enumerate(recipe, start=1):
        names = [f"v{i}" for i in reads]
        read.update(reads)
        if kind == "Conv":
            weights[f"w{index}"] = np.full((4, 4, 3, 3), 0.1 * index)
            dilation = {"dilations": [attribute] * 2, "pads": [attribute] * 4}
            nodes.append(node("Conv", [*names, f"w{index}"], [f"v{index}"], name=f"n{index}", **dilation))
        elif kind == "MaxPool":
            nodes.append(node("MaxPool", names, [f"v{index}"], kernel_shape=[3, 3], pads=[1] * 4))
        else:
            nodes.append(node(kind, names, [f"v{index}"]))
    ends = {f"v{i}": [batch, 4, 6, 6] for i in range(1, len(recipe) + 1) if i not in read}
    return make_model(nodes, {"v0": [batch, 4, 6, 6]}, ends, weights)


def renamed(model: ModelProto, seed: int) -> ModelProto:
    """Other names for everything, another order of nodes and initializers, another producer."""
    rng, names = random.Random(seed), {}
    copy = ModelProto()
    copy.CopyFrom(model)

    def new(name: str) -> str:
        return names.setdefault(name, f"{rng.random():.12f}") if name else ""

    waiting, done = list(copy.graph.node), {"v0", *(tensor.name for tensor in copy.graph.initializer)}
    nodes: list[NodeProto] = []
    while waiting:
        ready = [n for n in waiting if all(name in done for name in n.input)]
        chosen = rng.choice(ready)
        waiting.remove(chosen)
        done.update(chosen.output)
        nodes.append(chosen)
    nodes = [NodeProto.FromString(n.SerializeToString()) for n in nodes]
    tensors = [onnx.TensorProto.FromString(t.SerializeToString()) for t in copy.graph.initializer]
    rng.shuffle(tensors)
    for n in nodes:
        n.name = new(n.name)
        n.input[:], n.output[:] = map(new, n.input), map(new, n.output)
        attributes = list(n.attribute)
        rng.shuffle(attributes)
        attributes = [onnx.AttributeProto.FromString(a.SerializeToString()) for a in attributes]
        del n.attribute[:]
        n.attribute.extend(attributes)
    for tensor in tensors:
        tensor.name = new(tensor.name)
        tensor.raw_data = bytes(len(tensor.raw_data))
    for value in [*copy.graph.input, *copy.graph.output]:
        value.name = new(value.name)
    del copy.graph.node[:], copy.graph.initializer[:]
    copy.graph.node.extend(nodes)
    copy.graph.initializer.extend(tensors)
    copy.graph.name, copy.producer_name, copy.producer_version = "other", "another", "9"
    return copy


@relaxed
@given(recipes(), st.integers(0, 2**32))
def test_names_order_weights_and_producer_do_not_matter(
    make_model: Make, recipe: list[tuple[Any, ...]], seed: int
) -> None:
    model = build(make_model, recipe)
    other = renamed(model, seed)
    assert _hash(model) == _hash(other)


@relaxed
@given(recipes(), st.sampled_from([1, 2, 3, 7]))
def test_a_fixed_batch_hashes_like_an_open_one(
    make_model: Make, recipe: list[tuple[Any, ...]], batch: int
) -> None:
    fixed, opened = (OperatorGraph.from_onnx(build(make_model, recipe, b)) for b in (batch, "N"))
    assert fixed.graph_hash == opened.graph_hash
    assert fixed.fixed_batch == batch
    assert opened.fixed_batch is None
    assert fixed.operators == opened.operators


@relaxed
@given(recipes())
def test_attributes_types_and_shapes_matter(make_model: Make, recipe: list[tuple[Any, ...]]) -> None:
    convolutional = [*recipe, ("Conv", len(recipe)), ("Relu", len(recipe) + 1)]
    model = build(make_model, convolutional)
    assert _hash(model) != _hash(build(make_model, convolutional, attribute=2))
    assert _hash(model) != _hash(build(make_model, [*convolutional[:-1], ("Sigmoid", len(recipe) + 1)]))
    wider = build(make_model, convolutional)
    for value in [*wider.graph.input, *wider.graph.output]:
        value.type.tensor_type.shape.dim[3].dim_value = 8
    assert _hash(model) != _hash(wider)
    doubles = build(make_model, convolutional)
    for value in [*doubles.graph.input, *doubles.graph.output]:
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    for tensor in doubles.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    assert _hash(model) != _hash(doubles)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # One operator read twice, or two equal ones.
        (
            [("Relu", 0), ("Sigmoid", 1), ("MaxPool", 1)],
            [("Relu", 0), ("Relu", 0), ("Sigmoid", 1), ("MaxPool", 2)],
        ),
        # Equal operators, differently shared: (A, A) and (C), or (A) and (A, C).
        (
            [("Relu", 0), ("Relu", 0), ("Sigmoid", 1), ("Sigmoid", 1), ("MaxPool", 2)],
            [("Relu", 0), ("Relu", 0), ("Sigmoid", 1), ("Sigmoid", 2), ("MaxPool", 2)],
        ),
        ([("Relu", 0), ("Sigmoid", 1)], [("Sigmoid", 0), ("Relu", 1)]),
        ([("Relu", 0), ("Add", 0, 1)], [("Relu", 0), ("Add", 1, 1)]),
    ],
)
def test_wiring_matters(make_model: Make, one: list[tuple[Any, ...]], other: list[tuple[Any, ...]]) -> None:
    assert _hash(build(make_model, one)) != _hash(build(make_model, other))


def test_the_order_of_operands_matters(make_model: Make) -> None:
    nodes = [node("Relu", ["x"], ["r"]), node("Sigmoid", ["x"], ["s"])]
    shape = {"x": ["N", 3]}
    one = make_model([*nodes, node("Sub", ["r", "s"], ["y"])], shape, ["y"])
    other = make_model([*nodes, node("Sub", ["s", "r"], ["y"])], shape, ["y"])
    assert _hash(one) != _hash(other)


def test_settings_as_attributes_or_as_inputs_are_the_same(make_model: Make) -> None:
    """Opsets 11 and 13 moved the bounds of Clip and the axes of Unsqueeze from attributes to inputs."""
    old = make_model(
        [
            node("Clip", ["x"], ["c"], min=0.0, max=6.0),
            node("ReduceSum", ["c"], ["r"], axes=[2], keepdims=0),
            node("Unsqueeze", ["r"], ["y"], axes=[1]),
        ],
        {"x": ["N", 3, 4]},
        ["y"],
        opset=10,
    )
    new = make_model(
        [
            node("Constant", [], ["low"], value_float=0.0),
            node("Clip", ["x", "low", "high"], ["c"]),
            node("ReduceSum", ["c", "two"], ["r"], keepdims=0),
            node("Unsqueeze", ["r", "one"], ["y"]),
        ],
        {"x": ["N", 3, 4]},
        ["y"],
        {"high": np.float32(6), "two": [2], "one": [1]},
        opset=18,
    )
    assert _hash(old) == _hash(new)
    other = make_model([node("Clip", ["x"], ["c"], min=0.0, max=1.0)], {"x": ["N", 3]}, ["c"], opset=10)
    same = make_model([node("Clip", ["x"], ["c"], min=0.0, max=6.0)], {"x": ["N", 3]}, ["c"], opset=10)
    assert _hash(other) != _hash(same)


def test_defaults_may_be_written_out(make_model: Make) -> None:
    weights = {"w": np.ones((4, 4, 3, 3)), "s": np.ones(4)}
    short = [
        node("Conv", ["x", "w"], ["c"]),
        node("BatchNormalization", ["c", "s", "s", "s", "s"], ["b"]),
        node("Softmax", ["b"], ["y"]),
    ]
    written = [
        node(
            "Conv",
            ["x", "w"],
            ["c"],
            kernel_shape=[3, 3],
            strides=[1, 1],
            pads=[0] * 4,
            dilations=[1, 1],
            group=1,
        ),
        node("BatchNormalization", ["c", "s", "s", "s", "s"], ["b"], epsilon=1e-5, momentum=0.9),
        node("Softmax", ["b"], ["y"], axis=-1),
    ]
    other = [short[0], node("BatchNormalization", ["c", "s", "s", "s", "s"], ["b"], epsilon=1e-3), short[2]]
    shape = {"x": ["N", 4, 6, 6]}
    one, same, different = (
        _hash(make_model(nodes, shape, ["y"], weights)) for nodes in (short, written, other)
    )
    assert one == same
    assert one != different


@pytest.mark.parametrize("name", ["light_shufflenet", "light_squeezenet"])
def test_rewriting_keeps_the_hash(light: Path, name: str) -> None:
    path = light / f"{name}.onnx"
    wanted = OperatorGraph.from_onnx(path).graph_hash
    assert {_hash(with_batch(path, batch)) for batch in (1, 2, 5, None)} == {wanted}


def test_the_hash_is_what_it_was(light: Path) -> None:
    """Profile tables and calibrations are keyed by it: if this fails, they all lose their networks."""
    graph = OperatorGraph.from_onnx(light / "light_squeezenet.onnx")
    assert graph.graph_hash == "d0ae238ac85b97d7b6024d33ab1ce320af964deb17c583c610f4238e7e0e0878"
