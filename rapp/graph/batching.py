"""Which dimensions of a network's inputs are the batch, and the batches at which its shapes are found out.

Shapes are inferred at three batches and fitted by affine functions: two points determine one, the third
checks it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from onnx import GraphProto, ValueInfoProto

from rapp.errors import UnknownShapeError
from rapp.graph.inference import TensorType, ValueType, type_from_proto
from rapp.graph.operands import SETTINGS

# Odd primes, so that no small dimension divides or equals them by accident; any three batches would do.
PROBES = (3, 7, 11)


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How a network is to be looked at.

    Args:
        fixed: the batch that the file was exported for; None: the file leaves it open.
        symbol: name of the open batch dimension; "" if it has none.
        batches: the batches to infer shapes at; the first is `fixed`, if it is a number.
        axes: for each graph input the dimension that is the batch, or None.
        ranks: for each graph input how many dimensions it has.
    """

    fixed: int | None
    symbol: str
    batches: tuple[int, ...]
    axes: dict[str, int | None]
    ranks: dict[str, int] = field(default_factory=dict)

    def readings(self) -> Iterator[BatchPlan]:
        """Which inputs carry a fixed batch, the likeliest reading first.

        All whose first dimension is the batch; or those that also have as many dimensions as the first of
        them (a vector beside images is rather a bias); or the first alone.
        """
        carrying = [name for name, axis in self.axes.items() if axis is not None]
        rank = self.ranks.get(carrying[0], 0) if carrying else 0
        alike = [name for name in carrying if self.ranks[name] == rank]
        seen: list[list[str]] = []
        for names in (carrying, alike, carrying[:1]):
            if names not in seen:
                seen.append(names)
                yield replace(self, axes={name: 0 if name in names else None for name in self.axes})

    def at_file_batch(self) -> BatchPlan:
        """The same network, looked at only at the batch that the file was exported for."""
        return replace(self, batches=self.batches[:1], axes=dict.fromkeys(self.axes))


def data_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """The inputs that a caller must give: older files list their weights among the inputs too."""
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {tensor.values.name for tensor in graph.sparse_initializer}
    return [value for value in graph.input if value.name not in constants]


def plan_batches(graph: GraphProto, name: str, dims: Mapping[str, int]) -> BatchPlan:
    """Find the batch in the inputs' shapes.

    The batch is the first dimension of the first input that has dimensions. If that is a symbol, then it is
    the batch wherever it occurs; if another symbol is called batch, that one is. If it is a number, then
    every input whose first dimension is this number may carry the batch (`BatchPlan.readings`).

    Args:
        graph: the network.
        name: its name for messages.
        dims: numbers for other symbols (sequence length, image height).

    Raises:
        UnknownShapeError: an input without a shape, or with an open dimension that is neither the batch nor
            in `dims`.
    """
    inputs = data_inputs(graph)
    symbols: list[str] = []
    first: int | str | None = None
    for value in inputs:
        if not value.type.HasField("tensor_type"):
            continue
        if not value.type.tensor_type.HasField("shape"):
            raise UnknownShapeError(name, "the input has no shape", where=f"input {value.name}")
        shape = value.type.tensor_type.shape.dim
        symbols += [dim.dim_param for dim in shape if not dim.HasField("dim_value")]
        if shape and first is None:
            first = (
                shape[0].dim_value
                if shape[0].HasField("dim_value")
                else dims.get(shape[0].dim_param, shape[0].dim_param)
            )
    called_batch = [symbol for symbol in symbols if "batch" in symbol.lower() and symbol not in dims]
    if isinstance(first, str) or called_batch:
        symbol = (
            first
            if isinstance(first, str) and "batch" in first.lower()
            else (called_batch or [str(first)])[0]
        )
        open_axes = {value.name: _symbolic_axis(value, symbol, name, dims) for value in inputs}
        return BatchPlan(None, symbol, PROBES, open_axes)
    settings = _used_as_settings(graph)
    fixed: dict[str, int | None] = {}
    for value in inputs:
        _symbolic_axis(value, None, name, dims)
        kind = type_from_proto(value.type, dims)
        carries = isinstance(kind, TensorType) and bool(kind.shape) and kind.shape[0] == first  # type: ignore[index]
        fixed[value.name] = 0 if carries and value.name not in settings else None
    if not first:
        return BatchPlan(1, "", (1,), dict.fromkeys(fixed))
    assert isinstance(first, int)
    probes = tuple(probe for probe in PROBES if probe != first)[:2]
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in inputs}
    return BatchPlan(first, "", (first, *probes), fixed, ranks)


def _used_as_settings(graph: GraphProto) -> set[str]:
    """Values that some operator takes for axes, bounds or a shape: they belong to no sample."""
    return {
        node.input[slot]
        for node in graph.node
        for slot in SETTINGS.get(node.op_type, ())
        if slot < len(node.input)
    }


def _symbolic_axis(
    value: ValueInfoProto, symbol: str | None, name: str, dims: Mapping[str, int]
) -> int | None:
    found = None
    for axis, dim in enumerate(value.type.tensor_type.shape.dim):
        if dim.HasField("dim_value") or dim.dim_param in dims:
            continue
        if symbol is None or dim.dim_param != symbol or (not symbol and axis != 0):
            label = dim.dim_param or f"dimension {axis}"
            raise UnknownShapeError(
                name, f"{label} is open and is not the batch: give it a number", where=f"input {value.name}"
            )
        found = axis if found is None else found
    return found


def input_types(value: ValueInfoProto, plan: BatchPlan, dims: Mapping[str, int]) -> list[ValueType | None]:
    """The type of a graph input at each of `plan.batches`."""
    result: list[ValueType | None] = []
    for batch in plan.batches:
        kind = type_from_proto(value.type, {**dims, **({plan.symbol: batch} if plan.fixed is None else {})})
        axis = plan.axes.get(value.name)
        if (
            plan.fixed is not None
            and axis is not None
            and isinstance(kind, TensorType)
            and kind.shape is not None
        ):
            shape = list(kind.shape)
            shape[axis] = batch
            kind = TensorType(kind.elem, tuple(shape))
        result.append(kind)
    return result
