"""Operators that mix the samples of a batch.

A network serves batch n like n single runs only if no operator sums, normalises, sorts or counts over the
dimension that holds the batch. Shapes alone do not tell: softmax over the batch keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Use:
    """One operator and where its inputs hold the batch.

    Args:
        op_type: the operator.
        attributes: its attributes.
        axes: for each input the dimension that holds the batch; None: it does not depend on the batch.
        ranks: for each input the number of its dimensions (0 where it is left out).
        reduced: the axes that the operator works over, if it takes a list of them; None: all.
        outputs: how many of its outputs are asked for.
        opset: version of the operator set.
    """

    op_type: str
    attributes: Mapping[str, Any]
    axes: Sequence[int | None]
    ranks: Sequence[int]
    reduced: Sequence[int] | None
    outputs: int
    opset: int

    def axis(self, slot: int = 0) -> int | None:
        """The dimension of input `slot` that holds the batch."""
        return self.axes[slot] if slot < len(self.axes) else None


def mixes_batch(use: Use) -> str | None:
    """Why the operator mixes samples, or None if it does not."""
    if any(use.axis(slot) is not None for slot in _WEIGHT_SLOTS.get(use.op_type, ())):
        return "its weights grow with the batch"
    rule = _RULES.get(use.op_type, _reduction if use.op_type.startswith("Reduce") else None)
    axis = use.axis()
    if rule is None or (axis is None and rule not in _TWO_SIDED):
        return None
    return rule(use, axis if axis is not None else -1)


Rule = Callable[[Use, int], str | None]


def _over(axis: int) -> str:
    return f"works over dimension {axis}, the batch"


def _batch_first(use: Use, axis: int) -> str | None:
    return None if axis == 0 else f"has the batch in dimension {axis}, where it expects channels or pixels"


def _pool(use: Use, axis: int) -> str | None:
    # Channels are treated apart, too. The second output of MaxPool holds positions in the whole batch.
    if use.op_type == "MaxPool" and use.outputs > 1:
        return "counts positions through the whole batch"
    return None if axis <= 1 else _over(axis)


def _mean_variance(use: Use, axis: int) -> str | None:
    return _over(axis) if axis in use.attributes.get("axes", (0, 2, 3)) else None


def _deform_conv(use: Use, axis: int) -> str | None:
    return _batch_first(use, axis) or (None if use.axis(2) == 0 else "its offsets do not grow with the batch")


def _maxunpool(use: Use, axis: int) -> str | None:
    return "counts positions through the whole batch"


def _recurrent(use: Use, axis: int) -> str | None:
    return (
        None
        if axis == (0 if use.attributes.get("layout") else 1)
        else f"steps through dimension {axis}, the batch"
    )


def _softmax(use: Use, axis: int) -> str | None:
    if use.opset < 13:
        # Over all dimensions from `axis` on.
        return _over(axis) if axis >= use.attributes.get("axis", 1) % use.ranks[0] else None
    return _over(axis) if axis == use.attributes.get("axis", -1) % use.ranks[0] else None


def _last_axis(use: Use, axis: int) -> str | None:
    return _over(axis) if axis == use.attributes.get("axis", -1) % use.ranks[0] else None


def _first_axis(use: Use, axis: int) -> str | None:
    return _over(axis) if axis == use.attributes.get("axis", 0) % use.ranks[0] else None


def _layer_norm(use: Use, axis: int) -> str | None:
    return _over(axis) if axis >= use.attributes.get("axis", -1) % use.ranks[0] else None


def _reduction(use: Use, axis: int) -> str | None:
    over = range(use.ranks[0]) if not use.reduced else [entry % use.ranks[0] for entry in use.reduced]
    return _over(axis) if axis in over else None


def _scatter(use: Use, axis: int) -> str | None:
    return _first_axis(use, axis) or ("changes some samples only" if use.axis(1) is None else None)


def _scatter_nd(use: Use, axis: int) -> str | None:
    return "picks samples by index"


def _gather_nd(use: Use, axis: int) -> str | None:
    # Data and indices must share the batch among their first `batch_dims` dimensions.
    shared = axis < use.attributes.get("batch_dims", 0) and use.axis(1) == axis
    return None if shared else "picks samples by index"


def _last_two(use: Use, axis: int) -> str | None:
    return _over(axis) if axis >= use.ranks[0] - 2 else None


def _reverse_sequence(use: Use, axis: int) -> str | None:
    return None if axis == use.attributes.get("batch_axis", 1) else f"reverses dimension {axis}, the batch"


def _gemm(use: Use, axis: int) -> str | None:
    inner_a = 0 if use.attributes.get("transA") else 1
    inner_b = 1 if use.attributes.get("transB") else 0
    return "sums over the batch" if use.axis(0) == inner_a or use.axis(1) == inner_b else None


def _matrix_product(use: Use, axis: int) -> str | None:
    second = 3 if use.op_type == "QLinearMatMul" else 1
    inner_a = use.ranks[0] - (2 if use.attributes.get("transA") else 1)
    inner_b = max(use.ranks[second] - (1 if use.attributes.get("transB") else 2), 0)
    return "sums over the batch" if use.axis(0) == inner_a or use.axis(second) == inner_b else None


def _einsum(use: Use, axis: int) -> str | None:
    equation = use.attributes["equation"]
    equation = equation.decode() if isinstance(equation, bytes) else equation
    left, _, right = equation.replace(" ", "").partition("->")
    for term, place, rank in zip(left.split(","), use.axes, use.ranks, strict=False):
        if place is None:
            continue
        # An ellipsis stands for the dimensions that have no letter.
        letters = term.replace("...", "." * (rank - len(term.replace("...", ""))))
        if right and place < len(letters) and letters[place] != "." and letters[place] not in right:
            return "sums over the batch"
    return None


def _table(rules: Mapping[str, Rule]) -> dict[str, Rule]:
    return {op_type: rule for names, rule in rules.items() for op_type in names.split()}


# Rules that ask about inputs other than the first as well.
_TWO_SIDED = (_gemm, _matrix_product, _einsum)
_RULES = _table(
    {
        "Conv FusedConv ConvTranspose ConvInteger QLinearConv LRN": _batch_first,
        "GroupNormalization BatchNormalization DepthToSpace SpaceToDepth": _batch_first,
        "GridSample RoiAlign Col2Im": _batch_first,
        "MeanVarianceNormalization": _mean_variance,
        "DeformConv": _deform_conv,
        "MaxPool AveragePool LpPool InstanceNormalization": _pool,
        "GlobalAveragePool GlobalMaxPool GlobalLpPool": _pool,
        "MaxUnpool": _maxunpool,
        "LSTM GRU RNN": _recurrent,
        "Softmax LogSoftmax Hardmax": _softmax,
        "LpNormalization TopK": _last_axis,
        "ArgMax ArgMin Concat Gather Split GatherElements": _first_axis,
        "LayerNormalization RMSNormalization": _layer_norm,
        "CumSum CumProd": _reduction,
        "Scatter ScatterElements": _scatter,
        "ScatterND": _scatter_nd,
        "GatherND": _gather_nd,
        "Trilu EyeLike": _last_two,
        "ReverseSequence": _reverse_sequence,
        "Gemm FusedGemm": _gemm,
        "MatMul MatMulInteger QLinearMatMul FusedMatMul": _matrix_product,
        "Einsum": _einsum,
    }
)
# Inputs that all samples share.
_WEIGHT_SLOTS = {
    "Conv": (1, 2),
    "FusedConv": (1, 2),
    "ConvTranspose": (1, 2),
    "ConvInteger": (1,),
    "QLinearConv": (3, 8),
    "DeformConv": (1, 3),
    "BatchNormalization": (1, 2, 3, 4),
    "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "RMSNormalization": (1,),
    "LSTM": (1, 2, 3),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
}
