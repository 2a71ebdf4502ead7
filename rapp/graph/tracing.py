"""Walk through a network at several batches at once: every shape, every value known before run time.

The walk tells three things of each value: its type at each batch, its content where the arithmetic on shapes
settles it, and whether it is static, that is, hangs on no data of an input (weights, constants, shapes).
For a fixed-batch file it also collects the `Fix`es that another batch needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from rapp.errors import GraphError
from rapp.graph.baked import Place
from rapp.graph.batching import BatchPlan, data_inputs, input_types
from rapp.graph.folding import RANDOM_OPS, evaluate
from rapp.graph.inference import (
    InferenceFailed,
    NodeInference,
    TensorType,
    ValueType,
    check_sizes,
    type_from_proto,
)
from rapp.graph.loading import LARGEST_FOLDED, MAIN_DOMAINS, opset_of, tensor_value
from rapp.graph.operands import SETTINGS
from rapp.graph.ordering import captured_names, ordered
from rapp.graph.values import Array, BatchVaries, Step, Trace, Value, describe


class Tracer:
    """Walks through one model. `rules` mends baked batches; the base class leaves a network as it is."""

    def __init__(
        self, model: ModelProto, name: str, folder: Path | None, plan: BatchPlan, dims: Mapping[str, int]
    ) -> None:
        self.model, self.name, self.folder, self.plan, self.dims = model, name, folder, plan, dims
        self.nothing: list[Array | None] = [None] * len(plan.batches)
        self.inference = NodeInference(model)
        self.trace = Trace(
            plan,
            opset_of(model),
            [value.name for value in data_inputs(model.graph)],
            [value.name for value in model.graph.output],
            self.inference.schema,
        )
        self.declared = {value.name: value.type for value in [*model.graph.value_info, *model.graph.output]}

    @property
    def values(self) -> dict[str, Value]:
        return self.trace.values

    def run(self) -> Trace:
        """Walk.

        Raises:
            GraphError: the operators contradict each other, or an operator uses a value that nothing makes.
            BatchVaries: they fit at the file's batch, but not at another.
        """
        graph = self.model.graph
        for value in data_inputs(graph):
            types = input_types(value, self.plan, self.dims)
            axis = self.plan.axes.get(value.name)
            place = Place(axis) if axis is not None and self.plan.fixed is not None else None
            self.values[value.name] = Value(types, list(self.nothing), place=place)
        self._constants(graph)
        self._walk(ordered(graph.node, self.name))
        return self.trace

    def _constants(self, graph: GraphProto) -> None:
        for tensor in graph.initializer:
            self.values[tensor.name] = self._constant(tensor, tensor.name)
        for sparse in graph.sparse_initializer:
            kind = TensorType(sparse.values.data_type, tuple(sparse.dims))
            self.values[sparse.values.name] = self._static(kind, None, frozenset({sparse.values.name}))

    def _constant(self, tensor: TensorProto, name: str) -> Value:
        small = math.prod(tensor.dims) <= LARGEST_FOLDED
        array = tensor_value(tensor, self.folder, self.name) if small else None
        return self._static(TensorType(tensor.data_type, tuple(tensor.dims)), array, frozenset({name}))

    def _static(self, kind: ValueType, array: Array | None, roots: frozenset[str]) -> Value:
        points = len(self.plan.batches)
        return Value([kind] * points, [array] * points, static=True, roots=roots)

    def _walk(self, nodes: Iterable[NodeProto]) -> None:
        for node in nodes:
            branch = self._branch(node)
            if branch is None:
                self._step(node)
                continue
            self._constants(branch)
            self.declared |= {value.name: value.type for value in [*branch.value_info, *branch.output]}
            self._walk(branch.node)
            for inner, outer in zip(branch.output, node.output, strict=True):
                self.values[outer] = self._get(inner.name, node)
                self.trace.aliases[outer] = inner.name

    def _branch(self, node: NodeProto) -> GraphProto | None:
        """The branch that an If takes, if its condition is known before run time."""
        if node.op_type != "If" or node.domain not in MAIN_DOMAINS:
            return None
        array = self._get(node.input[0], node).arrays[0]
        if array is None:
            return None
        wanted = "then_branch" if bool(array.reshape(-1)[0]) else "else_branch"
        return next(attribute.g for attribute in node.attribute if attribute.name == wanted)

    def _get(self, name: str, node: NodeProto) -> Value:
        if name not in self.values:
            raise GraphError(self.name, f"it uses '{name}', which nothing makes", where=describe(node))
        return self.values[name]

    def _step(self, node: NodeProto) -> None:
        names = list(node.input)
        inputs = [self._get(name, node) if name else None for name in names]
        captured = [name for name in captured_names(node) if name in self.values]
        inputs = self.mend(node, inputs)
        present = [value for value in inputs if value is not None] + [self.values[name] for name in captured]
        # An operator without inputs makes a constant, unless it draws random numbers or nobody knows what it
        # does.
        static = all(value.static for value in present) and node.op_type not in RANDOM_OPS
        static = static and (bool(present) or node.domain in MAIN_DOMAINS)
        sized = node.op_type in ("Shape", "Size") and node.domain in MAIN_DOMAINS
        failure: InferenceFailed | None = None
        try:
            types = self._types(node, inputs, captured)
        except InferenceFailed as error:
            types, failure = [[None] * len(self.plan.batches) for _ in node.output], error
        arrays = self._arrays(node, inputs, types) if (static and not captured) or sized else None
        if failure is not None and arrays is None:
            raise GraphError(self.name, str(failure), where=describe(node)) from failure
        static = static or (sized and arrays is not None)
        roots = self._roots(node, inputs) if static and not sized else frozenset()
        outputs = self._outputs(node, types, arrays, static, roots)
        self.follow(node, inputs, outputs)
        for name, value in zip(node.output, outputs, strict=True):
            if value is not None:
                self.values[name] = value
        outer: list[Value | None] = [self.values[name] for name in captured]
        self.trace.steps.append(Step(node, names + captured, inputs + outer, outputs, static))

    def _outputs(
        self,
        node: NodeProto,
        types: Sequence[Sequence[ValueType | None]],
        arrays: Sequence[list[Array | None]] | None,
        static: bool,
        roots: frozenset[str],
    ) -> list[Value | None]:
        outputs: list[Value | None] = []
        for index, name in enumerate(node.output):
            known = arrays[index] if arrays is not None else list(self.nothing)
            kinds = [
                kind
                if array is None
                else TensorType(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
                for kind, array in zip(types[index], known, strict=True)
            ]
            outputs.append(Value(kinds, known, static, roots) if name else None)
        return outputs

    def _types(
        self, node: NodeProto, inputs: Sequence[Value | None], captured: Sequence[str]
    ) -> list[list[ValueType | None]]:
        """One list an output, one entry a batch."""
        columns: list[list[ValueType | None]] = []
        known = self.inference.schema(node) is not None
        group = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        for point in range(len(self.plan.batches)):
            kinds = [value.types[point] if value is not None else None for value in inputs]
            data = [value.arrays[point] if value is not None else None for value in inputs]
            if point and not captured and self._repeats(inputs, point):
                columns.append(columns[0])
                continue
            try:
                outer = {
                    name: kind for name in captured if (kind := self.values[name].types[point]) is not None
                }
                found = self.inference.outputs(node, kinds, data, outer)
                check_sizes(node, [v.shape(point) if v is not None else None for v in inputs], found, group)
            except InferenceFailed as error:
                if point == 0 or self.plan.fixed is None:
                    raise
                raise BatchVaries(f"{describe(node)}: {error}") from error
            columns.append(
                [
                    self._declared(kind, name, point, known)
                    for kind, name in zip(found, node.output, strict=True)
                ]
            )
        return [list(row) for row in zip(*columns, strict=True)]

    def _repeats(self, inputs: Sequence[Value | None], point: int) -> bool:
        return all(
            value is None or (value.types[point] == value.types[0] and value.arrays[point] is value.arrays[0])
            for value in inputs
        )

    def _declared(
        self, kind: ValueType | None, name: str, point: int, known_operator: bool
    ) -> ValueType | None:
        """Fill what inference left open from the shapes that the file itself declares."""
        if not name or name not in self.declared or isinstance(kind, bytes):
            return kind
        if kind is not None and kind.dims is not None:
            return kind
        batch = {self.plan.symbol: self.plan.batches[point]} if self.plan.fixed is None else {}
        declared = type_from_proto(self.declared[name], {**self.dims, **batch})
        if not isinstance(declared, TensorType) or declared.shape is None:
            return kind if kind is not None else declared
        shape = declared.shape
        if point and self.plan.fixed is not None and known_operator:
            return kind
        if point and self.plan.fixed is not None and shape and shape[0] == self.plan.fixed:
            # Nobody knows the operator at other batches: take the first dimension for the batch.
            shape = (self.plan.batches[point], *shape[1:])
        if kind is None or kind.shape is None or len(kind.shape) != len(shape):
            return TensorType(declared.elem, shape)
        return TensorType(
            kind.elem, tuple(a if a is not None else b for a, b in zip(kind.shape, shape, strict=True))
        )

    def _arrays(
        self, node: NodeProto, inputs: Sequence[Value | None], types: Sequence[Sequence[ValueType | None]]
    ) -> list[list[Array | None]] | None:
        """The content of the outputs at each batch, if all of it is known and small."""
        if node.domain not in MAIN_DOMAINS or any(
            a.type == onnx.AttributeProto.GRAPH for a in node.attribute
        ):
            return None
        rows: list[list[Array]] = []
        for point in range(len(self.plan.batches)):
            made = [kind.dims for row in types if isinstance(kind := row[point], TensorType)]
            if any(dims is not None and math.prod(dims) > LARGEST_FOLDED for dims in made):
                return None
            if point and self._repeats(inputs, point) and node.op_type != "Size" and node.op_type != "Shape":
                rows.append(rows[0])
                continue
            if node.op_type in ("Shape", "Size"):
                found = _shape_value(node, inputs[0], point)
            else:
                arrays = [value.arrays[point] if value is not None else None for value in inputs]
                if any(
                    value is not None and array is None for value, array in zip(inputs, arrays, strict=True)
                ):
                    return None
                found = evaluate(node, arrays, self.trace.opset)
            if found is None or len(found) != len(node.output):
                return None
            rows.append(found)
        return [list(column) for column in zip(*rows, strict=True)]

    def _roots(self, node: NodeProto, inputs: Sequence[Value | None]) -> frozenset[str]:
        if node.op_type in ("Constant", "ConstantOfShape"):
            return frozenset({node.output[0]})
        settings = SETTINGS.get(node.op_type, {})
        read = [
            value.roots for slot, value in enumerate(inputs) if value is not None and slot not in settings
        ]
        return frozenset().union(*read)

    def mend(self, node: NodeProto, inputs: list[Value | None]) -> list[Value | None]:
        """Hook: replace inputs that hold the file's batch (`mending.MendingTracer`)."""
        return inputs

    def follow(
        self, node: NodeProto, inputs: Sequence[Value | None], outputs: Sequence[Value | None]
    ) -> None:
        """Hook: note where the batch is in the outputs (`mending.MendingTracer`)."""


def _shape_value(node: NodeProto, value: Value | None, point: int) -> list[Array] | None:
    shape = value.shape(point) if value is not None else None
    if shape is None:
        return None
    if node.op_type == "Size":
        return [np.array(math.prod(shape), np.int64)]
    bounds = {attribute.name: attribute.i for attribute in node.attribute}
    return [np.array(shape, np.int64)[bounds.get("start", 0) : bounds.get("end")]]
