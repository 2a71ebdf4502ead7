"""Attributes of an operator, whatever the names in the file and the opset's way to write them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper

from rapp.graph.loading import MAIN_DOMAINS, has_data, is_external
from rapp.graph.operands import DROPPED_ATTRIBUTES, SETTINGS
from rapp.graph.values import Value

# A tensor attribute up to this size is told apart by its values, a larger one is a weight: by type and shape.
LARGEST_VALUE = 64

# Defaults that the definitions of ONNX give in words alone.
NEUTRAL = {"strides": 1, "dilations": 1, "pads": 0, "output_padding": 0}
KERNEL_IN_WEIGHTS = frozenset({"Conv", "ConvTranspose", "ConvInteger", "QLinearConv"})


def canonical_attributes(node: NodeProto, inputs: Sequence[Value | None]) -> dict[str, Any]:
    """Attributes by name, sorted, with the settings that the operator takes as inputs.

    Values are integers, floats, strings, and lists of them.
    """
    own = node.domain in MAIN_DOMAINS
    dropped = DROPPED_ATTRIBUTES.get(node.op_type, frozenset()) if own else frozenset()
    found = {a.name: _plain(a) for a in node.attribute if a.name not in dropped and not a.ref_attr_name}
    settings = SETTINGS.get(node.op_type, {}) if own else {}
    for slot, label in settings.items():
        value = inputs[slot] if slot < len(inputs) else None
        if label is None or value is None or not value.static:
            continue
        arrays = [array for array in value.arrays if array is not None]
        if len(arrays) == len(value.arrays) and all(np.array_equal(array, arrays[0]) for array in arrays):
            found[label] = _finite(arrays[0].tolist())
    return dict(sorted(found.items()))


def hashed_attributes(
    op_type: str, attributes: Mapping[str, Any], schema: onnx.defs.OpSchema | None
) -> dict[str, Any]:
    """`attributes` without those that say the default: some exporters write them out, others do not.

    Args:
        op_type: the operator.
        attributes: as `canonical_attributes` gives them.
        schema: the operator's definition, which holds the defaults; None if it is not known.
    """
    left = {}
    for name, value in attributes.items():
        default = schema.attributes[name].default_value if schema and name in schema.attributes else None
        if default is not None and default.name and _plain(default) == value:
            continue
        if name in NEUTRAL and isinstance(value, list) and all(entry == NEUTRAL[name] for entry in value):
            continue
        if name == "kernel_shape" and op_type in KERNEL_IN_WEIGHTS:
            continue
        left[name] = value
    return left


def _plain(attribute: AttributeProto) -> Any:
    if attribute.type == AttributeProto.GRAPH:
        return subgraph_digest(attribute.g)
    if attribute.type == AttributeProto.GRAPHS:
        return [subgraph_digest(graph) for graph in attribute.graphs]
    if attribute.type == AttributeProto.TENSOR:
        return _tensor(attribute.t)
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, int | float | str):
        return _finite(value)
    if isinstance(value, Sequence) or hasattr(value, "__iter__"):
        return [_finite(v.decode(errors="replace") if isinstance(v, bytes) else v) for v in value]
    return hashlib.sha256(value.SerializeToString(deterministic=True)).hexdigest()


def _tensor(tensor: TensorProto) -> str:
    dtype = TensorProto.DataType.Name(tensor.data_type).lower()
    label = f"{dtype}{list(tensor.dims)}"
    if math.prod(tensor.dims) > LARGEST_VALUE or is_external(tensor) or not has_data(tensor):
        return label
    return f"{label} {onnx.numpy_helper.to_array(tensor).tolist()}"


def _finite(value: Any) -> Any:
    """JSON has no infinities: they become strings."""
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def subgraph_digest(graph: GraphProto) -> str:
    """SHA-256 of the body of a control-flow operator; names count by the order in which they come up."""
    numbers: dict[str, int] = {}

    def number(name: str) -> int:
        return numbers.setdefault(name, len(numbers)) if name else -1

    content = [
        [number(value.name) for value in graph.input],
        [[number(tensor.name), _tensor(tensor)] for tensor in graph.initializer],
        [
            [
                node.domain,
                node.op_type,
                [number(name) for name in node.input],
                [number(name) for name in node.output],
                sorted((a.name, _plain(a)) for a in node.attribute),
            ]
            for node in graph.node
        ],
        [number(value.name) for value in graph.output],
    ]
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()
