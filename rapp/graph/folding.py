"""Values of operators that can be told before the network runs: the arithmetic on shapes.

Exporters compute the target of a Reshape with chains such as Shape, Gather, Concat. Everything here works on
small arrays (`loading.LARGEST_FOLDED`); operators outside the table go to ONNX's reference implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper

Array = NDArray[Any]
Attributes = dict[str, Any]

RANDOM_OPS = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)


def evaluate(node: NodeProto, inputs: Sequence[Array | None], opset: int) -> list[Array] | None:
    """The outputs of `node`, or None if they cannot be told.

    Args:
        node: an operator of ONNX's own domain without subgraphs.
        inputs: one array per input of the node, None for an input that is left out.
        opset: version of the operator set.
    """
    if node.op_type in RANDOM_OPS:
        return None
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    rule = _RULES.get(node.op_type)
    try:
        if rule is not None:
            return [np.asarray(array) for array in rule(list(inputs), attributes)]
        return _reference(node, inputs, opset)
    except Exception:
        # A value that cannot be folded is not an error: shape inference has the last word.
        return None


def _reference(node: NodeProto, inputs: Sequence[Array | None], opset: int) -> list[Array] | None:
    from onnx.reference import ReferenceEvaluator

    feeds = {name: array for name, array in zip(node.input, inputs, strict=True) if array is not None}
    declared = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    results = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph([node], "fold", declared, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    found = iter(ReferenceEvaluator(model).run(None, feeds))
    outputs = [next(found) if name else np.zeros(0) for name in node.output]
    return outputs if all(isinstance(output, np.ndarray | np.generic) for output in outputs) else None


def _constant(inputs: list[Array | None], attributes: Attributes) -> list[Array]:
    (name, value), *_ = attributes.items()
    if name == "value":
        return [onnx.numpy_helper.to_array(value)]
    dtype = np.float32 if "float" in name else np.int64
    if name not in ("value_float", "value_floats", "value_int", "value_ints"):
        raise ValueError(name)
    return [np.array(value, dtype)]


def _constant_of_shape(inputs: list[Array | None], attributes: Attributes) -> list[Array]:
    fill = (
        onnx.numpy_helper.to_array(attributes["value"]) if "value" in attributes else np.zeros(1, np.float32)
    )
    return [np.full(_ints(inputs[0]), fill.reshape(()), fill.dtype)]


def _cast(inputs: list[Array | None], attributes: Attributes) -> list[Array]:
    return [_given(inputs[0]).astype(helper.tensor_dtype_to_np_dtype(attributes["to"]))]


def _concat(inputs: list[Array | None], attributes: Attributes) -> list[Array]:
    return [np.concatenate([_given(array) for array in inputs], axis=attributes["axis"])]


def _gather(inputs: list[Array | None], attributes: Attributes) -> list[Array]:
    return [np.take(_given(inputs[0]), _given(inputs[1]), axis=attributes.get("axis", 0))]


def _slice(inputs: list[Array | None], attributes: Attributes) -> list[Array]:
    data = _given(inputs[0])
    if len(inputs) == 1:
        starts, ends, axes, steps = attributes["starts"], attributes["ends"], attributes.get("axes"), None
    else:
        starts, ends = _ints(inputs[1]), _ints(inputs[2])
        axes = _ints(inputs[3]) if len(inputs) > 3 and inputs[3] is not None else None
        steps = _ints(inputs[4]) if len(inputs) > 4 and inputs[4] is not None else None
    index = [slice(None)] * data.ndim
    axes = axes if axes is not None else range(len(starts))
    for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(starts), strict=True):
        # A start or end far below zero means "from the front"; Python would wrap -2^63 the same way.
        index[axis] = slice(start, None if step < 0 and end < -data.shape[axis] else end, step)
    return [data[tuple(index)]]


def _axes(inputs: list[Array | None], attributes: Attributes) -> tuple[int, ...] | None:
    if len(inputs) > 1 and inputs[1] is not None:
        return tuple(_ints(inputs[1]))
    return tuple(attributes["axes"]) if "axes" in attributes else None


def _unsqueeze(inputs: list[Array | None], attributes: Attributes) -> list[Array]:
    return [np.expand_dims(_given(inputs[0]), _axes(inputs, attributes) or ())]


def _squeeze(inputs: list[Array | None], attributes: Attributes) -> list[Array]:
    return [np.squeeze(_given(inputs[0]), _axes(inputs, attributes))]


def _reshape(inputs: list[Array | None], attributes: Attributes) -> list[Array]:
    data = _given(inputs[0])
    target = [
        data.shape[i] if dim == 0 and not attributes.get("allowzero") else dim
        for i, dim in enumerate(_ints(inputs[1]))
    ]
    return [data.reshape(target)]


def _expand(inputs: list[Array | None], attributes: Attributes) -> list[Array]:
    data = _given(inputs[0])
    return [np.broadcast_to(data, np.broadcast_shapes(data.shape, tuple(_ints(inputs[1]))))]


def _range(inputs: list[Array | None], attributes: Attributes) -> list[Array]:
    start, limit, delta = (_given(array) for array in inputs)
    return [np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)]


def _div(inputs: list[Array | None], attributes: Attributes) -> list[Array]:
    a, b = _given(inputs[0]), _given(inputs[1])
    if not np.issubdtype(a.dtype, np.integer):
        return [a / b]
    # ONNX rounds integer quotients towards zero.
    return [(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)]


def _elementwise(function: Callable[..., Any]) -> Callable[[list[Array | None], Attributes], list[Array]]:
    def rule(inputs: list[Array | None], attributes: Attributes) -> list[Array]:
        arrays = [_given(array) for array in inputs]
        result = arrays[0] if len(arrays) > 1 else function(arrays[0])
        for other in arrays[1:]:
            result = function(result, other)
        return [result]

    return rule


def _reduce(function: Callable[..., Any]) -> Callable[[list[Array | None], Attributes], list[Array]]:
    def rule(inputs: list[Array | None], attributes: Attributes) -> list[Array]:
        data, axes = _given(inputs[0]), _axes(inputs, attributes)
        if not axes and attributes.get("noop_with_empty_axes"):
            return [data]
        kept = bool(attributes.get("keepdims", 1))
        return [function(data, axis=axes or None, keepdims=kept).astype(data.dtype)]

    return rule


def _where(inputs: list[Array | None], attributes: Attributes) -> list[Array]:
    return [np.where(_given(inputs[0]), _given(inputs[1]), _given(inputs[2]))]


def _given(array: Array | None) -> Array:
    if array is None:
        raise ValueError("an input that the operator needs is left out")
    return array


def _ints(array: Array | None) -> list[int]:
    return [int(value) for value in _given(array).reshape(-1)]


_RULES: dict[str, Callable[[list[Array | None], Attributes], list[Array]]] = {
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Cast": _cast,
    "Concat": _concat,
    "Gather": _gather,
    "Slice": _slice,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Expand": _expand,
    "Range": _range,
    "Div": _div,
    "Where": _where,
    "Identity": lambda inputs, attributes: [_given(inputs[0])],
    "Shape": lambda inputs, attributes: [
        np.array(_given(inputs[0]).shape, np.int64)[attributes.get("start", 0) : attributes.get("end")]
    ],
    "Size": lambda inputs, attributes: [np.array(_given(inputs[0]).size, np.int64)],
    "Add": _elementwise(np.add),
    "Sub": _elementwise(np.subtract),
    "Mul": _elementwise(np.multiply),
    "Min": _elementwise(np.minimum),
    "Max": _elementwise(np.maximum),
    "Equal": _elementwise(np.equal),
    "Less": _elementwise(np.less),
    "Greater": _elementwise(np.greater),
    "And": _elementwise(np.logical_and),
    "Or": _elementwise(np.logical_or),
    "Not": _elementwise(np.logical_not),
    "Neg": _elementwise(np.negative),
    "Abs": _elementwise(np.abs),
    "Floor": _elementwise(np.floor),
    "Ceil": _elementwise(np.ceil),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
}
