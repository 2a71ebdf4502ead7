"""Values of a tensor as JSON: those that a request holds, and those of an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from scaler.serving.network import Tensor
from scaler.serving.requests import BadRequestError

AT_ONCE = 8192
"""Values of an answer that are written in one turn of the event loop: 0.2 ms."""


async def json_of_values(array: NDArray[Any]) -> orjson.Fragment:
    """A flat array as a list in JSON; its numbers have to be finite."""
    pieces = []
    for start in range(0, max(len(array), 1), AT_ONCE):
        if start:
            await asyncio.sleep(0)
        pieces.append(orjson.dumps(array[start : start + AT_ONCE], option=orjson.OPT_SERIALIZE_NUMPY)[1:-1])
    return orjson.Fragment(b"[%s]" % b",".join(pieces))


def values_of_json(one: Mapping[str, Any], tensor: Tensor, samples: int) -> memoryview:
    """The bytes of an input whose values are in the JSON, flat or nested.

    Args:
        one: the input as JSON object. samples: how many its shape says.

    Raises:
        BadRequestError: they are too few or many, or not of the tensor's type.
    """
    if tensor.dtype == "float16":
        raise BadRequestError(f"input {tensor.name}: FP16 has no values in JSON: send them in binary")
    data = one.get("data")
    if not isinstance(data, list):
        raise BadRequestError(f"input {tensor.name}: data must be a list, or binary_data_size be given")
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise BadRequestError(f"input {tensor.name}: data is no regular array") from error
    target = np.dtype(tensor.dtype)
    expected = samples * tensor.size // target.itemsize
    if array.size != expected:
        raise BadRequestError(f"input {tensor.name}: data has {array.size} values, its shape {expected}")
    # Booleans are no numbers, numbers no booleans, and fractions no integers.
    if target.kind in "iu":
        return _bytes(_integers(array, data, target, tensor))
    if array.dtype.kind not in ("b" if target.kind == "b" else "iuf"):
        raise BadRequestError(f"input {tensor.name}: data holds values that are no {tensor.datatype}")
    with np.errstate(over="ignore"):
        converted = array.astype(target)
    if target.kind == "f" and not np.isfinite(converted).all():
        raise _beyond(tensor)
    return _bytes(converted)


def _integers(array: NDArray[Any], data: list[Any], target: np.dtype[Any], tensor: Tensor) -> NDArray[Any]:
    """Whole numbers as such: numpy takes a list with some above 2^63 for floats, or for objects."""
    if array.dtype.kind not in "iu":
        array = np.array(data, dtype=object)
        if not all(type(value) is int for value in array.flat):
            raise BadRequestError(f"input {tensor.name}: data holds values that are no {tensor.datatype}")
    span = np.iinfo(target)
    if array.size and (array.min() < span.min or array.max() > span.max):
        raise _beyond(tensor)
    return array.astype(target)


def _bytes(array: NDArray[Any]) -> memoryview:
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _beyond(tensor: Tensor) -> BadRequestError:
    return BadRequestError(f"input {tensor.name}: data holds values beyond {tensor.datatype}")
