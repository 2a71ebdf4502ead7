"""What a walk through a network knows of its values and operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import NodeProto

from rapp.graph.baked import Fix, Place
from rapp.graph.batching import BatchPlan
from rapp.graph.inference import TensorType, ValueType

Array = NDArray[Any]


@dataclass(slots=True)
class Value:
    """What is known of one value.

    Args:
        types: its type at each batch of the plan; None: not known.
        arrays: its content at each batch; None: not known, or too large to matter.
        static: it hangs on no data of an input.
        roots: the initializers and constants that it is made of, if static.
        place: where the batch is in it, in a fixed-batch file; None: nowhere.
    """

    types: list[ValueType | None]
    arrays: list[Array | None]
    static: bool = False
    roots: frozenset[str] = frozenset()
    place: Place | None = None

    def shape(self, point: int = 0) -> tuple[int, ...] | None:
        """Its dimensions at one batch of the plan; None unless it is a tensor of known shape."""
        kind = self.types[point]
        return kind.dims if isinstance(kind, TensorType) else None

    @property
    def varies(self) -> bool:
        """True if its shape hangs on the batch."""
        return any(kind != self.types[0] for kind in self.types[1:])


@dataclass(slots=True)
class Step:
    """One operator as it was met: inputs as they are after the fixes."""

    node: NodeProto
    names: list[str]
    inputs: list[Value | None]
    outputs: list[Value | None]
    static: bool


@dataclass(slots=True)
class Trace:
    """The walk's result; `values` by name, `steps` in order of execution.

    `schema` gives the definition of an operator, `aliases` the value that another one is a second name of.
    """

    plan: BatchPlan
    opset: int
    inputs: list[str]
    outputs: list[str]
    schema: Callable[[NodeProto], onnx.defs.OpSchema | None]
    values: dict[str, Value] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    fixes: list[Fix] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)


class BatchVaries(Exception):  # noqa: N818  an outcome: the file serves one batch only
    """The network cannot be carried to another batch; the message says at which operator and why."""


def describe(node: NodeProto) -> str:
    """An operator, for messages: its type and its name, or else its first output."""
    label = node.name or next(iter(node.output), "")
    return f"{node.domain + '.' if node.domain else ''}{node.op_type} '{label}'"
