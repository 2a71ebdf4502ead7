"""A network as it is served: its tensors, and where they lie in a slot of shared memory.

A slot holds the inputs and outputs of one sample. A sample is one row of a request's batch or, of a network
that has no batch, the whole request.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ALIGNMENT_BYTES = 64
"""Of every tensor in a slot: a cache line, so that vector loads never straddle two tensors."""

DATATYPES: Mapping[str, str] = {
    "bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64",
    **{f"{sign}int{bits}": f"{sign}int{bits}".upper() for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip
"""numpy's names of types -> those of the Open Inference Protocol v2."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a network.

    Args:
        name: its name. dtype: numpy's name of its type.
        shape: of one sample: without the batch, if the network has one.
        offset: where it begins in a slot, bytes. size: of one sample, bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int

    @property
    def datatype(self) -> str:
        """The protocol's name of its type."""
        return DATATYPES[self.dtype]


@dataclass(frozen=True, slots=True)
class ServedNetwork:
    """What gateway and workers have to know of a network.

    Args:
        file: the ONNX file that workers load, with its batch open if it is batched.
        batched: whether the first dimension of all inputs and outputs is the batch.
        inputs, outputs: in the network's order.
        slot_bytes: size of a slot.
        memory_mib: what a process that ran it once had resident at most, MiB.
    """

    file: Path
    batched: bool
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    slot_bytes: int
    memory_mib: float

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ServedNetwork:
        """The network that `to_json` wrote."""
        inputs, outputs = (
            tuple(Tensor(**{**one, "shape": tuple(one["shape"])}) for one in content[name])
            for name in ("inputs", "outputs")
        )
        return cls(
            Path(content["file"]), content["batched"], inputs, outputs,
            content["slot_bytes"], content["memory_mib"],
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """An object that JSON can hold."""
        tensors = {
            name: [
                {"name": one.name, "dtype": one.dtype, "shape": list(one.shape),
                 "offset": one.offset, "size": one.size}
                for one in getattr(self, name)
            ]
            for name in ("inputs", "outputs")
        }  # fmt: skip
        return {
            "file": str(self.file), "batched": self.batched, **tensors,
            "slot_bytes": self.slot_bytes, "memory_mib": self.memory_mib,
        }  # fmt: skip


def lay_out(
    inputs: list[tuple[str, str, tuple[int, ...]]], outputs: list[tuple[str, str, tuple[int, ...]]]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], int]:
    """Place tensors in a slot.

    Args:
        inputs, outputs: name, numpy's type and shape of a sample, each.

    Returns:
        The tensors of both, and the size of a slot, bytes.
    """
    import numpy as np

    offset, placed = 0, []
    for name, dtype, shape in (*inputs, *outputs):
        size = math.prod(shape) * np.dtype(dtype).itemsize
        placed.append(Tensor(name, dtype, shape, offset, size))
        offset = -(-(offset + size) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    return tuple(placed[: len(inputs)]), tuple(placed[len(inputs) :]), max(offset, ALIGNMENT_BYTES)
