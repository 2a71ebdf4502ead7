"""From the walk through a network to its operator graph: what is left out, what reads what, what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper

from rapp.errors import GraphError, UnknownShapeError
from rapp.graph.attributes import canonical_attributes, hashed_attributes
from rapp.graph.batching import BatchPlan, plan_batches
from rapp.graph.canonical import Source, Vertex, graph_hash
from rapp.graph.carrying import trace_fixed
from rapp.graph.cost import ZERO, elements, multiply_adds, operations
from rapp.graph.inference import ALIASES, TensorType, ValueType
from rapp.graph.loading import MAIN_DOMAINS, load_model
from rapp.graph.operands import BUFFER_SLOTS, SETTINGS
from rapp.graph.operator_graph import Operator, OperatorGraph, TensorSpec
from rapp.graph.polynomial import BatchPolynomial, Shape, fit_affine, total
from rapp.graph.tracing import Tracer
from rapp.graph.values import BatchVaries, Step, Trace, Value, describe

# Bits of the data types that are smaller than a byte.
SMALL_BITS = {
    getattr(TensorProto, name): bits
    for name, bits in (("INT4", 4), ("UINT4", 4), ("FLOAT4E2M1", 4), ("INT2", 2), ("UINT2", 2))
    if hasattr(TensorProto, name)
}


def build_graph(source: str | Path | ModelProto, dims: Mapping[str, int]) -> OperatorGraph:
    """See `OperatorGraph.from_onnx`."""
    model, name, folder = load_model(source)
    plan = plan_batches(model.graph, name, dims)
    if plan.fixed is None:
        try:
            return _Builder(Tracer(model, name, folder, plan, dims).run(), name).build()
        except BatchVaries as error:
            raise GraphError(name, str(error)) from error
    reason = "none of its inputs has a batch"
    if len(plan.batches) > 1:
        try:
            return _Builder(trace_fixed(model, name, folder, plan, dims), name).build()
        except BatchVaries as error:
            reason = str(error)
    trace = Tracer(model, name, folder, plan.at_file_batch(), dims).run()
    return _Builder(trace, name, reason).build()


class _Builder:
    def __init__(self, trace: Trace, name: str, only_batch: str | None = None) -> None:
        self.trace, self.name, self.only_batch = trace, name, only_batch
        self.plan: BatchPlan = trace.plan
        self.makers = {
            output: (index, port)
            for index, step in enumerate(trace.steps)
            for port, output in enumerate(step.node.output)
            if output
        }
        self.shapes: dict[tuple[ValueType | None, ...], Shape] = {}
        self.used = {name for step in trace.steps for name in step.names} | set(trace.outputs)

    def build(self) -> OperatorGraph:
        kept = self._kept()
        number = {index: position for position, index in enumerate(kept)}
        seen: set[str] = set()
        operators, vertices = [], []
        edges: set[tuple[int, int]] = set()
        for position, index in enumerate(kept):
            step = self.trace.steps[index]
            operator, sources = self._operator(step, number, seen)
            operators.append(operator)
            told = hashed_attributes(operator.op_type, operator.attributes, self.trace.schema(step.node))
            label = (operator.domain, operator.op_type, told, self._output_types(step))
            vertices.append(Vertex(label, sources))
            edges |= {
                (position, s.vertex)
                for s in sources
                if s is not None and s.vertex is not None and s.vertex >= 0
            }
        inputs = tuple(self._spec(name) for name in self.trace.inputs)
        outputs = tuple(self._spec(name) for name in self.trace.outputs)
        ends = [self._source(name, self._value(name), number) for name in self.trace.outputs]
        columns = np.array([(source, target) for target, source in sorted(edges)], np.int64).reshape(-1, 2).T
        return OperatorGraph(
            name=self.name,
            opset=self.trace.opset,
            operators=tuple(operators),
            edges=np.ascontiguousarray(columns),
            inputs=inputs,
            outputs=outputs,
            graph_hash=graph_hash(vertices, [(spec.dtype, spec.shape) for spec in inputs], ends),
            params=sum(operator.params for operator in operators),
            fixed_batch=self.plan.fixed,
            only_batch=self.only_batch,
        )

    def _kept(self) -> list[int]:
        """Indices of the steps that are operators of the graph, in order."""
        kept, waiting = set(), list(self.trace.outputs)
        done: set[str] = set()
        while waiting:
            name = self._resolve(waiting.pop())
            if name in done or name not in self.makers:
                continue
            done.add(name)
            index, _ = self.makers[name]
            if not self.trace.steps[index].static and index not in kept:
                kept.add(index)
                waiting += [value for value in self.trace.steps[index].names if value]
        return sorted(kept)

    def _resolve(self, name: str) -> str:
        """The value that `name` is another name of, through what does nothing."""
        while True:
            if name in self.trace.aliases:
                name = self.trace.aliases[name]
            elif name in self.makers and self._does_nothing(self.trace.steps[self.makers[name][0]], name):
                name = self.trace.steps[self.makers[name][0]].names[0]
            else:
                return name

    def _does_nothing(self, step: Step, name: str) -> bool:
        node = step.node
        if node.domain not in MAIN_DOMAINS or step.static or name != node.output[0]:
            return False
        if node.op_type == "Identity":
            return True
        if node.op_type == "Cast":
            before, after = (
                value.types[0] if value is not None else None for value in (step.inputs[0], step.outputs[0])
            )
            return (
                isinstance(before, TensorType) and isinstance(after, TensorType) and before.elem == after.elem
            )
        if node.op_type != "Dropout" or any(output in self.used for output in node.output[1:]):
            return False
        training = step.inputs[2] if len(step.inputs) > 2 else None
        return training is None or (training.arrays[0] is not None and not training.arrays[0].any())

    def _operator(
        self, step: Step, number: Mapping[int, int], seen: set[str]
    ) -> tuple[Operator, tuple[Source | None, ...]]:
        node = step.node
        settings = SETTINGS.get(node.op_type, {}) if node.domain in MAIN_DOMAINS else {}
        inputs, weights, all_inputs, input_bytes, weight_bytes = [], [], [], [ZERO], [ZERO]
        sources: list[Source | None] = []
        params = 0
        for slot, (name, value) in enumerate(zip(step.names, step.inputs, strict=True)):
            shape = self._shape(value, step) if value is not None else None
            all_inputs.append(shape)
            if value is None or (value.static and slot in settings):
                sources.append(None)
                continue
            sources.append(self._source(name, value, number))
            if shape is None:
                continue
            size = _size(value.types[0], shape)
            if value.static:
                weights.append(shape)
                weight_bytes.append(size)
                if slot not in BUFFER_SLOTS.get(node.op_type, ()):
                    params += sum(self._trainable(root) for root in value.roots - seen)
                seen |= value.roots
            else:
                inputs.append(shape)
                input_bytes.append(size)
        outputs, output_bytes = [], [ZERO]
        for name, value in zip(node.output, step.outputs, strict=True):
            shape = self._shape(value, step) if value is not None and name in self.used else None
            if value is not None and shape is not None:
                outputs.append(shape)
                output_bytes.append(_size(value.types[0], shape))
        attributes = canonical_attributes(node, step.inputs)
        standard = node.domain in MAIN_DOMAINS or (node.domain, node.op_type) in ALIASES
        macs = multiply_adds(node.op_type, attributes, all_inputs, outputs) if standard else ZERO
        while sources and sources[-1] is None:
            sources.pop()
        operator = Operator(
            op_type=node.op_type,
            domain="" if node.domain in MAIN_DOMAINS else node.domain,
            name=node.name,
            attributes=attributes,
            input_shapes=tuple(inputs),
            weight_shapes=tuple(weights),
            output_shapes=tuple(outputs),
            dtype=_dtype(step.outputs[0].types[0]) if step.outputs and step.outputs[0] is not None else "",
            macs=macs,
            flops=operations(node.op_type, attributes, all_inputs, outputs, macs),
            input_bytes=total(input_bytes),
            weight_bytes=total(weight_bytes),
            output_bytes=total(output_bytes),
            params=params,
        )
        return operator, tuple(sources)

    def _source(self, name: str, value: Value, number: Mapping[int, int]) -> Source:
        if value.static:
            return Source(None, constant=(_dtype(value.types[0]), self._shape(value, None) or ()))
        resolved = self._resolve(name)
        if resolved in self.makers:
            index, port = self.makers[resolved]
            return Source(number[index], port)
        return Source(-1 - self.trace.inputs.index(resolved))

    def _output_types(self, step: Step) -> list[tuple[str, Shape]]:
        return [
            (_dtype(value.types[0]), self._shape(value, step) or ())
            for name, value in zip(step.node.output, step.outputs, strict=True)
            if value is not None and name in self.used
        ]

    def _trainable(self, root: str) -> int:
        """Elements of a constant if it is a parameter: floating point or quantised, not a single number."""
        value = self.trace.values.get(root)
        kind = value.types[0] if value is not None else None
        if value is None or value.varies or not isinstance(kind, TensorType) or not kind.shape:
            return 0
        dtype = _dtype(kind)
        quantised = dtype in ("int8", "uint8", "int4", "uint4") and len(kind.shape) > 1
        if not (quantised or "float" in dtype):
            return 0
        count = elements(self._shape(value, None) or ())(1)
        return count if count > 1 else 0

    def _value(self, name: str) -> Value:
        value = self.trace.values.get(name)
        if value is None:
            raise GraphError(self.name, "nothing makes it", where=f"output {name}")
        return value

    def _spec(self, name: str) -> TensorSpec:
        value = self._value(name)
        return TensorSpec(name, _dtype(value.types[0]), self._shape(value, None) or ())

    def _shape(self, value: Value, step: Step | None) -> Shape | None:
        """Dimensions as functions of the batch; None for what is no tensor."""
        if isinstance(value.types[0], bytes):
            return None
        key = tuple(value.types)
        if key not in self.shapes:
            self.shapes[key] = self._fit(value, describe(step.node) if step is not None else "")
        return self.shapes[key]

    def _fit(self, value: Value, where: str) -> Shape:
        shapes = [value.shape(point) for point in range(len(self.plan.batches))]
        known = [shape for shape in shapes if shape is not None]
        if len(known) < len(shapes) or len({len(shape) for shape in known}) > 1:
            if shapes[0] is not None:
                raise BatchVaries(f"{where}: its shape at other batches is not known")
            raise UnknownShapeError(
                self.name,
                "shape inference leaves a shape of it open: the file must declare it in value_info",
                where=where or None,
            )
        fitted = [fit_affine(self.plan.batches, dims) for dims in zip(*known, strict=True)]
        if None in fitted:
            raise BatchVaries(f"{where}: a dimension of it does not grow evenly with the batch")
        return tuple(dim for dim in fitted if dim is not None)


@lru_cache
def _dtype(kind: ValueType | None) -> str:
    if not isinstance(kind, TensorType) or not kind.elem:
        return ""
    return "str" if kind.elem == TensorProto.STRING else str(helper.tensor_dtype_to_np_dtype(kind.elem).name)


@lru_cache(maxsize=4096)
def _size(kind: ValueType | None, shape: Shape) -> BatchPolynomial:
    """Bytes of a tensor."""
    if not isinstance(kind, TensorType) or not kind.elem or kind.elem == TensorProto.STRING:
        return ZERO
    count = elements(shape)
    if kind.elem in SMALL_BITS:
        return BatchPolynomial(tuple(-(-c * SMALL_BITS[kind.elem] // 8) for c in count.coefficients))
    return count * int(helper.tensor_dtype_to_np_dtype(kind.elem).itemsize)
