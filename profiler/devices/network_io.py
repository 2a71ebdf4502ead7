"""What every device does alike with a network: load it at a batch, feed it, and hand on its outputs."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.device import Failure, MeasureError
from rapp.errors import GraphError, RappError
from rapp.runtime.inputs import Array, seeded_inputs, session_inputs

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession

MOST_OUTPUT_ELEMENTS = 65_536
"""Of one output that is sent to the campaign: 256 KiB of float32."""

_LARGEST_MESSAGE_BYTES = 2**31 - 1
"""Of protobuf; a larger network is handed to ONNX Runtime in files."""


@contextmanager
def network_at_batch(
    path: Path, batch: int, largest_bytes: int = _LARGEST_MESSAGE_BYTES
) -> Iterator[bytes | Path]:
    """The network rewritten to a batch: its content, or a file that is there until the end of the block.

    Args:
        largest_bytes: content up to this size is kept in memory; for tests.

    Raises:
        MeasureError: it has no such batch, or cannot be read.
    """
    from rapp.graph import with_batch

    try:
        model = with_batch(path, batch)
    except GraphError as error:
        raise MeasureError(Failure.UNSUPPORTED, str(error)) from error
    content = _content(model)
    if content is not None and len(content) <= largest_bytes:
        del model
        yield content
        return
    del content
    with tempfile.TemporaryDirectory(prefix="rapp-network-") as folder:
        import onnx

        file = Path(folder) / "network.onnx"
        onnx.save_model(model, file, save_as_external_data=True)
        del model
        yield file


def _content(model: ModelProto) -> bytes | None:
    """The serialised model; None: it is too large for one message of protobuf."""
    try:
        content: bytes = model.SerializeToString()
    except MemoryError:
        raise
    except Exception:  # protobuf raises its EncodeError, or ValueError, by version
        return None
    return content


def fp32_inputs(session: InferenceSession, batch: int) -> dict[str, Array]:
    """Inputs for a session, the same on every device.

    Raises:
        MeasureError: an input is of another precision than the device's rows say, or is no tensor.
    """
    try:
        for spec in session_inputs(session):
            if np.dtype(spec.dtype).kind == "f" and spec.dtype != "float32":
                raise RappError(f"input {spec.name} is {spec.dtype}: this device's rows say fp32")
        return seeded_inputs(session, batch)
    except RappError as error:
        raise MeasureError(Failure.UNSUPPORTED, str(error)) from error


def compared_outputs(outputs: Sequence[Any]) -> list[Array] | None:
    """The outputs of floating point, thinned; None: there are none.

    Of an output with more than `MOST_OUTPUT_ELEMENTS` elements every n-th in memory order is taken, as a
    vector; n hangs on its shape alone and shares no factor with the last dimension, so that no column is
    left out.
    """
    arrays = [np.asarray(output) for output in outputs if isinstance(output, np.ndarray)]
    return [_thinned(array) for array in arrays if array.dtype.kind == "f"] or None


def _thinned(array: Array) -> Array:
    if array.size <= MOST_OUTPUT_ELEMENTS:
        return array
    step = math.ceil(array.size / MOST_OUTPUT_ELEMENTS)
    while math.gcd(step, array.shape[-1]) > 1:
        step += 1
    return np.ascontiguousarray(array.reshape(-1)[::step])
