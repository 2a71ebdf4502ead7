"""The nine networks that ship with onnx: opset 9, batch 1, weights made by ConstantOfShape."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, shape_inference

from rapp.graph import OperatorGraph, with_batch

Parsed = Callable[[Path], Any]

# Multiply-adds (G) and parameters. Those of VGG 19, ResNet 50 and SqueezeNet 1.1 are the figures that
# torchvision publishes of the same networks; the others are here so that nothing changes unnoticed.
EXPECTED = {
    "light_bvlc_alexnet": (0.655, 60_965_224),
    "light_densenet121": (2.834, None),
    "light_inception_v1": (1.432, None),
    "light_inception_v2": (2.019, None),
    "light_resnet50": (4.089, 25_557_032),
    "light_shufflenet": (0.125, None),
    "light_squeezenet": (0.349, 1_235_496),
    "light_vgg19": (19.632, 143_667_240),
    "light_zfnet512": (1.482, None),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_parses(light: Path, parsed: Parsed, name: str) -> None:
    graph = parsed(light / f"{name}.onnx")
    gmacs, params = EXPECTED[name]
    assert graph.macs(1) / 1e9 == pytest.approx(gmacs, abs=5e-4)
    if params is not None:
        assert graph.params == params
    assert graph.only_batch is None
    assert graph.macs(4) == 4 * graph.macs(1)
    assert "ConstantOfShape" not in graph.op_counts, "weights are no operators"
    assert np.all(graph.edges[0] < graph.edges[1])


@pytest.mark.parametrize("name", EXPECTED)
def test_shapes_agree_with_onnx(light: Path, parsed: Parsed, name: str) -> None:
    """At the file's own batch, every output has the shape that ONNX infers over the whole model."""
    model = shape_inference.infer_shapes(onnx.load(light / f"{name}.onnx"), data_prop=True, strict_mode=True)
    inferred = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in [*model.graph.value_info, *model.graph.output]
    }
    by_name = {node.name or node.output[0]: inferred[node.output[0]] for node in model.graph.node}
    graph = parsed(light / f"{name}.onnx")
    shapes = [tuple(dim(1) for dim in op.output_shapes[0]) for op in graph.operators]
    kept = [node for node in model.graph.node if node.op_type == "Conv"]
    found = [shape for op, shape in zip(graph.operators, shapes, strict=True) if op.op_type == "Conv"]
    assert found == [inferred[node.output[0]] for node in kept]
    named = [(op.name, shape) for op, shape in zip(graph.operators, shapes, strict=True) if op.name]
    assert all(by_name[label] == shape for label, shape in named)


def test_shapes_are_those_that_a_runtime_makes(
    light: Path, randomised: Callable[..., ModelProto], run: Callable[..., list[list[Any]]]
) -> None:
    """ShuffleNet at batch 3: every tensor that ONNX Runtime makes, beside the graph of the file."""
    source = light / "light_shufflenet.onnx"
    graph = OperatorGraph.from_onnx(source)
    model = with_batch(randomised(source), 3)
    names = [node.output[0] for node in model.graph.node if not node.output[0].startswith("batch_")]
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    (made,) = run(model, {"gpu_0/data_0": np.ones((3, 3, 224, 224), np.float32)})
    assert len(made) == len(graph)
    assert [array.shape for array in made] == [
        tuple(dim(3) for dim in op.output_shapes[0]) for op in graph.operators
    ]
    assert [array.nbytes for array in made] == graph.array("output_bytes", 3).tolist()


def test_reading_is_fast(light: Path) -> None:
    """The budget of a scheduler that meets a new network: 0.5 s on one core, import of onnx excluded."""

    def once() -> float:
        start = time.perf_counter()
        OperatorGraph.from_onnx(light / "light_resnet50.onnx")
        return time.perf_counter() - start

    assert min(once() for _ in range(3)) < 0.5
