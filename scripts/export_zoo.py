"""Export torchvision's classifiers as structure-only ONNX files for `datasets/graphs/`.

A structure-only file has every operator, attribute, shape and integer constant of the network, but
the initializers that stand for parameters and buffers have dims and a data type and no data. `onnx.load`
reads it, `onnx.shape_inference` works on it, ONNX Runtime refuses it. `datasets/graphs/README.md` is
the card of what this script writes.

    python scripts/export_zoo.py --extras             # all networks into datasets/graphs
    python scripts/export_zoo.py resnet18 vit_b_16    # some
    python scripts/export_zoo.py --size 299 --out other inception_v3

Needs torch, torchvision and onnx (`pip install 'rapp[zoo,train]'`); nothing is downloaded.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator
from torchvision import models

FOLDER = Path(__file__).resolve().parent.parent / "datasets" / "graphs"

# LayerNormalization is an operator from opset 17 on, Gelu from 20 on: as PyTorch eager, one launch each.
# 20 is also the newest that the tracing exporter writes.
OPSET = 20

FAMILIES = (
    "alexnet", "convnext", "densenet", "efficientnet", "googlenet", "inception_v3", "maxvit", "mnasnet",
    "mobilenet", "regnet", "resnet", "resnext", "shufflenet", "squeezenet", "vgg", "wide_resnet",
)  # fmt: skip
EXTRAS = ("vit_", "swin_")

# Constants of more elements than this (the attention masks of Swin) lose their data too: no shape hangs on
# them.
LARGEST_CONSTANT = 64

# Operators that move a weight without computing: PyTorch hands the kernel a view of it instead.
LAYOUT_OPS = {"Transpose", "Unsqueeze", "Squeeze", "Reshape", "Identity", "Flatten"}


def network_names(extras: bool = False) -> list[str]:
    """The 69 classifiers of `FAMILIES`, with `extras` also ViT and Swin."""
    prefixes = FAMILIES + EXTRAS if extras else FAMILIES
    return [name for name in models.list_models(module=models) if name.startswith(prefixes)]


@contextlib.contextmanager
def _no_initialisation() -> Iterator[None]:
    """Weights stay unwritten memory: they are not exported, and 645 M random numbers take minutes."""
    init = torch.nn.init
    saved = {name: getattr(init, name) for name in dir(init) if name.endswith("_") and name[0] != "_"}
    try:
        for name in saved:
            setattr(init, name, lambda tensor, *args, **kwargs: tensor)
        yield
    finally:
        for name, function in saved.items():
            setattr(init, name, function)


def build(name: str, size: int) -> torch.nn.Module:
    """The network in eval mode, weights unwritten, for inputs of `size` x `size` pixels."""
    kwargs: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # Published weights come with auxiliary heads, which eval() does not run.
        kwargs = {"init_weights": False, "transform_input": False}
    if name.startswith("vit_"):
        kwargs = {"image_size": size}
    if name.startswith("maxvit"):
        kwargs = {"input_size": (size, size)}
    with _no_initialisation():
        network = models.get_model(name, weights=None, **kwargs).eval()
    # The exporter merges tensors that are equal, and untouched memory is: make each differ.
    with torch.no_grad():
        for index, tensor in enumerate(network.parameters()):
            tensor.view(-1)[0] = index + 1
        for index, tensor in enumerate(network.buffers()):
            if tensor.is_floating_point():
                tensor.view(-1)[0] = -index - 1
    return network


def export(name: str, size: int = 224) -> onnx.ModelProto:
    """Trace `name` at batch 1 and `size` x `size` pixels into a structure-only model.

    BatchNormalization stays apart from Conv (`TrainingMode.PRESERVE` without constant folding), as in
    eager mode. Computations on shapes are replaced by the integers they result in.
    """
    network = build(name, size)
    # ViT's fused attention has no ONNX counterpart; without it the network calls its parts.
    torch.backends.mha.set_fastpath_enabled(False)
    buffer = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, size, size),),
            buffer,
            input_names=["input"],
            output_names=["output"],
            dynamo=False,
            opset_version=OPSET,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            export_params=False,
        )
    model = onnx.load_from_string(buffer.getvalue())
    _inputs_to_initializers(model.graph)
    while _fold(model):
        pass
    _drop_unused(model.graph)
    _shorten(model.graph)
    model.graph.name = name
    return model


def _inputs_to_initializers(graph: onnx.GraphProto) -> None:
    """`export_params=False` lists the weights as graph inputs: make them initializers without data."""
    for value in list(graph.input):
        if value.name == "input":
            continue
        tensor = graph.initializer.add(name=value.name, data_type=value.type.tensor_type.elem_type)
        tensor.dims.extend(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        graph.input.remove(value)


def _has_data(tensor: onnx.TensorProto) -> bool:
    return (
        bool(tensor.HasField("raw_data") or tensor.int64_data or tensor.float_data or tensor.int32_data)
        or 0 in tensor.dims
    )


def _fold(model: onnx.ModelProto) -> bool:
    """Replace what is known before run time by initializers; True if anything changed."""
    graph = model.graph
    del graph.value_info[:]
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {
        value.name: [
            d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim
        ]
        for value in [*inferred.value_info, *inferred.input]
        if value.type.tensor_type.HasField("shape")
    }
    weights = {tensor.name: tensor for tensor in graph.initializer if not _has_data(tensor)}
    shapes |= {name: list(tensor.dims) for name, tensor in weights.items()}
    known = {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.name not in weights}
    before, kept = len(graph.node), []
    for node in graph.node:
        output = node.output[0]
        shape = shapes.get(node.input[0]) if node.input else None
        if node.op_type == "Shape" and shape is not None and None not in shape:
            value = np.array(shape, np.int64)[_slice_of_shape(node)]
        elif (
            node.input[:1]
            and node.input[0] in weights
            and node.op_type in LAYOUT_OPS
            and None not in shapes.get(output, [None])
        ):
            moved = graph.initializer.add(
                name=output, data_type=weights[node.input[0]].data_type, dims=shapes[output]
            )
            weights[output] = moved
            continue
        elif all(name in known for name in node.input if name) and not node.op_type.startswith("Random"):
            value = _evaluate(node, {name: known[name] for name in node.input if name})
        else:
            kept.append(node)
            continue
        known[output] = value
        graph.initializer.append(numpy_helper.from_array(value, output))
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(kept)
    return len(kept) < before


def _evaluate(node: onnx.NodeProto, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The value of a node with one output, all of whose inputs are known."""
    (output,) = node.output
    declared = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in inputs.items()
    ]
    result = helper.make_empty_tensor_value_info(output)
    single = helper.make_model(
        helper.make_graph([node], "fold", declared, [result]), opset_imports=[helper.make_opsetid("", OPSET)]
    )
    return np.asarray(ReferenceEvaluator(single).run(None, inputs)[0])


