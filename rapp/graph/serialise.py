"""An operator graph as compact JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from rapp.errors import GraphError
from rapp.graph.operator_graph import Operator, OperatorGraph, TensorSpec
from rapp.graph.polynomial import BatchPolynomial, Shape

FORMAT_VERSION = 1
_SHAPES = ("input_shapes", "weight_shapes", "output_shapes")
_POLYNOMIALS = ("macs", "flops", "input_bytes", "weight_bytes", "output_bytes")


def graph_to_json(graph: OperatorGraph) -> str:
    """Dimensions and quantities are integers, or lists of coefficients of 1, batch, batch^2."""
    content = {
        "format": "rapp-operator-graph",
        "version": FORMAT_VERSION,
        "name": graph.name,
        "opset": graph.opset,
        "graph_hash": graph.graph_hash,
        "params": graph.params,
        "fixed_batch": graph.fixed_batch,
        "only_batch": graph.only_batch,
        "inputs": [[spec.name, spec.dtype, _shape(spec.shape)] for spec in graph.inputs],
        "outputs": [[spec.name, spec.dtype, _shape(spec.shape)] for spec in graph.outputs],
        "edges": graph.edges.tolist(),
        "operators": [
            {
                "op_type": op.op_type,
                "domain": op.domain,
                "name": op.name,
                "attributes": dict(op.attributes),
                "dtype": op.dtype,
                "params": op.params,
                **{field: [_shape(shape) for shape in getattr(op, field)] for field in _SHAPES},
                **{field: _number(getattr(op, field)) for field in _POLYNOMIALS},
            }
            for op in graph.operators
        ],
    }
    return json.dumps(content, separators=(",", ":"))


def graph_from_json(text: str) -> OperatorGraph:
    """The inverse of `graph_to_json`.

    Raises:
        GraphError: the text is not an operator graph, or of another version.
    """
    try:
        content = json.loads(text)
        if content.get("format") != "rapp-operator-graph":
            raise GraphError("<JSON>", "is not an operator graph")
        if content["version"] != FORMAT_VERSION:
            raise GraphError(
                "<JSON>",
                f"is of format version {content['version']}, this RaPP reads {FORMAT_VERSION}: build it anew",
            )
        return OperatorGraph(
            name=content["name"],
            opset=content["opset"],
            operators=tuple(_operator(entry) for entry in content["operators"]),
            edges=np.array(content["edges"], np.int64).reshape(2, -1),
            inputs=tuple(TensorSpec(name, dtype, _dims(shape)) for name, dtype, shape in content["inputs"]),
            outputs=tuple(TensorSpec(name, dtype, _dims(shape)) for name, dtype, shape in content["outputs"]),
            graph_hash=content["graph_hash"],
            params=content["params"],
            fixed_batch=content["fixed_batch"],
            only_batch=content["only_batch"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GraphError("<JSON>", f"is not an operator graph ({error})") from error


def _operator(entry: dict[str, Any]) -> Operator:
    fields: dict[str, Any] = {**entry}
    fields |= {field: tuple(_dims(shape) for shape in entry[field]) for field in _SHAPES}
    fields |= {field: _polynomial(entry[field]) for field in _POLYNOMIALS}
    return Operator(**fields)


def _number(value: BatchPolynomial) -> int | list[int]:
    return value(0) if value.is_constant else list(value.coefficients)


def _polynomial(value: int | list[int]) -> BatchPolynomial:
    return BatchPolynomial((value,) if isinstance(value, int) else tuple(value))


def _shape(shape: Shape) -> list[int | list[int]]:
    return [_number(dim) for dim in shape]


def _dims(shape: list[int | list[int]]) -> Shape:
    return tuple(_polynomial(dim) for dim in shape)
