"""Shapes of one operator's outputs from the shapes of its inputs, by ONNX's own inference functions.

Node by node rather than over a whole model, since the caller folds the arithmetic on shapes in between and
mends baked batches. Answers are kept: a deep network repeats few different operators.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, TypeProto, helper, shape_inference

from rapp.graph.loading import MAIN_DOMAINS

Array = NDArray[Any]

# Operators whose output has the shape and data type of their first input, and that ONNX has no inference for
# (it knows them by their function body alone), or that ONNX Runtime adds when it optimises a graph.
SAME_AS_INPUT = frozenset(
    {"GroupNormalization", "MeanVarianceNormalization", "FastGelu", "QuickGelu", "BiasGelu", "Gelu"}
)
# ONNX Runtime's fused operators that have the shape rule of an operator of ONNX.
ALIASES = {("com.microsoft", "FusedConv"): "Conv", ("com.microsoft", "FusedGemm"): "Gemm"}


class TensorType(NamedTuple):
    """Data type (`TensorProto.DataType`) and shape; a dimension that is not known is None."""

    elem: int
    shape: tuple[int | None, ...] | None

    @property
    def dims(self) -> tuple[int, ...] | None:
        """The shape if every dimension is a number, else None."""
        if self.shape is None or None in self.shape:
            return None
        return tuple(dim for dim in self.shape if dim is not None)


# A sequence, optional or map is kept as its serialised TypeProto.
ValueType = TensorType | bytes


class InferenceFailed(Exception):  # noqa: N818  an outcome, not an error yet
    """The shapes of the inputs contradict each other or the operator."""


def type_from_proto(proto: TypeProto, dims: Mapping[str, int] | None = None) -> ValueType | None:
    """The type that `proto` declares, with symbols replaced by `dims`; None if it declares nothing."""
    if not proto.HasField("tensor_type"):
        return proto.SerializeToString() if proto.WhichOneof("value") else None
    tensor = proto.tensor_type
    if not tensor.HasField("shape"):
        return TensorType(tensor.elem_type, None)
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else (dims or {}).get(dim.dim_param)
        for dim in tensor.shape.dim
    )
    return TensorType(tensor.elem_type, shape)


def type_to_proto(value: ValueType) -> TypeProto:
    """The inverse of `type_from_proto`."""
    if isinstance(value, bytes):
        return TypeProto.FromString(value)
    return helper.make_tensor_type_proto(value.elem, value.shape)


class NodeInference:
    """Infers output types; one instance a model, since answers hang on its operator sets."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._versions = {"" if e.domain in MAIN_DOMAINS else e.domain: e.version for e in model.opset_import}
        self._opset_imports = list(model.opset_import)
        self._answers: dict[object, list[ValueType | None]] = {}
        self._schemas: dict[tuple[str, str], onnx.defs.OpSchema | None] = {}

    def schema(self, node: NodeProto) -> onnx.defs.OpSchema | None:
        """The definition of the operator, or None for an operator that ONNX does not know."""
        domain = "" if node.domain in MAIN_DOMAINS else node.domain
        key = (domain, node.op_type)
        if key not in self._schemas:
            version = self._versions.get(domain)
            try:
                if key in ALIASES:
                    found = onnx.defs.get_schema(ALIASES[key], self._versions.get("", 13), "")
                else:
                    found = onnx.defs.get_schema(node.op_type, version, domain) if version else None
            except onnx.defs.SchemaError:
                found = None
            self._schemas[key] = found
        return self._schemas[key]

    def outputs(
        self,
        node: NodeProto,
        types: Sequence[ValueType | None],
        data: Sequence[Array | None],
        outer: Mapping[str, ValueType],
    ) -> list[ValueType | None]:
        """Types of the outputs of `node`, None where nothing is known.

        Args:
            node: the operator.
            types: one entry an input; None for an input that is left out.
            data: the value of each input, where it is known.
            outer: types of the values that the operator's subgraphs capture.

        Raises:
            InferenceFailed: the inputs do not fit the operator.
        """
        if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
            return self._infer(node, list(node.input), types, data, outer)
        attributes = b"".join(a.SerializeToString() for a in node.attribute)
        known = tuple(None if d is None or d.ndim > 1 else (d.dtype.str, d.shape, d.tobytes()) for d in data)
        key = (node.domain, node.op_type, attributes, tuple(types), known, tuple(map(bool, node.output)))
        if key not in self._answers:
            names = [f"i{i}" if name else "" for i, name in enumerate(node.input)]
            self._answers[key] = self._infer(node, names, types, data, {})
        return self._answers[key]

    def _infer(
        self,
        node: NodeProto,
        names: list[str],
        types: Sequence[ValueType | None],
        data: Sequence[Array | None],
        outer: Mapping[str, ValueType],
    ) -> list[ValueType | None]:
        schema = self.schema(node)
        if node.op_type in SAME_AS_INPUT and (
            schema is None or not schema.has_type_and_shape_inference_function
        ):
            return [types[0]] + [None] * (len(node.output) - 1)
        if schema is None:
            return [None] * len(node.output)
        if any(kind is None for name, kind in zip(names, types, strict=True) if name):
            return [None] * len(node.output)
        copy = NodeProto(op_type=schema.name, domain=schema.domain, input=names, attribute=node.attribute)
        copy.output.extend(f"o{i}" if name else "" for i, name in enumerate(node.output))
        if schema.name != node.op_type:
            known = [attribute for attribute in copy.attribute if attribute.name in schema.attributes]
            del copy.attribute[:]
            copy.attribute.extend(known)
        protos = {name: type_to_proto(kind) for name, kind in outer.items()}
        protos |= {
            name: type_to_proto(kind) for name, kind in zip(names, types, strict=True) if name and kind
        }
        tensors: dict[str, TensorProto] = {
            name: onnx.numpy_helper.from_array(array)
            for name, array in zip(names, data, strict=True)
            if name and array is not None and array.ndim <= 1
        }
        try:
            found = shape_inference.infer_node_outputs(
                schema, copy, protos, tensors, opset_imports=self._opset_imports
            )
        except Exception as error:
            # InferenceError, or a RuntimeError or ValueError of the C++ checks.
            raise InferenceFailed(_reason(error)) from error
        return [
            type_from_proto(found[f"o{i}"]) if f"o{i}" in found else None for i in range(len(node.output))
        ]


