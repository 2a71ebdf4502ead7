"""Inputs to run a network on, the same for the same seed on every machine and at every SM partition.

Floats are standard normal. Integers of 32 and 64 bits are 0 or 1, which every table of embeddings has;
those of 8 and 16 bits take their whole range, as pixels do. A larger batch begins with the samples of a
smaller one.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rapp.errors import ConfigError, RappError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Array = NDArray[Any]

# ONNX Runtime's names of tensor types that numpy has.
_DTYPES: Mapping[str, str] = {
    "bool": "bool",
    "double": "float64",
    "float": "float32",
    "float16": "float16",
    **{name: name for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
}


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of a network.

    Args:
        name: its name.
        dtype: numpy's name of its type.
        shape: its dimensions; a text is the symbol of an open one, None an open one without a symbol.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


def session_inputs(session: InferenceSession) -> tuple[InputSpec, ...]:
    """The inputs of a session of ONNX Runtime, in its order.

    Raises:
        RappError: an input is no tensor, or one of texts.
    """
    specs = []
    for value in session.get_inputs():
        dtype = _DTYPES.get(value.type.removeprefix("tensor(").removesuffix(")"))
        if dtype is None:
            raise RappError(
                f"input {value.name} is {value.type}: inputs are made for numbers and booleans alone"
            )
        specs.append(InputSpec(value.name, dtype, tuple(value.shape)))
    return tuple(specs)


def seeded_inputs(
    inputs: Sequence[InputSpec] | InferenceSession,
    batch: int,
    *,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
) -> dict[str, Array]:
    """Arrays for every input, by name.

    The batch is the open dimension whose symbol contains "batch", or else the first dimension of the first
    input that has dimensions, if that is open. Where all dimensions are numbers, they are taken as they are,
    and the batch as the first.

    Args:
        inputs: what to make, or a session that needs them.
        batch: samples, >= 1.
        seed: another seed, other values.
        dims: numbers for the other open dimensions, by their symbol.

    Raises:
        ConfigError: a batch below 1; an open dimension that is neither the batch nor in `dims`.
        RappError: an input is no tensor, or one of texts.
    """
    if batch < 1:
        raise ConfigError(f"batch is {batch}: it must be 1 or more")
    specs = inputs if isinstance(inputs, Sequence) else session_inputs(inputs)
    dims = dims or {}
    symbol = _batch_symbol(specs, dims)
    return {spec.name: _array(spec, batch, symbol, seed, dims) for spec in specs}


def _batch_symbol(specs: Sequence[InputSpec], dims: Mapping[str, int]) -> str | None:
    """The symbol of the batch; None: it has none."""
    symbols = [dim for spec in specs for dim in spec.shape if isinstance(dim, str) and dim not in dims]
    named = [dim for dim in symbols if "batch" in dim.lower()]
    first = next((spec.shape[0] for spec in specs if spec.shape), None)
    if isinstance(first, str) and first in symbols and (not named or first in named):
        return first
    return named[0] if named else None


def _array(spec: InputSpec, batch: int, symbol: str | None, seed: int, dims: Mapping[str, int]) -> Array:
    shape, batch_axis = [], 0
    for axis, dim in enumerate(spec.shape):
        if isinstance(dim, int):
            shape.append(dim)
        elif isinstance(dim, str) and dim in dims:
            shape.append(dims[dim])
        elif (dim is not None and dim == symbol) or (dim is None and axis == 0):
            shape.append(batch)
            batch_axis = axis
        else:
            label = dim or f"dimension {axis}"
            raise ConfigError(f"input {spec.name}: {label} is open and is not the batch: give it a number")
    if not shape:
        return _values(spec, (), seed)
    # Filled sample by sample, so that the first samples do not depend on how many follow.
    rest = shape[:batch_axis] + shape[batch_axis + 1 :]
    values = _values(spec, (shape[batch_axis], *rest), seed)
    return np.ascontiguousarray(np.moveaxis(values, 0, batch_axis))


def _values(spec: InputSpec, shape: tuple[int, ...], seed: int) -> Array:
    random = np.random.default_rng((seed, zlib.crc32(spec.name.encode())))
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return np.asarray(random.standard_normal(shape, dtype=np.float32)).astype(dtype)
    if dtype.kind == "b" or dtype.itemsize > 2:
        return np.asarray(random.integers(0, 2, shape)).astype(dtype)
    span = np.iinfo(dtype)
    return np.asarray(random.integers(span.min, span.max, shape, dtype=dtype, endpoint=True))
