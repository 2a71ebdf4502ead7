"""Operators that mix the samples of a batch.

A network serves batch n like n single runs only if no operator sums, normalises or sorts over the dimension
that holds the batch. Shapes alone do not tell: softmax over the batch keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Each of these works within one sample if the batch is dimension 0 (pools: also 1, they treat channels
# apart).
BATCH_FIRST = frozenset(
    [
        "Conv",
        "FusedConv",
        "ConvTranspose",
        "ConvInteger",
        "QLinearConv",
        "DeformConv",
        "LRN",
        "GroupNormalization",
        "BatchNormalization",
        "DepthToSpace",
        "SpaceToDepth",
        "GridSample",
        "RoiAlign",
        "Col2Im",
    ]
)
POOLS = frozenset(
    [
        "MaxPool",
        "AveragePool",
        "LpPool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "GlobalLpPool",
        "InstanceNormalization",
        "MeanVarianceNormalization",
    ]
)
SOFTMAXES = frozenset({"Softmax", "LogSoftmax", "Hardmax"})
# Operators over one axis, with its default.
ONE_AXIS = {"LpNormalization": -1, "ArgMax": 0, "ArgMin": 0, "TopK": -1}
MATRIX_PRODUCTS = frozenset({"MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul"})


def mixes_batch(
    op_type: str,
    attributes: Mapping[str, Any],
    axes: Sequence[int | None],
    ranks: Sequence[int],
    reduced: Sequence[int] | None,
    opset: int,
) -> str | None:
    """Why this operator mixes samples, or None if it does not.

    Args:
        op_type: the operator.
        attributes: its attributes.
        axes: for each input the dimension that holds the batch; None: it does not depend on the batch.
        ranks: for each input the number of its dimensions (0 where it is left out).
        reduced: the axes that the operator works over, for operators with a list of axes; None: all.
        opset: version of the operator set.
    """
    axis = axes[0] if axes else None
    if op_type in MATRIX_PRODUCTS:
        return _matrix_product(op_type, attributes, axes, ranks)
    if op_type == "Gemm":
        inner_a, inner_b = (0 if attributes.get("transA") else 1), (1 if attributes.get("transB") else 0)
        return "sums over the batch" if axis == inner_a or axes[1] == inner_b else None
    if op_type == "Einsum":
        return _einsum(attributes, axes, ranks)
    if axis is None:
        return None
    rank = ranks[0]
    if op_type in BATCH_FIRST:
        return (
            None if axis == 0 else f"finds the batch in dimension {axis}, where it expects channels or pixels"
        )
    if op_type in POOLS:
        return (
            None
            if axis <= 1 and op_type != "MeanVarianceNormalization"
            else f"works over dimension {axis}, the batch"
        )
    if op_type in ("LSTM", "GRU", "RNN"):
        return (
            None
            if axis == (0 if attributes.get("layout") else 1)
            else f"steps through dimension {axis}, the batch"
        )
    if op_type in SOFTMAXES and opset < 13:
        # These work over all dimensions from `axis` on.
        return f"works over dimension {axis}, the batch" if axis >= attributes.get("axis", 1) % rank else None
    if op_type in ONE_AXIS or op_type in SOFTMAXES:
        chosen = attributes.get("axis", ONE_AXIS.get(op_type, -1)) % rank
        return f"works over dimension {axis}, the batch" if axis == chosen else None
    if op_type in ("LayerNormalization", "RMSNormalization"):
        return "normalises over the batch" if axis >= attributes.get("axis", -1) % rank else None
    if op_type.startswith("Reduce") or op_type == "CumSum":
        over = range(rank) if not reduced else [entry % rank for entry in reduced]
        return f"works over dimension {axis}, the batch" if axis in over else None
    if op_type in ("Concat", "Gather", "Split", "GatherElements", "ScatterElements"):
        chosen = attributes.get("axis", 0) % rank
        return f"takes dimension {axis}, the batch, apart" if axis == chosen else None
    return None


def _matrix_product(
    op_type: str, attributes: Mapping[str, Any], axes: Sequence[int | None], ranks: Sequence[int]
) -> str | None:
    second = 3 if op_type == "QLinearMatMul" else 1
    inner_a = ranks[0] - (2 if attributes.get("transA") else 1)
    inner_b = max(ranks[second] - (1 if attributes.get("transB") else 2), 0)
    if axes[0] == inner_a or axes[second] == inner_b:
        return "sums over the batch"
    return None


def _einsum(attributes: Mapping[str, Any], axes: Sequence[int | None], ranks: Sequence[int]) -> str | None:
    equation = attributes["equation"]
    equation = equation.decode() if isinstance(equation, bytes) else equation
    left, _, right = equation.replace(" ", "").partition("->")
    for term, axis, rank in zip(left.split(","), axes, ranks, strict=False):
        if axis is None:
            continue
        # An ellipsis stands for the dimensions that have no letter.
        letters = term.replace("...", "." * (rank - len(term.replace("...", ""))))
        if right and axis < len(letters) and letters[axis] != "." and letters[axis] not in right:
            return "sums over the batch"
    return None
