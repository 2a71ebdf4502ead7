"""Write the fixes that a trace found into the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper

from rapp.errors import BatchRewriteError
from rapp.graph.baked import Fix
from rapp.graph.batch import SYMBOL
from rapp.graph.inference import TensorType
from rapp.graph.ordering import captured_names
from rapp.graph.polynomial import BatchPolynomial, fit_affine
from rapp.graph.values import Trace, Value, describe


class Rewriter:
    """Changes `model` in place to another batch.

    New constants are Constant nodes rather than initializers, since old files list every initializer among
    the inputs.

    Args:
        model: what `trace` walked through.
        name: its name for messages.
        trace: the walk, with its fixes.
        batch: the new batch; None: open.
    """

    def __init__(self, model: ModelProto, name: str, trace: Trace, batch: int | None) -> None:
        self.model, self.name, self.trace, self.batch = model, name, trace, batch
        self._head: list[NodeProto] = []
        self._before: dict[str, list[NodeProto]] = {}
        self._taken = set(trace.values) | {value for step in trace.steps for value in step.node.output}
        self._batch_name: str | None = None

    def apply(self) -> None:
        """Rewrite inputs, outputs, declared shapes and every constant that holds the batch.

        Raises:
            BatchRewriteError: a constant holds different numbers for each sample of the old batch.
        """
        replaced = [fix.node.input[fix.slot] for fix in self.trace.fixes]
        for fix in self.trace.fixes:
            if fix.expand_axis is None:
                fix.node.input[fix.slot] = self._integers(fix.value, fix.node.op_type == "Reshape")
            else:
                fix.node.input[fix.slot] = self._expanded(fix, fix.expand_axis)
        self._insert(self.model.graph)
        self._drop_unused({name for name in replaced if name})
        self._declare()

    def _fresh(self, label: str) -> str:
        number = 0
        while f"{label}_{number}" in self._taken:
            number += 1
        self._taken.add(f"{label}_{number}")
        return f"{label}_{number}"

    def _constant(self, array: NDArray[Any]) -> str:
        name = self._fresh("batch_constant")
        self._head.append(
            helper.make_node("Constant", [], [name], name=name, value=onnx.numpy_helper.from_array(array))
        )
        return name

    def _integers(self, entries: Sequence[BatchPolynomial], is_reshape: bool) -> str:
        """A list of integers at the new batch; computed at run time if the batch stays open."""
        growing = [index for index, entry in enumerate(entries) if not entry.is_constant]
        if self.batch is not None or not growing:
            return self._constant(np.array([entry(self.batch or 1) for entry in entries], np.int64))
        constants = [entry(0) for entry in entries]
        (index,) = growing
        if is_reshape and -1 not in constants and constants.count(0) == 1:
            constants[index] = -1
            return self._constant(np.array(constants, np.int64))
        count = self._open_batch()
        factor = entries[index].coefficients[1]
        if factor != 1:
            product = self._fresh("batch_product")
            self._add("Mul", [count, self._constant(np.array([factor], np.int64))], product)
            count = product
        parts = [constants[:index], constants[index + 1 :]]
        before, after = ([self._constant(np.array(part, np.int64))] if part else [] for part in parts)
        result = self._fresh("batch_shape")
        self._add("Concat", [*before, count, *after], result, axis=0)
        return result

    def _open_batch(self) -> str:
        """The batch at run time, as a list of one integer: a dimension of the first input that carries it."""
        if self._batch_name is None:
            source, axis = next(
                (name, axis) for name, axis in self.trace.plan.axes.items() if axis is not None
            )
            shape, self._batch_name = self._fresh("batch_input_shape"), self._fresh("batch_open")
            self._add("Shape", [source], shape)
            self._add("Gather", [shape, self._constant(np.array([axis], np.int64))], self._batch_name, axis=0)
        return self._batch_name

    def _add(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self._head.append(helper.make_node(op_type, inputs, [output], name=output, **attributes))

    def _expanded(self, fix: Fix, axis: int) -> str:
        """The constant that `fix` names, expanded to the new batch by a node in front of the operator."""
        source = fix.node.input[fix.slot]
        fixed = self.trace.plan.fixed
        if fixed != 1:
            source = self._constant(self._one_sample(fix, axis))
        result = self._fresh("batch_expanded")
        node = helper.make_node("Expand", [source, self._integers(fix.value, False)], [result], name=result)
        self._before.setdefault(fix.node.output[0], []).append(node)
        return result

    def _one_sample(self, fix: Fix, axis: int) -> NDArray[Any]:
        name = fix.node.input[fix.slot]
        value: Value | None = self.trace.values.get(name)
        array = value.arrays[0] if value is not None else None
        tensor = next((tensor for tensor in self.model.graph.initializer if tensor.name == name), None)
        if array is None and tensor is not None and tensor.HasField("raw_data"):
            array = onnx.numpy_helper.to_array(tensor)
        if array is None:
            raise BatchRewriteError(self.name, f"'{name}' is made for one batch", where=describe(fix.node))
        first = np.take(array, [0], axis=axis)
        if not np.array_equal(np.broadcast_to(first, array.shape), array):
            raise BatchRewriteError(
                self.name, f"'{name}' holds different numbers for each sample", where=describe(fix.node)
            )
        return np.asarray(first)

    def _insert(self, graph: GraphProto) -> None:
        nodes = list(self._head) if graph is self.model.graph else []
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH and self._before:
                    self._insert(attribute.g)
            nodes += self._before.pop(next(iter(node.output), ""), [])
            nodes.append(node)
        if len(nodes) != len(graph.node):
            copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
            del graph.node[:]
            graph.node.extend(copies)

    def _drop_unused(self, names: set[str]) -> None:
        """Take out the constants that nothing reads any more."""
        graph = self.model.graph
        for node in graph.node:
            names -= {*node.input, *captured_names(node)}
        for field in (graph.initializer, graph.input):
            for entry in [entry for entry in field if entry.name in names]:
                field.remove(entry)

    def _declare(self) -> None:
        graph = self.model.graph
        for value in graph.input:
            axis = self.trace.plan.axes.get(value.name)
            if axis is None:
                continue
            for index, dim in enumerate(value.type.tensor_type.shape.dim):
                symbolic = self.trace.plan.fixed is None and not dim.HasField("dim_value")
                if index == axis or (symbolic and dim.dim_param == self.trace.plan.symbol):
                    self._set(dim, BatchPolynomial((0, 1)))
        for value in [*graph.value_info, *graph.output]:
            self._redeclare(value)

    def _redeclare(self, value: ValueInfoProto) -> None:
        known = self.trace.values.get(value.name)
        if known is None or not isinstance(known.types[0], TensorType):
            return
        shapes = [known.shape(point) for point in range(len(self.trace.plan.batches))]
        value.type.tensor_type.ClearField("shape")
        if any(shape is None for shape in shapes):
            return
        fitted = [fit_affine(self.trace.plan.batches, dims) for dims in zip(*shapes, strict=True)]
        value.type.tensor_type.shape.SetInParent()
        for entry in fitted:
            self._set(value.type.tensor_type.shape.dim.add(), entry)

    def _set(self, dim: Any, entry: BatchPolynomial | None) -> None:
        dim.Clear()
        if entry is None:
            return
        if self.batch is not None:
            dim.dim_value = entry(self.batch)
        elif entry.is_constant:
            dim.dim_value = entry(0)
        elif entry == BatchPolynomial((0, 1)):
            dim.dim_param = SYMBOL
        else:
            dim.dim_param = str(entry)