def _reason(error: Exception) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text.rsplit("[ShapeInferenceError]", 1)[-1].rsplit("[TypeInferenceError]", 1)[-1].strip()


def check_sizes(
    node: NodeProto, shapes: Sequence[tuple[int, ...] | None], found: Sequence[ValueType | None], group: int
) -> None:
    """What ONNX's inference leaves unchecked: the channels of a Conv, the inner sizes of a Gemm, a Reshape's
    count.

    Raises:
        InferenceFailed: they do not agree.
    """
    x, w = shapes[0] if shapes else None, shapes[1] if len(shapes) > 1 else None
    if node.op_type == "Reshape" and x is not None:
        kind = found[0]
        dims = kind.dims if isinstance(kind, TensorType) else None
        if dims is not None and math.prod(x) != math.prod(dims):
            raise InferenceFailed(f"it reshapes {list(x)} to {list(dims)}")
    if not x or not w or len(x) < 2 or len(w) < 2:
        return
    if node.op_type in ("Conv", "FusedConv") and x[1] != w[1] * group:
        raise InferenceFailed(f"its input has {x[1]} channels, its weights want {w[1] * group}")
    if node.op_type == "Gemm":
        flags = {a.name: a.i for a in node.attribute}
        inner = x[0] if flags.get("transA") else x[1], w[1] if flags.get("transB") else w[0]
        if inner[0] != inner[1]:
            raise InferenceFailed(f"its inputs are {inner[0]} and {inner[1]} wide")
