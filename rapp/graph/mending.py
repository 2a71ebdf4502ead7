"""Follow the batch through a fixed-batch network, and mend the constants that hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper

from rapp.graph.baked import (
    INT_MAX,
    Fix,
    Place,
    growing,
    place_in,
    places_after_reshape,
    reshape_value,
    resolve,
)
from rapp.graph.batching import BatchPlan
from rapp.graph.inference import TensorType
from rapp.graph.loading import MAIN_DOMAINS
from rapp.graph.mixing import Use, mixes_batch
from rapp.graph.polynomial import BatchPolynomial
from rapp.graph.tracing import Tracer
from rapp.graph.values import BatchVaries, Value, describe

ELEMENTWISE = frozenset(
    [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Mod",
        "Min",
        "Max",
        "Sum",
        "Mean",
        "Where",
        "And",
        "Or",
        "Xor",
        "Equal",
        "Less",
        "LessOrEqual",
        "Greater",
        "GreaterOrEqual",
        "PRelu",
        "BitwiseAnd",
        "BitwiseOr",
        "BitwiseXor",
        "BitShift",
    ]
)

Choice = tuple[tuple[int, ...], Place, tuple[int, ...]]


class MendingTracer(Tracer):
    """Walks through a fixed-batch network at its own batch and at others.

    Args:
        choices: for an ambiguous Reshape (input shape, place of the batch, output shape) which candidate to
            take; what is not in it takes the first, and is added.
    """

    def __init__(
        self,
        model: ModelProto,
        name: str,
        folder: Path | None,
        plan: BatchPlan,
        dims: Mapping[str, int],
        choices: dict[Choice, int],
    ) -> None:
        super().__init__(model, name, folder, plan, dims)
        assert plan.fixed is not None
        self.batch = plan.fixed
        self.choices = choices
        # Choices of this walk in the order in which they came up, with the number of candidates.
        self.met: dict[Choice, int] = {}
        self._pending: Place | None = None

    def mend(self, node: NodeProto, inputs: list[Value | None]) -> list[Value | None]:
        self._pending = None
        if node.domain not in MAIN_DOMAINS or not any(value is not None and value.place for value in inputs):
            return inputs
        rule = {
            "Reshape": self._reshape,
            "Expand": self._expand,
            "Resize": self._resize,
            "Slice": self._slice,
            "Concat": self._concat,
            "LSTM": self._recurrent,
            "GRU": self._recurrent,
            "RNN": self._recurrent,
            "MatMul": self._broadcast,
        }.get(node.op_type, self._broadcast if node.op_type in ELEMENTWISE else None)
        return rule(node, list(inputs)) if rule is not None else inputs

    def follow(
        self, node: NodeProto, inputs: Sequence[Value | None], outputs: Sequence[Value | None]
    ) -> None:
        carrying = [value for value in inputs if value is not None and value.place is not None]
        if not carrying or all(value is None or value.static for value in outputs):
            return
        self._check_mixing(node, inputs)
        for value in outputs:
            if value is None or not value.varies:
                continue
            axis = self._grown_axis(node, value)
            value.place = self._pending or self._place(node, carrying, value, axis)
        if not any(value is not None and value.place is not None for value in outputs):
            raise BatchVaries(f"{describe(node)}: its output does not grow with the batch")

    def _grown_axis(self, node: NodeProto, value: Value) -> int:
        """The one dimension in which the output grows in proportion to the batch."""
        shapes = [value.shape(point) for point in range(len(self.plan.batches))]
        base = shapes[0]
        if base is None or any(shape is None or len(shape) != len(base) for shape in shapes):
            raise BatchVaries(f"{describe(node)}: the shape of its output is not known at another batch")
        axes = [
            axis for axis in range(len(base)) if any(shape[axis] != base[axis] for shape in shapes if shape)
        ]
        if len(axes) != 1:
            raise BatchVaries(f"{describe(node)}: its output grows with the batch in {len(axes)} dimensions")
        (axis,) = axes
        for batch, shape in zip(self.plan.batches, shapes, strict=True):
            if shape is None or shape[axis] * self.batch != base[axis] * batch:
                raise BatchVaries(f"{describe(node)}: its output does not grow in proportion to the batch")
        return axis

    def _place(self, node: NodeProto, carrying: Sequence[Value], value: Value, axis: int) -> Place:
        source = carrying[0]
        shape, result = source.shape(), value.shape()
        assert source.place is not None and result is not None
        if node.op_type in ("Flatten", "Reshape") and shape is not None:
            return place_in(shape, source.place, result, axis)
        same = shape is not None and shape[source.place.axis] == result[axis]
        return Place(axis, source.place.outer if same else 1)

    def _check_mixing(self, node: NodeProto, inputs: Sequence[Value | None]) -> None:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        axes = [value.place.axis if value is not None and value.place else None for value in inputs]
        ranks = [len(value.shape() or ()) if value is not None else 0 for value in inputs]
        reduced: Sequence[int] | None = attributes.get("axes")
        listed = inputs[1].arrays[0] if len(inputs) > 1 and inputs[1] is not None else None
        if listed is not None and np.issubdtype(listed.dtype, np.integer):
            reduced = [int(entry) for entry in listed.reshape(-1)]
        elif (
            node.op_type.startswith("Reduce")
            and not attributes.get("axes")
            and attributes.get("noop_with_empty_axes")
        ):
            return
        asked = sum(map(bool, node.output))
        use = Use(node.op_type, attributes, axes, ranks, reduced, asked, self.trace.opset)
        reason = mixes_batch(use)
        if reason is not None:
            raise BatchVaries(f"{describe(node)}: {reason}")

    # Rules, one an operator: each returns the inputs as they must be at every batch.

    def _reshape(self, node: NodeProto, inputs: list[Value | None]) -> list[Value | None]:
        data, listed = inputs[0], inputs[1] if len(inputs) > 1 else None
        if data is None or data.place is None or listed is None or listed.arrays[0] is None:
            return inputs
        shape = data.shape()
        raw = [int(entry) for entry in listed.arrays[0].reshape(-1)]
        assert shape is not None
        computed = any(
            array is None or not np.array_equal(array, listed.arrays[0]) for array in listed.arrays[1:]
        )
        if computed:
            return inputs
        target = resolve(raw, shape)
        if target is None:
            return inputs
        candidates = places_after_reshape(shape, data.place, target, self.batch)
        if not candidates:
            raise BatchVaries(
                f"{describe(node)}: no dimension of {target} can take the batch of {list(shape)}"
            )
        key: Choice = (shape, data.place, tuple(target))
        place = candidates[self.choices.setdefault(key, 0)]
        self.met.setdefault(key, len(candidates))
        self._pending = place
        copies = place.axis == data.place.axis and shape[place.axis] == target[place.axis]
        value = reshape_value(raw, target, place.axis, self.batch, copies_axis=copies)
        return inputs if value is None else self._replace(node, inputs, 1, value)

    def _expand(self, node: NodeProto, inputs: list[Value | None]) -> list[Value | None]:
        data, listed = inputs[0], inputs[1]
        entries = self._constant_list(listed)
        if data is None or data.place is None or entries is None:
            return inputs
        axis = data.place.axis + len(entries) - len(data.shape() or ())
        if axis < 0 or entries[axis] == 1:
            return inputs
        entries[axis] = 1
        return self._replace(node, inputs, 1, tuple(BatchPolynomial((entry,)) for entry in entries))

    def _resize(self, node: NodeProto, inputs: list[Value | None]) -> list[Value | None]:
        data, sizes = inputs[0], inputs[3] if len(inputs) > 3 else None
        entries = self._constant_list(sizes)
        if data is None or data.place is None or not entries:
            return inputs
        shape = data.shape() or ()
        axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), list(range(len(shape))))
        axes = [axis % len(shape) for axis in axes]
        if data.place.axis not in axes:
            return inputs
        index = axes.index(data.place.axis)
        if entries[index] != shape[data.place.axis]:
            raise BatchVaries(f"{describe(node)}: it resizes dimension {data.place.axis}, the batch")
        return self._replace(node, inputs, 3, growing(entries, index, self.batch))

    def _slice(self, node: NodeProto, inputs: list[Value | None]) -> list[Value | None]:
        if len(inputs) < 3 or inputs[0] is None or inputs[0].place is None:
            return inputs
        shape = inputs[0].shape() or ()
        starts, ends = self._constant_list(inputs[1]), self._constant_list(inputs[2])
        axes = self._constant_list(inputs[3]) if len(inputs) > 3 and inputs[3] is not None else None
        if starts is None or ends is None:
            return inputs
        positions = [axis % len(shape) for axis in axes] if axes is not None else list(range(len(starts)))
        if inputs[0].place.axis not in positions:
            return inputs
        index = positions.index(inputs[0].place.axis)
        if starts[index] == 0 and ends[index] == shape[inputs[0].place.axis]:
            # At the file's batch it keeps every sample: so it does at any other.
            ends[index] = INT_MAX
            return self._replace(node, inputs, 2, tuple(BatchPolynomial((end,)) for end in ends))
        return inputs

    def _concat(self, node: NodeProto, inputs: list[Value | None]) -> list[Value | None]:
        place = next(value.place for value in inputs if value is not None and value.place)
        for slot, value in enumerate(inputs):
            if value is not None and value.static:
                self._grow(node, inputs, slot, place.axis)
        return inputs

    def _recurrent(self, node: NodeProto, inputs: list[Value | None]) -> list[Value | None]:
        layout = next((a.i for a in node.attribute if a.name == "layout"), 0)
        for slot, axis in ((4, 0), (5, 0 if layout else 1), (6, 0 if layout else 1)):
            if slot < len(inputs) and inputs[slot] is not None:
                self._grow(node, inputs, slot, axis)
        return inputs

    def _broadcast(self, node: NodeProto, inputs: list[Value | None]) -> list[Value | None]:
        """Constants exported for a batch above 1: at batch 1 they broadcast as they are."""
        carrier = next(value for value in inputs if value is not None and value.place)
        shape = carrier.shape() or ()
        assert carrier.place is not None
        behind = len(shape) - carrier.place.axis
        if node.op_type == "MatMul" and behind <= 2:
            return inputs
        for slot, value in enumerate(inputs):
            rank = len(value.shape() or ()) if value is not None else 0
            if value is not None and value.static and rank >= behind and self.batch > 1:
                self._grow(node, inputs, slot, rank - behind)
        return inputs

    def _grow(self, node: NodeProto, inputs: list[Value | None], slot: int, axis: int) -> None:
        """Let a static input that was exported for the file's batch grow with it."""
        value = inputs[slot]
        shape = value.shape() if value is not None else None
        if value is None or shape is None or not value.static or value.varies or shape[axis] != self.batch:
            return
        grown = growing(shape, axis, self.batch)
        self.trace.fixes.append(Fix(node, slot, grown, expand_axis=axis))
        kind = value.types[0]
        assert isinstance(kind, TensorType)
        kinds = [TensorType(kind.elem, tuple(dim(batch) for dim in grown)) for batch in self.plan.batches]
        inputs[slot] = Value(list(kinds), list(self.nothing), True, value.roots)

    def _replace(
        self, node: NodeProto, inputs: list[Value | None], slot: int, entries: tuple[BatchPolynomial, ...]
    ) -> list[Value | None]:
        self.trace.fixes.append(Fix(node, slot, entries))
        old = inputs[slot]
        assert old is not None
        arrays: list[Any] = [
            np.array([entry(batch) for entry in entries], np.int64) for batch in self.plan.batches
        ]
        # At its own batch the network stays as it is.
        arrays[0] = old.arrays[0]
        inputs[slot] = Value(old.types, arrays, True, old.roots)
        return inputs

    def _constant_list(self, value: Value | None) -> list[int] | None:
        """The integers of an input that are the same at every batch."""
        if value is None or value.arrays[0] is None:
            return None
        if any(array is None or not np.array_equal(array, value.arrays[0]) for array in value.arrays):
            return None
        return [int(entry) for entry in value.arrays[0].reshape(-1)]
