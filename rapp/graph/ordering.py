"""The order in which a network's operators can run."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import onnx
from onnx import NodeProto

from rapp.errors import GraphError
from rapp.graph.values import describe


def captured_names(node: NodeProto) -> list[str]:
    """The values from outside that the subgraphs of a control-flow operator use, without its own inputs."""
    found: dict[str, None] = {}
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs:
            made = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
            for inner in graph.node:
                for name in [*inner.input, *captured_names(inner)]:
                    if name and name not in made:
                        found[name] = None
                made.update(inner.output)
            found |= {value.name: None for value in graph.output if value.name not in made}
    return [name for name in found if name not in node.input]


def ordered(nodes: Sequence[NodeProto], name: str) -> list[NodeProto]:
    """The nodes, each after those whose outputs it uses; in the file's order as far as that allows.

    Raises:
        GraphError: two nodes make one value, or they use each other in a circle.
    """
    makers: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for output in filter(None, node.output):
            if output in makers:
                raise GraphError(name, f"'{output}' is made twice", where=describe(node))
            makers[output] = index
    users: list[list[int]] = [[] for _ in nodes]
    missing = [0] * len(nodes)
    for index, node in enumerate(nodes):
        needed = {makers[value] for value in [*node.input, *captured_names(node)] if value in makers}
        missing[index] = len(needed)
        for maker in needed:
            users[maker].append(index)
    ready = [index for index, count in enumerate(missing) if count == 0]
    result = []
    while ready:
        index = heapq.heappop(ready)
        result.append(nodes[index])
        for user in users[index]:
            missing[user] -= 1
            if missing[user] == 0:
                heapq.heappush(ready, user)
    if len(result) < len(nodes):
        stuck = next(node for node, count in zip(nodes, missing, strict=True) if count)
        raise GraphError(name, "its operators use each other in a circle", where=describe(stuck))
    return result
