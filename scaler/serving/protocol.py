"""Inference requests and answers of KServe's Open Inference Protocol v2 over HTTP, as bytes.

JSON, and the extension `binary_tensor_data`: after a JSON object, whose length the header
`Inference-Header-Content-Length` tells, the values of the tensors follow as they lie in memory.

https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md
https://github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np
import orjson

from scaler.serving.json_values import json_of_values, values_of_json
from scaler.serving.network import ServedNetwork, Tensor
from scaler.serving.requests import BadRequestError

HEADER_LENGTH = b"inference-header-content-length"
MOST_HEADER_BYTES = 1 << 20
"""Of the JSON before binary values: it only describes the tensors."""
JSON_BYTES_PER_ELEMENT = 32
"""A number as text: 25 characters for a double with its sign and exponent, a comma, spaces."""
MOST_SHOWN = 80
"""Characters of what a client wrote that are shown to it again."""


@dataclass(frozen=True, slots=True)
class InferCall:
    """What a request asks for.

    Args:
        id: to be repeated in the answer; None: it has none.
        samples: how many, n.
        values: by input, in the network's order: the bytes of its n samples.
        outputs: what is wanted, and whether in binary.
        timeout_s: the request's own parameter `timeout`, s; None: not given.
    """

    id: str | None
    samples: int
    values: list[memoryview]
    outputs: Sequence[tuple[Tensor, bool]]
    timeout_s: float | None


def most_body_bytes(network: ServedNetwork, max_batch: int, binary: bool) -> int:
    """Size of the largest body that can be a request, bytes."""
    if binary:
        return MOST_HEADER_BYTES + max_batch * sum(one.size for one in network.inputs)
    elements = sum(one.size // np.dtype(one.dtype).itemsize for one in network.inputs)
    return MOST_HEADER_BYTES + max_batch * elements * JSON_BYTES_PER_ELEMENT


def parse_infer(
    body: bytes, header_length: bytes | None, network: ServedNetwork, max_batch: int
) -> InferCall:
    """Read a request.

    Args:
        header_length: value of the header of this name; None: the body is JSON alone.

    Raises:
        BadRequestError: it is none for this network.
    """
    length = len(body) if header_length is None else _header_length(header_length, len(body))
    head = _object(body[:length] if length < len(body) else body)
    binary = memoryview(body)[length:]
    by_name = _inputs(head, network)
    samples, values, used = 0, [], 0
    for place, tensor in enumerate(network.inputs):
        one = by_name[tensor.name]
        count = _samples(one, tensor, network.batched, max_batch)
        if place and count != samples:
            raise BadRequestError(f"input {tensor.name} has {count} samples, others have {samples}")
        samples = count
    # Values follow in the order of the request, which may be another than the network's.
    found: dict[str, memoryview] = {}
    for name, one in by_name.items():
        tensor = next(input_ for input_ in network.inputs if input_.name == name)
        size = _parameters(one, name).get("binary_data_size")
        if size is None:
            found[name] = values_of_json(one, tensor, samples)
            continue
        expected = samples * tensor.size
        if "data" in one:
            raise BadRequestError(f"input {name} has both data and binary_data_size")
        if isinstance(size, bool) or size != expected:
            raise BadRequestError(
                f"input {name}: binary_data_size is {_shown(size)}, its shape needs {expected} bytes"
            )
        if used + expected > len(binary):
            raise BadRequestError(
                f"input {name}: the body ends after {len(binary) - used} of its {expected} bytes"
            )
        found[name] = binary[used : used + expected]
        if tensor.dtype == "bool" and expected and np.frombuffer(found[name], np.uint8).max() > 1:
            raise BadRequestError(f"input {name}: a byte of a BOOL is neither 0 nor 1")
        used += expected
    if used != len(binary):
        raise BadRequestError(f"{len(binary) - used} bytes of the body belong to no input")
    values = [found[tensor.name] for tensor in network.inputs]
    parameters = _parameters(head, "the request")
    id_ = head.get("id")
    if id_ is not None and not isinstance(id_, str):
        raise BadRequestError("id must be a text")
    return InferCall(id_, samples, values, _outputs(head, network, parameters), _timeout_s(parameters))


def _header_length(value: bytes, body_length: int) -> int:
    if not value.isdigit() or len(value) > 12:
        raise BadRequestError(f"Inference-Header-Content-Length is {_shown(value.decode('latin-1'))}")
    length = int(value)
    if length > body_length:
        raise BadRequestError(
            f"Inference-Header-Content-Length is {length}, but the body has {body_length} bytes"
        )
    if length > MOST_HEADER_BYTES:
        raise BadRequestError(f"Inference-Header-Content-Length is above {MOST_HEADER_BYTES}")
    return length


def _object(text: bytes) -> dict[str, Any]:
    try:
        head = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRequestError(f"the body is no valid JSON: {error}") from error
    if not isinstance(head, dict):
        raise BadRequestError("the body is no JSON object")
    return head


def _inputs(head: Mapping[str, Any], network: ServedNetwork) -> dict[str, dict[str, Any]]:
    """The request's inputs by name, in its order: those of the network, each once."""
    listed = head.get("inputs")
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise BadRequestError("inputs must be a list of objects")
    known = [one.name for one in network.inputs]
    by_name: dict[str, dict[str, Any]] = {}
    for one in listed:
        name = one.get("name")
        if not isinstance(name, str) or name not in known:
            raise BadRequestError(f"there is no input {_shown(name)}: known are {', '.join(known)}")
        if name in by_name:
            raise BadRequestError(f"input {name} is given twice")
        by_name[name] = one
    for name in known:
        if name not in by_name:
            raise BadRequestError(f"input {name} is missing")
    return by_name


