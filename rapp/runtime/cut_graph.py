"""`CutGraph`: a network as operators in order, of which any stretch can be taken out as a network of its own.

What hangs on no input (weights, constants, arithmetic on them) has no place in the order: each stretch takes
along what it needs of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from rapp.errors import GraphError
from rapp.graph import OperatorGraph
from rapp.graph.batching import data_inputs, plan_batches
from rapp.graph.folding import RANDOM_OPS
from rapp.graph.inference import TensorType
from rapp.graph.loading import LARGEST_FOLDED, MAIN_DOMAINS, is_external, load_model, tensor_value
from rapp.graph.ordering import captured_names, ordered
from rapp.graph.tracing import Tracer
from rapp.graph.values import BatchVaries, Value


class CutGraph:
    """A network whose weights stay where `model` has them.

    Attributes:
        name: path or name of the network, for messages.
        folder: where its external data are; None: it has none.
        inputs, outputs: names of the network's inputs and outputs.
        nodes: operators that hang on an input and that an output hangs on, in order of execution.
        makers: value -> place of the operator that makes it.
        readers: value -> places of the operators that read it, ascending.
    """

    def __init__(self, model: ModelProto, name: str, folder: Path | None, dims: Mapping[str, int]) -> None:
        self.model, self.name, self.dims = model, name, dims
        graph = model.graph
        self.folder = folder if any(is_external(tensor) for tensor in graph.initializer) else None
        self.inputs = [value.name for value in data_inputs(graph)]
        self.outputs = [value.name for value in graph.output]
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.sparse = {tensor.values.name: tensor for tensor in graph.sparse_initializer}
        # Operators that hang on no input, in order, and which of them makes a value.
        self.static_nodes: list[NodeProto] = []
        self.static: dict[str, int] = {}
        dynamic = [node for node in ordered(graph.node, name) if not self._keep_static(node)]
        self.nodes = _needed(dynamic, self.outputs)
        self.makers: dict[str, int] = {}
        self.readers: dict[str, list[int]] = {}
        for place, node in enumerate(self.nodes):
            self.makers |= {value: place for value in node.output if value}
            for value in reads(node):
                self.readers.setdefault(value, []).append(place)

    @classmethod
    def load(cls, source: str | Path | ModelProto, dims: Mapping[str, int]) -> CutGraph:
        """See `CuttableNetwork.load`."""
        model, name, folder = load_model(source)
        if folder is None and any(is_external(tensor) for tensor in model.graph.initializer):
            raise GraphError(name, "its weights are external data, whose folder is not known: pass the path")
        return cls(model, name, folder, dims)

    def crossing(self) -> list[list[str]]:
        """For each place from 0 to V the values that are there before it and read from it on."""
        found: list[list[str]] = [[] for _ in range(len(self.nodes) + 1)]
        for value, readers in self.readers.items():
            if value in self.makers or value in self.inputs:
                for place in range(self.makers.get(value, -1) + 1, readers[-1] + 1):
                    found[place].append(value)
        return found

    def repeated_bytes(self) -> NDArray[np.int64]:
        """(V + 1,) bytes of the weights that are needed both before each place and from it on."""
        first: dict[str, int] = {}
        last: dict[str, int] = {}
        for value, readers in self.readers.items():
            for root in self._roots(value):
                first[root] = min(first.get(root, readers[0]), readers[0])
                last[root] = max(last.get(root, readers[-1]), readers[-1])
        steps = np.zeros(len(self.nodes) + 2, np.int64)
        for root in first:
            steps[first[root] + 1] += self._bytes(root)
            steps[last[root] + 1] -= self._bytes(root)
        return np.cumsum(steps)[:-1]

    def is_tensor(self, name: str) -> bool:
        """Whether the value is a tensor of known data type, which alone can go from part to part."""
        value = self._values.get(name)
        return value is not None and isinstance(value.types[0], TensorType) and value.types[0].elem != 0

    def operator_graph(self) -> OperatorGraph:
        """The operators with what they cost; the name of each is its place."""
        return OperatorGraph.from_onnx(self._structure, dims=self.dims)

    def ends(self, first: int, end: int) -> tuple[list[str], list[str]]:
        """Names of what the operators from `first` to `end` (excluded) take from before, and leave for later.

        What they leave includes those of the network's outputs that they make.
        """
        inside = self.nodes[first:end]
        read = dict.fromkeys(value for node in inside for value in reads(node))
        taken = [value for value in read if value in self.inputs or self.makers.get(value, end) < first]
        left = [
            value
            for node in inside
            for value in node.output
            if value in self.outputs or (value in self.readers and self.readers[value][-1] >= end)
        ]
        if end == len(self.nodes):
            left += [value for value in self.outputs if value in self.static or value in self.weights]
        return taken, left

    def is_done(self, name: str, end: int) -> bool:
        """Whether nobody needs the value once all operators before `end` have run."""
        return name not in self.outputs and all(reader < end for reader in self.readers.get(name, []))

    def part(self, first: int, end: int) -> ModelProto:
        """The operators from `first` to `end` (excluded) as a network; external data stay external."""
        taken, left = self.ends(first, end)
        inside = self.nodes[first:end]
        read = [value for node in inside for value in reads(node)]
        before, weights = self._made_of([*read, *left])
        names = {value for node in (*before, *inside) for value in node.output}
        graph = GraphProto(name=f"{self.model.graph.name or 'network'}_{first}_{end}")
        graph.input.extend(self._value_info(value) for value in taken)
        # Older files list weights among the inputs. Such weights can be overridden: no runtime folds them.
        graph.input.extend(info for info in self.model.graph.input if info.name in weights)
        graph.output.extend(self._value_info(value) for value in left)
        graph.node.extend([*before, *inside])
        graph.initializer.extend(w for name, w in self.weights.items() if name in weights)
        graph.sparse_initializer.extend(w for name, w in self.sparse.items() if name in weights)
        graph.value_info.extend(
            info for info in self.model.graph.value_info if info.name in names and info.name not in left
        )
        return ModelProto(
            ir_version=self.model.ir_version,
            opset_import=self.model.opset_import,
            producer_name=self.model.producer_name,
            graph=graph,
        )

    def _keep_static(self, node: NodeProto) -> bool:
        """Whether the operator hangs on no input; if so it is kept aside."""
        read = reads(node)
        if node.op_type in RANDOM_OPS or not (read or node.domain in MAIN_DOMAINS):
            return False
        if any(not (value in self.weights or value in self.sparse or value in self.static) for value in read):
            return False
        self.static |= {value: len(self.static_nodes) for value in node.output if value}
        self.static_nodes.append(node)
        return True

    def _made_of(self, values: Iterable[str]) -> tuple[list[NodeProto], set[str]]:
        """The static operators, in order, and the weights, of which those among `values` are made."""
        nodes: set[int] = set()
        weights: set[str] = set()
        waiting = list(values)
        while waiting:
            value = waiting.pop()
            if value in self.weights or value in self.sparse:
                weights.add(value)
            elif value in self.static and self.static[value] not in nodes:
                nodes.add(self.static[value])
                waiting += reads(self.static_nodes[self.static[value]])
        return [self.static_nodes[place] for place in sorted(nodes)], weights

    def _roots(self, value: str) -> list[str]:
        """The weights, and what operators without inputs make, of which a static value is made."""
        nodes, weights = self._made_of([value])
        return [*weights, *(_key(node) for node in nodes if not reads(node))]

    def _bytes(self, name: str) -> int:
        value = self._values.get(name)
        kind = value.types[0] if value is not None else None
        if not isinstance(kind, TensorType) or kind.dims is None or kind.elem in (0, TensorProto.STRING):
            return 0
        return math.prod(kind.dims) * int(helper.tensor_dtype_to_np_dtype(kind.elem).itemsize)

    def _value_info(self, name: str) -> ValueInfoProto:
        declared = {info.name: info for info in (*self.model.graph.input, *self.model.graph.output)}
        if name in declared:
            return declared[name]
        kinds = self._values[name].types
        assert isinstance(kinds[0], TensorType)
        shapes = [kind.shape if isinstance(kind, TensorType) else None for kind in kinds]
        known = [shape for shape in shapes if shape is not None]
        if len(known) < len(shapes) or len({len(shape) for shape in known}) > 1:
            return helper.make_tensor_value_info(name, kinds[0].elem, None)
        # A dimension that hangs on the batch is left open.
        dims = [sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*known, strict=True)]
        return helper.make_tensor_value_info(name, kinds[0].elem, dims)

    @cached_property
    def _values(self) -> Mapping[str, Value]:
        """What is known of each value: data type, and shape at several batches if the batch is open."""
        structure = self._structure
        plan = plan_batches(structure.graph, self.name, self.dims)
        plan = plan if plan.fixed is None else plan.at_file_batch()
        try:
            return Tracer(structure, self.name, None, plan, self.dims).run().values
        except BatchVaries as error:
            raise GraphError(self.name, str(error)) from error

    @cached_property
    def _structure(self) -> ModelProto:
        """The network without its larger weights, each operator named after its place."""
        graph = self.model.graph
        copy = ModelProto(ir_version=self.model.ir_version, opset_import=self.model.opset_import)
        copy.graph.name = self.name
        copy.graph.input.extend(graph.input)
        copy.graph.output.extend(graph.output)
        copy.graph.value_info.extend(graph.value_info)
        copy.graph.sparse_initializer.extend(graph.sparse_initializer)
        for tensor in graph.initializer:
            copy.graph.initializer.append(self._without_data(tensor))
        copy.graph.node.extend(graph.node)
        places = {_key(node): place for place, node in enumerate(self.nodes)}
        for node in copy.graph.node:
            _rename([node], str(places.get(_key(node), -1)))
        return copy

    def _without_data(self, tensor: TensorProto) -> TensorProto:
        if math.prod(tensor.dims) > LARGEST_FOLDED:
            return TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
        if is_external(tensor):
            value = tensor_value(tensor, self.folder, self.name)
            if value is not None:
                return numpy_helper.from_array(value, tensor.name)
        return tensor


def reads(node: NodeProto) -> list[str]:
    """The values that an operator and its subgraphs read from outside."""
    return [value for value in [*node.input, *captured_names(node)] if value]


def _key(node: NodeProto) -> str:
    """The first output of an operator, which no other operator makes."""
    return next(filter(None, node.output), "")


def _needed(nodes: Sequence[NodeProto], outputs: Iterable[str]) -> list[NodeProto]:
    wanted = set(outputs)
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(reads(node))
    return kept[::-1]


def _rename(nodes: Iterable[NodeProto], name: str) -> None:
    for node in nodes:
        node.name = name
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                _rename(attribute.g.node, name)
            for graph in attribute.graphs:
                _rename(graph.node, name)
