"""Constants of a fixed-batch network that hold the batch: where it sits in them.

A network exported at batch 1 may reshape to `[1, 2, 58, 28, 28]` or to `[197, 12, 64]`. By its value no 1
says whether it is the batch, and the 12 holds one as well. So the batch is followed by its place: a tensor's
elements lie in row-major order, the batch is the factor that stands behind `outside` elements, and a Reshape
keeps that order. Where several dimensions of the target could take the batch, the candidates are tried in
turn (`carrying.trace_fixed`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnx import NodeProto

from rapp.graph.polynomial import BatchPolynomial

INT_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Fix:
    """What must change in the file for another batch: one input of one operator.

    Args:
        node: the operator, as it stands in the model.
        slot: index of the input.
        value: the integers that the input must hold, as functions of the batch.
        expand_axis: None: the input is a list of integers and becomes `value`. Otherwise the input is a
            constant that was exported for one batch: it becomes itself, expanded to the shape `value`,
            which differs from the exported one in this axis.
    """

    node: NodeProto
    slot: int
    value: tuple[BatchPolynomial, ...]
    expand_axis: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where the batch is in a tensor: `axis`, behind `outer` elements within that dimension."""

    axis: int
    outer: int = 1

    def outside(self, shape: Sequence[int]) -> int:
        """Elements (in row-major order) of everything outside the batch."""
        return math.prod(shape[: self.axis]) * self.outer


def places_after_reshape(
    shape: Sequence[int], place: Place, target: Sequence[int], batch: int
) -> list[Place]:
    """Where the batch can be in `target`, the likeliest first.

    Args:
        shape: the input's dimensions at the file's batch.
        place: where the batch is in them.
        target: the output's dimensions at the file's batch.
        batch: the file's batch.

    Returns:
        First a dimension that is the batch alone, then one that ends with it, one that starts with it,
        one that holds it inside.
    """
    outside = place.outside(shape)
    ranked: list[tuple[int, int, Place]] = []
    before = 1
    for axis, dim in enumerate(target):
        if before and outside % before == 0:
            outer = outside // before
            if dim and dim % (outer * batch) == 0:
                same_prefix = axis == place.axis and list(shape[:axis]) == list(target[:axis])
                if outer == 1 and dim == batch:
                    rank = 0 if same_prefix else 1
                else:
                    rank = 2 if dim == outer * batch else 3 if outer == 1 else 4
                ranked.append((rank, axis, Place(axis, outer)))
        before *= dim
    return [candidate for _, _, candidate in sorted(ranked, key=lambda entry: entry[:2])]


def place_in(shape: Sequence[int], place: Place, target: Sequence[int], axis: int) -> Place:
    """The place in `target` when it is known to be in `axis` (Flatten)."""
    before = math.prod(target[:axis])
    outside = place.outside(shape)
    return Place(axis, outside // before if before and outside % before == 0 else 1)


def reshape_value(
    raw: Sequence[int], target: Sequence[int], axis: int, batch: int, *, copies_axis: bool
) -> tuple[BatchPolynomial, ...] | None:
    """The target of a Reshape as a function of the batch, or None if the file's serves every batch.

    Args:
        raw: the list in the file, with 0 (copy the dimension) and -1 (what remains).
        target: the dimensions it results in at the file's batch.
        axis: the dimension that takes the batch.
        batch: the file's batch.
        copies_axis: a 0 at `axis` copies a dimension that grows with the batch in the same measure.
    """
    if raw[axis] == -1 or (raw[axis] == 0 and copies_axis):
        return None
    entries = [BatchPolynomial((entry,)) for entry in raw]
    entries[axis] = BatchPolynomial((0, target[axis] // batch))
    return tuple(entries)


def growing(shape: Sequence[int], axis: int, batch: int) -> tuple[BatchPolynomial, ...]:
    """`shape` with `axis` in proportion to the batch."""
    dims = [BatchPolynomial((dim,)) for dim in shape]
    dims[axis] = BatchPolynomial((0, shape[axis] // batch))
    return tuple(dims)


def resolve(raw: Sequence[int], shape: Sequence[int]) -> list[int] | None:
    """The dimensions that a Reshape's list comes to, or None if it does not fit the input."""
    count = math.prod(shape)
    target = [shape[axis] if entry == 0 and axis < len(shape) else entry for axis, entry in enumerate(raw)]
    rest = math.prod(entry for entry in target if entry != -1)
    if -1 in target:
        if rest == 0 or count % rest:
            return None
        target[target.index(-1)] = count // rest
    return target if math.prod(target) == count else None
