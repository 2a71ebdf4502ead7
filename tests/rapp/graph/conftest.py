"""Networks for the tests: small ones made by hand, and those that ship with onnx, given random weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
ZOO = Path(__file__).resolve().parents[3] / "datasets" / "graphs"

Shapes = dict[str, Sequence[int | str | None]]


def make_model(
    nodes: Sequence[NodeProto],
    inputs: Shapes,
    outputs: Shapes | Sequence[str],
    weights: dict[str, Any] | None = None,
    opset: int = 20,
    value_info: Shapes | None = None,
    domains: Sequence[str] = (),
) -> ModelProto:
    """A float32 network; `weights` are arrays, int lists become int64."""
    tensors = []
    for name, value in (weights or {}).items():
        array = np.asarray(value)
        array = array.astype(np.int64 if np.issubdtype(array.dtype, np.integer) else np.float32)
        tensors.append(numpy_helper.from_array(array, name))
    info = helper.make_tensor_value_info
    if not isinstance(outputs, dict):
        ends = [info(name, TensorProto.FLOAT, None) for name in outputs]
    else:
        ends = [info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    graph = helper.make_graph(
        list(nodes),
        "made",
        [info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        ends,
        tensors,
        value_info=[info(name, TensorProto.FLOAT, shape) for name, shape in (value_info or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=min(10, onnx.IR_VERSION))


def randomised(path: Path, seed: int = 0, variance: float = 1.0) -> ModelProto:
    """A copy with seeded random weights in place of constant or missing ones.

    Scaled so that activations neither die nor explode: a network whose outputs do not depend on its input
    would pass any comparison of outputs. `variance` is what batch normalisation divides by.
    """
    model = onnx.load(path)
    graph = model.graph
    lists = {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.int64_data or t.raw_data}
    made = {
        n.output[0]: [int(dim) for dim in lists[n.input[0]]]
        for n in graph.node
        if n.op_type == "ConstantOfShape"
    }
    made |= {
        t.name: list(t.dims)
        for t in graph.initializer
        if t.data_type == TensorProto.FLOAT and not (t.raw_data or t.float_data)
    }
    variances = {n.input[4] for n in graph.node if n.op_type == "BatchNormalization"}
    scales = {n.input[1] for n in graph.node if n.op_type == "BatchNormalization"}
    # Caffe's networks scale apart from the normalisation, by a Mul with an unsqueezed list.
    factors = {name for n in graph.node if n.op_type == "Mul" for name in n.input}
    scales |= {n.input[0] for n in graph.node if n.op_type == "Unsqueeze" and n.output[0] in factors}
    noise = np.random.default_rng(seed).standard_normal(99_991).astype(np.float32)
    kept = [NodeProto.FromString(n.SerializeToString()) for n in graph.node if n.output[0] not in made]
    tensors = [TensorProto.FromString(t.SerializeToString()) for t in graph.initializer if t.name not in made]
    for name, dims in made.items():
        array = np.resize(np.roll(noise, len(tensors) * 997), dims)
        if name in variances:
            array = variance + 0.1 * np.abs(array)
        elif name in scales:
            array = 1 + 0.1 * array
        elif len(dims) > 1:
            array *= np.sqrt(2 / max(np.prod(dims[1:]), 1))
        else:
            array *= 0.1
        tensors.append(numpy_helper.from_array(array.astype(np.float32), name))
    for tensor in tensors:
        if tensor.data_type == TensorProto.INT64 and not (tensor.raw_data or tensor.int64_data):
            tensor.raw_data = np.zeros(tensor.dims, np.int64).tobytes()
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(tensors)
    return model


def run(model: ModelProto, *feeds: dict[str, Any]) -> list[list[Any]]:
    """Outputs for each of `feeds`, by ONNX Runtime on one core."""
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [list(session.run(None, feed)) for feed in feeds]


@cache
def parsed(path: Path) -> Any:
    """The operator graph of a file, read once a session."""
    from rapp.graph import OperatorGraph

    return OperatorGraph.from_onnx(path)


@pytest.fixture(scope="session", name="make_model")
def _make_model() -> Callable[..., ModelProto]:
    return make_model


@pytest.fixture(scope="session", name="randomised")
def _randomised() -> Callable[..., ModelProto]:
    return randomised


@pytest.fixture(scope="session", name="run")
def _run() -> Callable[..., list[list[Any]]]:
    return run


@pytest.fixture(scope="session", name="parsed")
def _parsed() -> Callable[[Path], Any]:
    return parsed


@pytest.fixture(scope="session")
def light() -> Path:
    """Folder of the nine networks inside the onnx package."""
    return LIGHT


@pytest.fixture(scope="session")
def zoo() -> Path:
    """Folder of the committed operator graphs."""
    return ZOO
