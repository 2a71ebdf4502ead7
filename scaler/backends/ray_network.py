"""A function and its network as they travel through a Ray cluster, and which requests it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rapp.runtime.inputs import InputSpec

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class RayNetwork:
    """An ONNX network with an open batch.

    Args:
        content: the file, weights included. inputs: what it takes. outputs: names of what it gives.
    """

    content: bytes
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]

    @classmethod
    def read(cls, file: Path) -> RayNetwork:
        """Read a file, and open its batch.

        Raises:
            GraphError: it cannot be read, or not be carried to an open batch.
        """
        from rapp.graph import with_batch
        from rapp.graph.batching import data_inputs

        model = with_batch(file, None)
        return cls(
            model.SerializeToString(),
            tuple(_spec(value) for value in data_inputs(model.graph)),
            tuple(value.name for value in model.graph.output),
        )

    def why_not(self, tensors: Tensors) -> str | None:
        """Why these are not the tensors of a request, of batch 1; None: they are."""
        if set(tensors) != {spec.name for spec in self.inputs}:
            return f"its inputs are {', '.join(spec.name for spec in self.inputs)}, not {', '.join(tensors)}"
        for spec in self.inputs:
            given = tensors[spec.name]
            wanted = (1, *spec.shape[1:])
            fits = len(given.shape) == len(wanted) and all(
                not isinstance(dim, int) or dim == size for dim, size in zip(wanted, given.shape, strict=True)
            )
            if given.dtype != spec.dtype or not fits:
                shown = "x".join(str(dim) for dim in wanted)
                return (
                    f"input {spec.name} is {spec.dtype} of {shown}, not {given.dtype} of"
                    f" {'x'.join(map(str, given.shape))}"
                )
        return None


@dataclass(frozen=True, slots=True)
class RayFunction:
    """A function as the router needs it.

    Args:
        network: what it runs. slo_ms: its objective. memory_mib: of one instance.
        others as in `FunctionSpec`.
    """

    name: str
    network: RayNetwork
    slo_ms: float
    slo_quantile: float
    max_batch: int
    max_batch_delay_ms: float
    queue_limit: int
    memory_mib: float


def _spec(value: Any) -> InputSpec:
    from onnx.helper import tensor_dtype_to_np_dtype

    kind = value.type.tensor_type
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in kind.shape.dim
    )
    return InputSpec(value.name, str(tensor_dtype_to_np_dtype(kind.elem_type)), shape)
