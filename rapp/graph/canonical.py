"""The hash of an operator graph: equal for equal networks, whatever their names, order or exporter.

Operators are coloured in the manner of Weisfeiler and Leman. First each operator gets a digest of itself and
of what it reads, from the inputs down (a Merkle hash); then one of that and of who reads it, from the outputs
up; then from the inputs down once more. The hash of the graph is the digest of the sorted colours. What a
digest holds of an operator: type, domain, attributes, data type and shape of outputs and weights with the
batch as a symbol. What it does not hold: names, values of weights, producer, opset.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rapp.graph.polynomial import Shape


@dataclass(frozen=True, slots=True)
class Source:
    """What one input of an operator reads: output `port` of vertex `vertex`, or, if that is None, a constant.

    Args:
        vertex: index of an operator; -1 - i stands for input i of the graph; None: a constant.
        port: which output of the vertex.
        constant: data type and shape of the constant.
    """

    vertex: int | None
    port: int = 0
    constant: tuple[str, Shape] | None = None


@dataclass(frozen=True, slots=True)
class Vertex:
    """One operator for hashing: what it is, and what each of its inputs reads (None: left out)."""

    label: tuple[Any, ...]
    sources: tuple[Source | None, ...]


def graph_hash(
    vertices: Sequence[Vertex], inputs: Sequence[tuple[str, Shape]], outputs: Sequence[Source]
) -> str:
    """SHA-256 of the DAG, 64 hexadecimal digits.

    Args:
        vertices: the operators, each after those that it reads.
        inputs: data type and shape of each input of the graph.
        outputs: what each output of the graph reads.
    """
    count = len(vertices)
    labels = {i: digest(["op", _plain(vertex.label)]) for i, vertex in enumerate(vertices)}
    labels |= {-1 - i: digest(["input", _plain(kind)]) for i, kind in enumerate(inputs)}
    order = [-1 - i for i in range(len(inputs))] + list(range(count))
    readers: dict[int, list[tuple[int, int, int]]] = {vertex: [] for vertex in order}
    for i, vertex in enumerate(vertices):
        for slot, source in enumerate(vertex.sources):
            if source is not None and source.vertex is not None:
                readers[source.vertex].append((i, slot, source.port))
    ends: dict[int, list[int]] = {vertex: [] for vertex in order}
    for source in outputs:
        if source.vertex is not None:
            ends[source.vertex].append(source.port)

    def down(colours: dict[int, str]) -> dict[int, str]:
        result: dict[int, str] = {}
        for vertex in order:
            read = [] if vertex < 0 else [_read(source, result) for source in vertices[vertex].sources]
            result[vertex] = digest([colours[vertex], read])
        return result

    def up(colours: dict[int, str]) -> dict[int, str]:
        result: dict[int, str] = {}
        for vertex in reversed(order):
            read_by = sorted([result[reader], slot, port] for reader, slot, port in readers[vertex])
            result[vertex] = digest([colours[vertex], read_by, sorted(ends[vertex])])
        return result

    final = down(up(down(labels)))
    return digest(sorted(final.values()))


def _read(source: Source | None, colours: dict[int, str]) -> Any:
    if source is None:
        return None
    if source.vertex is None:
        return ["constant", _plain(source.constant)]
    return [colours[source.vertex], source.port]


def _plain(value: Any) -> Any:
    """Tuples, dicts and polynomials as JSON."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if hasattr(value, "coefficients"):
        return list(value.coefficients)
    return value


def digest(content: Any) -> str:
    """SHA-256 of JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
