"""Short views of an operator graph: its operators, edges and shapes."""

from __future__ import annotations

from collections.abc import Callable

from onnx import ModelProto, helper

from rapp.graph import OperatorGraph

node = helper.make_node
Make = Callable[..., ModelProto]


def kinds(graph: OperatorGraph) -> list[str]:
    return [op.op_type for op in graph.operators]


def wires(graph: OperatorGraph) -> list[tuple[str, str]]:
    return [(graph.operators[s].op_type, graph.operators[t].op_type) for s, t in graph.edges.T]


def shapes(graph: OperatorGraph, batch: int) -> list[tuple[int, ...]]:
    return [tuple(dim(batch) for dim in op.output_shapes[0]) for op in graph.operators]
