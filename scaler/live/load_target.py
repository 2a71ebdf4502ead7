"""The requests of one function, as bytes: inference by KServe's Open Inference Protocol v2 over HTTP.

A request carries its tensors in binary (the extension `binary_tensor_data`). Everything but the values is the
same in each and made once. Values are taken from a longer random array, at an offset that is drawn for each
request: they differ from request to request and cost nothing to make.

https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md
https://github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np

from rapp.errors import ConfigError
from rapp.runtime.inputs import InputSpec, seeded_inputs
from scaler.errors import BackendError
from scaler.live.load_url import Server

SPREAD = 1 << 16
"""Offsets that there are, elements: so many different inputs."""

DTYPES = {
    "BOOL": "bool", "FP16": "float16", "FP32": "float32", "FP64": "float64",
    **{f"{sign}INT{bits}": f"{sign.lower()}int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
}  # fmt: skip
"""The protocol's names of tensor types that numpy has."""


@dataclass(frozen=True, slots=True)
class Target:
    """The requests of one function.

    Args:
        head: everything before the values: request line, headers, and the JSON that describes the tensors.
        values: by input, `SPREAD` elements more than it has, as bytes.
        sizes: by input, (bytes of it, bytes of an element).
    """

    head: bytes
    values: tuple[memoryview, ...]
    sizes: tuple[tuple[int, int], ...]

    def parts(self, offset: int) -> list[bytes | memoryview]:
        """A request as buffers to send one after another.

        Args:
            offset: which input, in [0, SPREAD).
        """
        chosen: list[bytes | memoryview] = [self.head]
        for values, (size, item) in zip(self.values, self.sizes, strict=True):
            chosen.append(values[offset * item : offset * item + size])
        return chosen


def kserve_target(server: Server, function: str, seed: int = 0) -> Target:
    """Ask the server for a model's inputs, and make its requests, of batch 1.

    Raises:
        BackendError: it does not answer, has no such model, or describes it in a way that is not understood.
        ConfigError: an input has an open dimension that is not the batch.
    """
    path = f"{server.prefix}/v2/models/{quote(function, safe='')}"
    specs = _specs(server, function, server.get_json(path))
    names = list(specs.names)
    inputs = [
        {
            "name": name,
            "shape": list(shape),
            "datatype": datatype,
            "parameters": {"binary_data_size": math.prod(shape) * np.dtype(DTYPES[datatype]).itemsize},
        }
        for name, shape, datatype in zip(names, specs.shapes, specs.datatypes, strict=True)
    ]
    question = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    header = json.dumps(question, separators=(",", ":")).encode()
    dtypes = [DTYPES[datatype] for datatype in specs.datatypes]
    return _target(
        server, f"{path}/infer", names, specs.shapes, dtypes, seed, header,
        [f"Inference-Header-Content-Length: {len(header)}"],
    )  # fmt: skip


def raw_target(
    server: Server, path: str, shape: Sequence[int], dtype: str = "float32", seed: int = 0
) -> Target:
    """Requests whose body is one tensor and nothing else, for servers without the protocol.

    Args:
        path: such as `/predict`. shape, dtype: of the tensor.
    """
    return _target(server, path, ["input"], [tuple(shape)], [dtype], seed)


def _target(
    server: Server,
    path: str,
    names: Sequence[str],
    shapes: Sequence[tuple[int, ...]],
    dtypes: Sequence[str],
    seed: int,
    header: bytes = b"",
    extra: Sequence[str] = (),
) -> Target:
    specs = [
        InputSpec(name, dtype, (math.prod(shape) + SPREAD,))
        for name, shape, dtype in zip(names, shapes, dtypes, strict=True)
    ]
    arrays = seeded_inputs(specs, 1, seed=seed)
    values = tuple(memoryview(arrays[name].tobytes()) for name in names)
    sizes = tuple(
        (math.prod(shape) * np.dtype(dtype).itemsize, np.dtype(dtype).itemsize)
        for shape, dtype in zip(shapes, dtypes, strict=True)
    )
    length = len(header) + sum(size for size, _ in sizes)
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {server.authority}",
        "Content-Type: application/octet-stream",
        f"Content-Length: {length}",
        *extra,
    ]
    return Target("\r\n".join([*lines, "", ""]).encode("ascii") + header, values, sizes)


@dataclass(frozen=True, slots=True)
class _Specs:
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    datatypes: tuple[str, ...]


def _specs(server: Server, function: str, metadata: Any) -> _Specs:
    """Inputs from a model's metadata; an open first dimension becomes 1."""
    try:
        listed = [
            (one["name"], one["datatype"], [int(dim) for dim in one["shape"]]) for one in metadata["inputs"]
        ]
    except (TypeError, KeyError, ValueError) as error:
        raise BackendError(
            f"{server.url}: the metadata of {function} are not those of KServe's protocol v2 ({error!r})"
        ) from error
    if not listed:
        raise BackendError(f"{server.url}: {function} has no inputs")
    shapes = []
    for name, datatype, dims in listed:
        if datatype not in DTYPES:
            raise BackendError(
                f"{server.url}: input {name} of {function} is {datatype}: only numbers can be sent"
            )
        shape = [1 if place == 0 and dim < 0 else dim for place, dim in enumerate(dims)]
        if min(shape, default=1) < 1:
            raise ConfigError(
                f"input {name} of {function} has the shape {dims}: dimensions beside the batch are open;"
                " serve a network whose shapes are fixed"
            )
        shapes.append(tuple(shape))
    return _Specs(tuple(one[0] for one in listed), tuple(shapes), tuple(one[1] for one in listed))
