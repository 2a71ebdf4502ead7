"""Messages between a campaign and its worker process: JSON and arrays in frames over a socket.

A frame is `RaPP`, the lengths of its two parts as big-endian 64-bit integers, a JSON object, and arrays in
NumPy's npy format one behind the other. Nothing is pickled, so what a damaged worker writes is told from a
message rather than executed.
"""

from __future__ import annotations

import io
import json
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]

_FRAME = struct.Struct(">4sQQ")
_MAGIC = b"RaPP"
_LARGEST_BYTES = 1 << 30
"""Far above any message: a longer frame is garbage that happens to begin well."""


class GarbageError(Exception):
    """What arrived is no message."""


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """One message.

    Args:
        head: a JSON object.
        arrays: arrays that belong to it, of any shape and any type of numbers or booleans.
    """

    head: Mapping[str, Any]
    arrays: Sequence[Array] = ()


class Channel:
    """One end of a connected stream socket. Every wait has an end, unless it is given none."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def send(self, message: Message, timeout_s: float | None = None) -> None:
        """Write a message.

        Raises:
            TimeoutError: the other side does not read.
            EOFError: the other side is gone.
        """
        head = json.dumps({**message.head, "arrays": len(message.arrays)}).encode()
        body = io.BytesIO()
        for array in message.arrays:
            np.save(body, array, allow_pickle=False)
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(_FRAME.pack(_MAGIC, len(head), body.tell()) + head + body.getvalue())
        except TimeoutError:
            raise
        except OSError as error:
            raise EOFError(str(error)) from error

    def receive(self, timeout_s: float | None = None) -> Message:
        """The next message.

        Raises:
            TimeoutError: it is not there, or not whole, in time.
            EOFError: the other side is gone.
            GarbageError: what arrived is no message.
        """
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        magic, head_bytes, body_bytes = _FRAME.unpack(self._read(_FRAME.size, until_s))
        if magic != _MAGIC or head_bytes + body_bytes > _LARGEST_BYTES:
            raise GarbageError(f"a frame begins with {magic!r}")
        head, body = self._read(head_bytes, until_s), io.BytesIO(self._read(body_bytes, until_s))
        try:
            fields = json.loads(head)
            arrays = tuple(np.load(body, allow_pickle=False) for _ in range(fields.pop("arrays")))
        except (ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
            raise GarbageError(f"a frame cannot be read: {error}") from error
        return Message(fields, arrays)

    def close(self) -> None:
        """Close this end; the other side reads the end of the stream."""
        self._socket.close()

    def _read(self, count: int, until_s: float | None) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            left_s = None if until_s is None else until_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise TimeoutError
            try:
                self._socket.settimeout(left_s)
                part = self._socket.recv(min(count - len(parts), 1 << 20))
            except TimeoutError:
                raise
            except OSError as error:
                raise EOFError(str(error)) from error
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)
