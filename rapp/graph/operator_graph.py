"""The operator graph: what a network computes, as arrays that a predictor can read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rapp.errors import BatchRewriteError
from rapp.graph.cost import VIEWS
from rapp.graph.polynomial import BatchPolynomial, Shape, total

if TYPE_CHECKING:
    from onnx import ModelProto

Quantity = Literal["macs", "flops", "input_bytes", "weight_bytes", "output_bytes"]


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of a network. Dimensions and quantities are functions of the batch.

    Args:
        op_type: ONNX operator type, such as `Conv`.
        domain: its domain; "" for ONNX's own operators.
        name: the node's name in the file, for people; no part of the graph's hash.
        attributes: numbers, strings and lists of them; settings that newer operator sets pass as inputs
            (axes, pads, bounds) are among them. A tensor or subgraph is named by the SHA-256 of its content.
        input_shapes: shapes of the inputs that hang on the network's input, in order.
        weight_shapes: shapes of the inputs that do not (parameters, buffers, constants), in order.
        output_shapes: shapes of the outputs.
        dtype: data type of the first output, a numpy name such as `float32`; "" if it is no tensor.
        macs: multiply-adds (convolutions and matrix products alone).
        flops: floating point operations: `2 * macs` plus those of all other operators (`rapp.graph.cost`).
        input_bytes: size of the inputs, bytes.
        weight_bytes: size of the weights, bytes.
        output_bytes: size of the outputs, bytes.
        params: trainable numbers that no operator before it uses.
    """

    op_type: str
    domain: str
    name: str
    attributes: Mapping[str, Any]
    input_shapes: tuple[Shape, ...]
    weight_shapes: tuple[Shape, ...]
    output_shapes: tuple[Shape, ...]
    dtype: str
    macs: BatchPolynomial
    flops: BatchPolynomial
    input_bytes: BatchPolynomial
    weight_bytes: BatchPolynomial
    output_bytes: BatchPolynomial
    params: int

    @property
    def is_view(self) -> bool:
        """True if the output is the input's memory under another shape: PyTorch launches nothing for it."""
        return self.domain == "" and self.op_type in VIEWS


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of the network: its name, data type (a numpy name) and shape."""

    name: str
    dtype: str
    shape: Shape


@dataclass(frozen=True)
class OperatorGraph:
    """The DAG of a network's operators: those that hang on the data of an input and that an output hangs on.

    Left out are what a runtime settles before it runs: constants, arithmetic on shapes, operators on weights
    alone; what does nothing: Identity, Dropout outside training, Cast to the same type; and what no output
    needs. Edges lead through what is left out.

    Args:
        name: path or name of the network, for messages.
        opset: version of ONNX's operator set in the file.
        operators: V operators in an order of execution.
        edges: (2, E) array of int64, row 0 the source, row 1 the target: one column for each pair of
            operators of which the second reads an output of the first; sorted by target, then source.
        inputs: the network's inputs.
        outputs: the network's outputs.
        graph_hash: SHA-256 of the canonical DAG, 64 hexadecimal digits (`rapp.graph.canonical`).
        params: trainable numbers; running means and variances are none.
        fixed_batch: the batch that the file was exported for; None: it leaves the batch open.
        only_batch: why the network cannot be carried to another batch than `fixed_batch`; None: it can.
    """

    name: str
    opset: int
    operators: tuple[Operator, ...]
    edges: NDArray[np.int64]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    graph_hash: str
    params: int
    fixed_batch: int | None = None
    only_batch: str | None = None
    _coefficients: dict[str, NDArray[np.float64]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_onnx(
        cls, source: str | Path | ModelProto, *, dims: Mapping[str, int] | None = None
    ) -> OperatorGraph:
        """Read an ONNX file, weights excepted.

        Args:
            source: the file, or a model in memory. The tensors of a structure-only file may lack their data.
            dims: numbers for open dimensions other than the batch, by their symbol, such as `{"seq": 128}`.

        Raises:
            GraphError: there is no such file, it is not an ONNX network, is truncated, contradicts itself, or
                refers to data outside its folder.
            UnknownShapeError: the shape of an operator's output, or of an input, cannot be told.
        """
        from rapp.graph.build import build_graph

        return build_graph(source, dims or {})

    @classmethod
    def from_json(cls, text: str) -> OperatorGraph:
        """The inverse of `to_json`.

        Raises:
            GraphError: the text is not an operator graph, or of another version.
        """
        from rapp.graph.serialise import graph_from_json

        return graph_from_json(text)

    def to_json(self) -> str:
        """The whole graph as compact JSON, to keep it beside its file."""
        from rapp.graph.serialise import graph_to_json

        return graph_to_json(self)

    def __len__(self) -> int:
        return len(self.operators)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, OperatorGraph):
            return NotImplemented
        mine, theirs = (
            (
                g.name,
                g.opset,
                g.operators,
                g.inputs,
                g.outputs,
                g.graph_hash,
                g.params,
                g.fixed_batch,
                g.only_batch,
            )
            for g in (self, other)
        )
        return mine == theirs and np.array_equal(self.edges, other.edges)

    def __hash__(self) -> int:
        return hash(self.graph_hash)

    def array(self, quantity: Quantity, batch: int) -> NDArray[np.float64]:
        """`quantity` of each operator at one batch, shape (V,): multiply-adds, operations or bytes.

        Raises:
            BatchRewriteError: the network serves another batch only.
        """
        self.check_batch(batch)
        if quantity not in self._coefficients:
            polynomials: list[BatchPolynomial] = [getattr(op, quantity) for op in self.operators]
            degree = max((len(p.coefficients) for p in polynomials), default=0) or 1
            table = np.zeros((len(polynomials), degree))
            for row, polynomial in enumerate(polynomials):
                table[row, : len(polynomial.coefficients)] = polynomial.coefficients
            self._coefficients[quantity] = table
        table = self._coefficients[quantity]
        values: NDArray[np.float64] = table @ (float(batch) ** np.arange(table.shape[1]))
        return values

    def total(self, quantity: Quantity, batch: int = 1) -> int:
        """Sum of `quantity` over all operators, exactly.

        Raises:
            BatchRewriteError: the network serves another batch only.
        """
        self.check_batch(batch)
        return self._totals[quantity](batch)

    def macs(self, batch: int = 1) -> int:
        """Multiply-adds of one run."""
        return self.total("macs", batch)

    def flops(self, batch: int = 1) -> int:
        """Floating point operations of one run."""
        return self.total("flops", batch)

    @cached_property
    def _totals(self) -> dict[str, BatchPolynomial]:
        names: tuple[Quantity, ...] = ("macs", "flops", "input_bytes", "weight_bytes", "output_bytes")
        return {name: total(getattr(op, name) for op in self.operators) for name in names}

    @cached_property
    def op_counts(self) -> dict[str, int]:
        """How many operators there are of each type, the most frequent first."""
        return dict(Counter(op.op_type for op in self.operators).most_common())

    def check_batch(self, batch: int) -> None:
        """Raise BatchRewriteError if the graph does not serve `batch`."""
        if batch < 1:
            raise BatchRewriteError(self.name, f"batch {batch}: it must be 1 or more")
        if self.only_batch is not None and batch != self.fixed_batch:
            raise BatchRewriteError(self.name, f"it serves batch {self.fixed_batch} only: {self.only_batch}")
