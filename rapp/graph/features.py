"""What the model sees of an operator graph: one row of numbers an operator, and the edges.

The schema is versioned and hashed into every artifact: a predictor refuses features that are not
those it was trained on.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rapp.graph.operator_graph import Operator, OperatorGraph
from rapp.graph.polynomial import BatchPolynomial

# Operators with a column of their own; every other type, and every custom domain, shares the last
# column and is told apart by its shapes, FLOPs and bytes alone.
OP_TYPES = (
    "Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "BatchNormalization", "LayerNormalization",
    "InstanceNormalization", "GroupNormalization", "LRN", "Relu", "Clip", "Sigmoid", "HardSigmoid",
    "HardSwish", "Gelu", "Tanh", "Erf", "LeakyRelu", "PRelu", "Softmax", "Add", "Sub", "Mul", "Div",
    "Pow", "Sqrt", "Exp", "MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum",
    "ReduceL2", "Concat", "Split", "Slice", "Gather", "Pad", "Resize", "Expand", "Transpose", "Reshape",
    "Flatten", "Squeeze", "Unsqueeze", "Where", "Cast", "Dropout", "Identity", "Sum",
)  # fmt: skip

NUMBERS = (
    "log_macs", "log_flops", "log_input_bytes", "log_output_bytes", "log_weight_bytes", "log_channels_in",
    "log_channels_out", "log_positions_out", "log_kernel_area", "log_stride", "log_groups", "depthwise",
    "grouped", "log_intensity", "log_channels_in_per_group", "log_channels_out_per_group", "is_view",
)  # fmt: skip

COSTS = ("flops", "moved_bytes", "weight_bytes", "output_elements")

FEATURE_VERSION = 1
WIDTH = len(OP_TYPES) + 1 + len(NUMBERS)


def schema_hash() -> str:
    """SHA-256 of the names and order of all columns, 64 hexadecimal digits."""
    text = repr((FEATURE_VERSION, OP_TYPES, NUMBERS, COSTS))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class GraphFeatures:
    """The model's view of one network.

    Args:
        operators: (V, WIDTH) float32; one-hot type, then `NUMBERS`: logarithms of quantities a sample.
        costs: (V, 4) float32, columns `COSTS`: floating point operations, bytes read and written, and
            output elements, each for one sample of the batch; weight bytes for any batch.
        edges: (2, E) int64; row 0 the source, row 1 the target.
    """

    operators: NDArray[np.float32]
    costs: NDArray[np.float32]
    edges: NDArray[np.int64]

    @classmethod
    def of(cls, graph: OperatorGraph) -> GraphFeatures:
        """Features of `graph`; one pass over its operators."""
        only = graph.fixed_batch if graph.only_batch is not None else None
        rows = [_row(operator, only) for operator in graph.operators]
        operators = np.array([row for row, _ in rows], dtype=np.float32).reshape(-1, WIDTH)
        costs = np.array([cost for _, cost in rows], dtype=np.float32).reshape(-1, len(COSTS))
        return cls(operators, costs, np.asarray(graph.edges, dtype=np.int64).reshape(2, -1))


def unknown_types(graph: OperatorGraph) -> frozenset[str]:
    """Operator types of `graph` that share the column for all others."""
    return frozenset(type_name(op) for op in graph.operators if type_name(op) not in OP_TYPES)


# Old exporters write a residual's addition as a Sum of two tensors: the same kernel.
ALIASES = {"Sum": "Add"}


def type_name(operator: Operator) -> str:
    """The operator's type, with its domain in front where that is not ONNX's own."""
    if operator.domain:
        return f"{operator.domain}.{operator.op_type}"
    return ALIASES.get(operator.op_type, operator.op_type)


def _log(value: float) -> float:
    """Tenths of log(1 + x): features stay within a few units of zero."""
    return math.log1p(max(value, 0.0)) / 10


def _row(operator: Operator, only_batch: int | None) -> tuple[list[float], list[float]]:
    one_hot = [0.0] * (len(OP_TYPES) + 1)
    name = type_name(operator)
    one_hot[OP_TYPES.index(name) if name in OP_TYPES else -1] = 1.0

    def a_sample(quantity: BatchPolynomial) -> float:
        """What one more sample of the batch adds, from batches 1 and 2; where there is but one, a share."""
        if only_batch is not None:
            return quantity(only_batch) / only_batch
        return float(max(quantity(2) - quantity(1), 0))

    macs, flops = a_sample(operator.macs), a_sample(operator.flops)
    read, written = a_sample(operator.input_bytes), a_sample(operator.output_bytes)
    weight = float(operator.weight_bytes(1))
    shape_in = [float(d(1)) for d in operator.input_shapes[0]] if operator.input_shapes else []
    shape_out = [float(d(1)) for d in operator.output_shapes[0]] if operator.output_shapes else []
    channels_in = shape_in[1] if len(shape_in) > 1 else 1.0
    channels_out = shape_out[1] if len(shape_out) > 1 else 1.0
    positions = math.prod(shape_out[2:]) if len(shape_out) > 2 else 1.0
    groups = float(operator.attributes.get("group", 1))
    kernel = math.prod(operator.attributes.get("kernel_shape", [1]))
    stride = (operator.attributes.get("strides") or [1])[0]
    numbers = [
        _log(macs), _log(flops), _log(read), _log(written), _log(weight), _log(channels_in),
        _log(channels_out), _log(positions), math.log(max(kernel, 1)) / 4, math.log(max(stride, 1)),
        math.log(max(groups, 1)) / 5, float(groups > 1 and groups == channels_in),
        float(groups > 1 and groups != channels_in), _log(macs / max(read + written + weight, 1.0)),
        _log(channels_in / groups), _log(channels_out / groups), float(operator.is_view),
    ]  # fmt: skip
    # A view moves no data on the device; its row stays, since the host still visits it.
    moved = 0.0 if operator.is_view else read + written
    work = 0.0 if operator.is_view else flops
    return one_hot + numbers, [work, moved, 0.0 if operator.is_view else weight, written / 4]