def _slice_of_shape(node: onnx.NodeProto) -> slice:
    bounds = {attribute.name: attribute.i for attribute in node.attribute}
    return slice(bounds.get("start"), bounds.get("end"))


def _drop_unused(graph: onnx.GraphProto) -> None:
    kept: list[onnx.NodeProto] = []
    used = {value.name for value in graph.output}
    for node in reversed(graph.node):
        if used.intersection(node.output):
            used.update(node.input)
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
    tensors = [
        onnx.TensorProto.FromString(t.SerializeToString()) for t in graph.initializer if t.name in used
    ]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(tensors)


def _shorten(graph: onnx.GraphProto) -> None:
    """Values are numbered, integer constants are shared; nodes keep their module scope as a name."""
    names: dict[str, str] = {"input": "input", "output": "output"}
    shared: dict[tuple[Any, ...], str] = {}
    tensors = []
    for tensor in graph.initializer:
        if not _has_data(tensor):
            # Parameters keep the names of the state dict; transposed ones get a number.
            names[tensor.name] = tensor.name if re.fullmatch(r"[\w.]+", tensor.name) else f"w{len(names)}"
        else:
            key = (tensor.data_type, tuple(tensor.dims), tensor.raw_data)
            if key in shared:
                names[tensor.name] = shared[key]
                continue
            names[tensor.name] = shared[key] = f"c{len(shared)}"
        copy = onnx.TensorProto.FromString(tensor.SerializeToString())
        copy.name = names[tensor.name]
        if math.prod(copy.dims) > LARGEST_CONSTANT:
            copy.ClearField("raw_data")
        tensors.append(copy)
    del graph.initializer[:]
    graph.initializer.extend(tensors)
    del graph.value_info[:]
    for node in graph.node:
        node.ClearField("doc_string")
        node.name = re.sub(r"/(\w+\.)*", "/", node.name).strip("/") if node.name else ""
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                if name:
                    field[index] = names.setdefault(name, f"v{len(names)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="networks to export; default: all")
    parser.add_argument("--size", type=int, default=224, help="input height and width, pixels; default 224")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write into")
    parser.add_argument("--extras", action="store_true", help="also ViT and Swin")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names or network_names(options.extras):
        model = export(name, options.size)
        data = model.SerializeToString(deterministic=True)
        (options.out / f"{name}.onnx").write_bytes(data)
        print(f"{name:22} {len(model.graph.node):5} operators {len(data) / 1e3:8.1f} kB", flush=True)


if __name__ == "__main__":
    main()
