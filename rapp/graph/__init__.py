"""Operator graphs from ONNX files.

`OperatorGraph.from_onnx(path)` reads a network; `with_batch(path, n)` rewrites one to another batch.
Importing this package does not import onnx.
"""

from __future__ import annotations

from rapp.graph.batch import with_batch
from rapp.graph.operator_graph import Operator, OperatorGraph, TensorSpec
from rapp.graph.polynomial import BatchPolynomial

__all__ = ["BatchPolynomial", "Operator", "OperatorGraph", "TensorSpec", "with_batch"]