def _samples(one: Mapping[str, Any], tensor: Tensor, batched: bool, max_batch: int) -> int:
    """How many samples an input has, after a check of its type and shape."""
    if one.get("datatype") != tensor.datatype:
        raise BadRequestError(
            f"input {tensor.name}: datatype is {_shown(one.get('datatype'))}, it must be {tensor.datatype}"
        )
    shape = one.get("shape")
    expected = [-1, *tensor.shape] if batched else list(tensor.shape)
    if not isinstance(shape, list) or not all(type(dim) is int for dim in shape):
        raise BadRequestError(f"input {tensor.name}: shape must be a list of whole numbers")
    if not batched:
        if shape != expected:
            raise BadRequestError(f"input {tensor.name}: shape is {_shown(shape)}, it must be {expected}")
        return 1
    if len(shape) != len(expected) or shape[1:] != expected[1:]:
        raise BadRequestError(f"input {tensor.name}: shape is {_shown(shape)}, it must be {expected}")
    if not 1 <= shape[0] <= max_batch:
        raise BadRequestError(f"input {tensor.name}: batch {shape[0]} is not in 1 to {max_batch}")
    return int(shape[0])


def _outputs(
    head: Mapping[str, Any], network: ServedNetwork, parameters: Mapping[str, Any]
) -> list[tuple[Tensor, bool]]:
    """The outputs that are wanted, and whether each is in binary."""
    default = parameters.get("binary_data_output", False)
    listed = head.get("outputs")
    if listed is None:
        return [_wanted(tensor, default) for tensor in network.outputs]
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise BadRequestError("outputs must be a list of objects")
    known = {tensor.name: tensor for tensor in network.outputs}
    wanted = []
    for one in listed:
        name = one.get("name")
        if not isinstance(name, str) or name not in known:
            raise BadRequestError(f"there is no output {_shown(name)}: known are {', '.join(known)}")
        own = _parameters(one, name)
        for word in ("classification", "shared_memory_region"):
            if word in own:
                raise BadRequestError(f"output {name}: {word} is not supported")
        wanted.append(_wanted(known[name], own.get("binary_data", default)))
    return wanted or [_wanted(tensor, default) for tensor in network.outputs]


def _wanted(tensor: Tensor, binary: Any) -> tuple[Tensor, bool]:
    if not isinstance(binary, bool):
        raise BadRequestError(f"output {tensor.name}: binary_data must be true or false")
    if not binary and tensor.dtype == "float16":
        raise BadRequestError(f"output {tensor.name}: FP16 has no values in JSON: ask for binary_data")
    return tensor, binary


def _parameters(one: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    parameters = one.get("parameters", {})
    if not isinstance(parameters, dict):
        raise BadRequestError(f"{where}: parameters must be an object")
    if "shared_memory_region" in parameters:
        raise BadRequestError(f"{where}: shared memory is not supported: send the values")
    return parameters


def _timeout_s(parameters: Mapping[str, Any]) -> float | None:
    """Triton's parameter `timeout`, in microseconds; 0: none."""
    timeout_us = parameters.get("timeout")
    if timeout_us is None or timeout_us == 0:
        return None
    if isinstance(timeout_us, bool) or not isinstance(timeout_us, int) or timeout_us < 0:
        raise BadRequestError(f"timeout is {_shown(timeout_us)}: it must be microseconds, a whole number")
    return timeout_us / 1e6


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


async def infer_answer(
    name: str,
    call: InferCall,
    network: ServedNetwork,
    samples: Sequence[memoryview],
) -> tuple[bytes, int | None]:
    """The body of an answer; while many values are written as JSON, others get their turn.

    Args:
        samples: the slots that hold the results.

    Returns:
        The body, and the length of its JSON if values in binary follow, which is a header then.
    """
    outputs: list[dict[str, Any]] = []
    parts: list[bytes | memoryview] = []
    for tensor, binary in call.outputs:
        shape = [call.samples, *tensor.shape] if network.batched else list(tensor.shape)
        end = tensor.offset + tensor.size
        values = [slot[tensor.offset : end] for slot in samples]
        one: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": shape}
        if binary:
            one["parameters"] = {"binary_data_size": len(values) * tensor.size}
            parts += values
        else:
            array = np.frombuffer(b"".join(values), tensor.dtype)
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise BadRequestError(
                    f"output {tensor.name} is not finite, which JSON cannot say: ask for binary_data",
                    HTTPStatus.UNPROCESSABLE_ENTITY,
                )
            one["data"] = await json_of_values(array)
        outputs.append(one)
    head: dict[str, Any] = {"model_name": name, "model_version": "1", "outputs": outputs}
    if call.id is not None:
        head["id"] = call.id
    text = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    if not parts:
        return text, None
    return b"".join((text, *parts)), len(text)
