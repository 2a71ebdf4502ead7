"""`with_batch`: a network at batch n answers like n runs of the original."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import ModelProto

sys.path.insert(0, str(Path(__file__).parent))

from batch_parts import Make, Run, assert_equivalent, node

from rapp.errors import BatchRewriteError
from rapp.graph import with_batch

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


def test_several_inputs_grow_together(make_model: Make, run: Run) -> None:
    model = make_model([node("Add", ["a", "b"], ["c"]), node("Reshape", ["c", "s"], ["y"])],
                       {"a": (1, 6), "b": (1, 6)}, ["y"], {"s": [1, 2, 3]})  # fmt: skip
    a, b = np.arange(18, dtype=np.float32).reshape(3, 6), np.ones((3, 6), np.float32)
    ((found,),) = run(with_batch(model, 3), {"a": a, "b": b})
    assert np.array_equal(found, (a + b).reshape(3, 2, 3))
