"""Work of one operator as a function of the batch.

`macs` are multiply-adds of convolutions and matrix products, and nothing else: what torchvision publishes as
GFLOPS and fvcore, ptflops and thop count by default. `flops` are `2 * macs` plus the operations of all other
operators, by the table below: one for each element that a simple function makes, in the manner of fvcore
(`fvcore/nn/jit_handles.py`: batch norm 2, layer norm 5 an element). They are an order of magnitude for
operators that are bound by memory anyway; their bytes matter more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from rapp.graph.polynomial import BatchPolynomial, Shape, as_polynomial, product

ZERO = BatchPolynomial()

Shapes = Sequence[Shape | None]
Rule = Callable[[Mapping[str, Any], Shapes, Shapes], BatchPolynomial]

# Operators that give back elements of their input, or nothing but a new shape.
MOVES = frozenset(
    [
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Identity",
        "Dropout",
        "Transpose",
        "Concat",
        "Split",
        "Slice",
        "Gather",
        "GatherElements",
        "GatherND",
        "Expand",
        "Tile",
        "Pad",
        "Cast",
        "CastLike",
        "Shape",
        "Size",
        "ConstantOfShape",
        "Constant",
        "ScatterND",
        "ScatterElements",
        "Scatter",
        "DepthToSpace",
        "SpaceToDepth",
        "Where",
        "Compress",
        "ReverseSequence",
        "Unique",
        "NonZero",
        "OneHot",
        "Trilu",
        "EyeLike",
        "Range",
        "SequenceAt",
        "SplitToSequence",
        "SequenceConstruct",
        "ConcatFromSequence",
        "SequenceInsert",
        "SequenceErase",
        "SequenceEmpty",
        "SequenceLength",
        "Optional",
        "OptionalGetElement",
        "OptionalHasElement",
        "If",
        "Loop",
        "Scan",
        "CenterCropPad",
        "Col2Im",
        "TensorScatter",
    ]
)

# Operators that do not move data: PyTorch answers with a view of the same memory and launches nothing.
VIEWS = frozenset(
    {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Slice", "Split", "Expand"}
)

# Operations for each element of the output; 1 for what is not named.
PER_OUTPUT_ELEMENT: dict[str, int] = {
    "BatchNormalization": 2,
    "InstanceNormalization": 5,
    "GroupNormalization": 5,
    "LayerNormalization": 5,
    "RMSNormalization": 4,
    "MeanVarianceNormalization": 5,
    "LpNormalization": 3,
    "Softmax": 5,
    "LogSoftmax": 5,
    "Sigmoid": 4,
    "Tanh": 5,
    "Gelu": 8,
    "FastGelu": 8,
    "QuickGelu": 5,
    "BiasGelu": 9,
    "Erf": 8,
    "HardSwish": 4,
    "HardSigmoid": 3,
    "Swish": 5,
    "Mish": 8,
    "Elu": 3,
    "Selu": 4,
    "Celu": 4,
    "Softplus": 3,
    "Softsign": 3,
    "Clip": 2,
    "QuantizeLinear": 3,
    "DequantizeLinear": 2,
    "DynamicQuantizeLinear": 4,
}


@lru_cache(maxsize=4096)
def elements(shape: Shape) -> BatchPolynomial:
    """Element count of a tensor."""
    return product(shape)


def multiply_adds(
    op_type: str,
    attributes: Mapping[str, Any],
    inputs: Shapes,
    outputs: Shapes,
) -> BatchPolynomial:
    """Multiply-adds of a convolution, matrix product, recurrent or attention operator; 0 for all others.

    Args:
        op_type: the operator.
        attributes: its attributes.
        inputs: shapes of all inputs in their order, weights included; None for one that is left out.
        outputs: shapes of the outputs.
    """
    rule: Rule | None = _MACS.get(op_type)
    needed = _NEEDED_INPUTS.get(op_type, 2)
    if rule is None or len(inputs) < needed or None in inputs[:needed] or not outputs or outputs[0] is None:
        return ZERO
    return rule(attributes, inputs, outputs)


def operations(
    op_type: str,
    attributes: Mapping[str, Any],
    inputs: Shapes,
    outputs: Shapes,
    macs: BatchPolynomial,
) -> BatchPolynomial:
    """Floating point operations: `2 * macs`, and for other operators the table of this module."""
    made = elements(outputs[0]) if outputs and outputs[0] is not None else ZERO
    read = elements(inputs[0]) if inputs and inputs[0] is not None else ZERO
    if op_type in _MACS:
        # A bias adds one operation for each element of the output.
        biased = len(inputs) > _BIAS_SLOT.get(op_type, 99) and inputs[_BIAS_SLOT[op_type]] is not None
        return 2 * macs + (made if biased else ZERO)
    if op_type in MOVES:
        return ZERO
    if op_type in ("MaxPool", "AveragePool", "LpPool"):
        return made * int(math.prod(attributes.get("kernel_shape", (1,))))
    if op_type.startswith(("GlobalAverage", "GlobalMax", "GlobalLp", "Reduce", "Arg")) or op_type == "CumSum":
        return read
    if op_type == "LRN":
        return made * (2 * int(attributes.get("size", 1)) + 3)
    if op_type in ("Sum", "Max", "Min", "Mean"):
        return made * max(sum(shape is not None for shape in inputs) - 1, 1)
    if op_type in ("Resize", "Upsample"):
        nearest = attributes.get("mode", "nearest") == "nearest"
        return ZERO if nearest else made * 7
    return made * PER_OUTPUT_ELEMENT.get(op_type, 1)


def _conv(attributes: Mapping[str, Any], inputs: Shapes, outputs: Shapes) -> BatchPolynomial:
    # Each output element sums over the input channels of its group and the kernel: weights are (M, C/group,
    # k...).
    return elements(_at(outputs, 0)) * product(_at(inputs, 1)[1:])


def _qlinear_conv(attributes: Mapping[str, Any], inputs: Shapes, outputs: Shapes) -> BatchPolynomial:
    return elements(_at(outputs, 0)) * product(_at(inputs, 3)[1:])


def _conv_transpose(attributes: Mapping[str, Any], inputs: Shapes, outputs: Shapes) -> BatchPolynomial:
    # Each input element is spread over the kernel and the output channels of its group: weights are (C,
    # M/group, k...).
    return elements(_at(inputs, 0)) * product(_at(inputs, 1)[1:])


def _gemm(attributes: Mapping[str, Any], inputs: Shapes, outputs: Shapes) -> BatchPolynomial:
    return elements(_at(outputs, 0)) * _at(inputs, 0)[0 if attributes.get("transA") else 1]


def _matmul(attributes: Mapping[str, Any], inputs: Shapes, outputs: Shapes) -> BatchPolynomial:
    return elements(_at(outputs, 0)) * _at(inputs, 0)[-2 if attributes.get("transA") else -1]


def _einsum(attributes: Mapping[str, Any], inputs: Shapes, outputs: Shapes) -> BatchPolynomial:
    # One multiply-add for each combination of indices. With three operands and more a runtime contracts
    # pairwise.
    left, _, _ = str(attributes["equation"]).replace(" ", "").partition("->")
    sizes: dict[str, BatchPolynomial] = {}
    for term, shape in zip(left.split(","), inputs, strict=False):
        if shape is None:
            continue
        spare = len(shape) - len(term.replace("...", ""))
        # Dimensions under an ellipsis are aligned from the right.
        filler = "".join(chr(ord("0") + spare - 1 - i) for i in range(spare))
        for letter, dim in zip(term.replace("...", filler), shape, strict=False):
            if letter not in sizes or sizes[letter] == as_polynomial(1):
                sizes[letter] = dim
    return product(sizes.values()) if len(inputs) > 1 else ZERO


def _recurrent(attributes: Mapping[str, Any], inputs: Shapes, outputs: Shapes) -> BatchPolynomial:
    # X is (steps, batch, I), W (directions, gates * H, I), R (directions, gates * H, H).
    steps = product(_at(inputs, 0)[:2])
    return steps * (product(_at(inputs, 1)) + product(_at(inputs, 2)))


def _attention(attributes: Mapping[str, Any], inputs: Shapes, outputs: Shapes) -> BatchPolynomial:
    # softmax(Q K^T) V: Q is (batch, heads, queries, d) or (batch, queries, heads * d), and so on.
    q, k, v = _at(inputs, 0), _at(inputs, 1), _at(inputs, 2)
    keys = k[-2]
    if len(q) == 4:
        return elements(q) * keys + q[0] * q[1] * q[2] * keys * v[3]
    heads = int(attributes.get("q_num_heads", 1))
    value_width = v[-1] if attributes.get("kv_num_heads", heads) == heads else q[-1]
    return elements(q) * keys + q[0] * q[1] * keys * value_width


def _at(shapes: Shapes, index: int) -> Shape:
    shape = shapes[index] if index < len(shapes) else None
    return shape if shape is not None else ()


_MACS: dict[str, Rule] = {
    "Conv": _conv,
    "FusedConv": _conv,
    "ConvInteger": _conv,
    "DeformConv": _conv,
    "QLinearConv": _qlinear_conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "FusedGemm": _gemm,
    "MatMul": _matmul,
    "FusedMatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "Einsum": _einsum,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Attention": _attention,
}
_NEEDED_INPUTS = {
    "QLinearConv": 4,
    "QLinearMatMul": 4,
    "Einsum": 1,
    "LSTM": 3,
    "GRU": 3,
    "RNN": 3,
    "Attention": 3,
}
_BIAS_SLOT = {"Conv": 2, "FusedConv": 2, "ConvTranspose": 2, "QLinearConv": 8, "Gemm": 2, "FusedGemm": 2}
