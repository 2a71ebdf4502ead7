"""`JsonProcess`: large JSON requests are read in a process of their own.

A tensor of 1 x 3 x 224 x 224 as JSON is 3 MB of text, and takes 15 ms to read, in which the gateway would do
nothing else. A thread would not help: reading holds the interpreter's lock. So the body goes to a child
(`scaler.serving.json_main`) and its values come back in binary, one request after another. The child is
started with the first such request, and again after it was lost.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

import orjson

from scaler.serving.child import child_environment
from scaler.serving.network import ServedNetwork
from scaler.serving.protocol import InferCall
from scaler.serving.requests import BadRequestError

LARGE_BYTES = 64 << 10
"""Of JSON, which takes 0.3 ms to read: what is not above it is read at once, in the gateway."""
MOST_WAITING_BYTES = 128 << 20
"""Of bodies that wait to be read: what comes beyond is refused."""
MOST_TRIES = 2
"""A body whose reading ended the child is given to the next one so often at most, this one included."""
EXCHANGE_TIMEOUT_S = 30.0
"""For the child to start and to read a body, which is 200 MB/s: then it counts as lost."""

LENGTHS = struct.Struct("<QQ")
"""Before each message in either direction: bytes of its JSON, bytes of what follows that."""


@dataclass(frozen=True, slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class JsonProcess:
    """The child, if there is one. All calls are on the event loop's thread.

    Args:
        networks: by function, with the largest batch.
    """

    def __init__(self, networks: Mapping[str, tuple[ServedNetwork, int]]) -> None:
        self._networks = networks
        self._turn = asyncio.Lock()
        self._waiting_bytes = 0
        self._child: _Child | None = None

    @staticmethod
    def is_large(body: bytes, header_length: bytes | None) -> bool:
        """Whether so much of a body is JSON that the gateway should not read it."""
        if len(body) <= LARGE_BYTES:
            return False
        return header_length is None or (header_length.isdigit() and int(header_length[:12]) > LARGE_BYTES)

    async def read(
        self, function: str, body: bytes, header_length: bytes | None, deadline_s: float
    ) -> InferCall:
        """As `parse_infer`, for the network of a function.

        Args:
            deadline_s: it has to be read by that time of CLOCK_MONOTONIC.

        Raises:
            BadRequestError: it is no request for this network; or 429 too many wait to be read, 503 reading
                it ended the child.
            TimeoutError: it was not read in time.
        """
        if self._waiting_bytes and self._waiting_bytes + len(body) > MOST_WAITING_BYTES:
            raise BadRequestError(
                "too many large JSON requests wait to be read: send values in binary",
                HTTPStatus.TOO_MANY_REQUESTS,
                retry_after_s=1,
            )
        # A task, which is not cancelled when time is over: the child would have to be ended with it.
        reading = asyncio.ensure_future(self._in_turn(function, body, header_length, deadline_s))
        self._waiting_bytes += len(body)
        reading.add_done_callback(partial(self._is_read, len(body)))
        await asyncio.wait({reading}, timeout=deadline_s - time.monotonic())
        if not reading.done():
            raise TimeoutError
        return reading.result()

    def _is_read(self, count: int, reading: asyncio.Future[InferCall]) -> None:
        self._waiting_bytes -= count
        if not reading.cancelled():
            # Looked at, also if nobody waits for it any more.
            reading.exception()

    async def _in_turn(
        self, function: str, body: bytes, header_length: bytes | None, deadline_s: float
    ) -> InferCall:
        async with self._turn:
            if time.monotonic() > deadline_s:
                raise TimeoutError
            return await self._read(function, body, header_length)

    async def _read(self, function: str, body: bytes, header_length: bytes | None) -> InferCall:
        length = None if header_length is None else header_length.decode("latin-1")
        question = orjson.dumps({"function": function, "header_length": length})
        for _ in range(MOST_TRIES):
            try:
                async with asyncio.timeout(EXCHANGE_TIMEOUT_S):
                    answer, values = await self._exchange(question, body)
            except (OSError, EOFError, TimeoutError):
                self.close()
            except BaseException:
                # What the child answers later is of nobody's question.
                self.close()
                raise
            else:
                return self._call(function, answer, values)
        raise BadRequestError("the process that reads it was lost", HTTPStatus.SERVICE_UNAVAILABLE)

    async def _exchange(self, question: bytes, body: bytes) -> tuple[Any, bytes]:
        child = self._child or await self._start()
        child.writer.write(LENGTHS.pack(len(question), len(body)) + question)
        child.writer.write(body)
        await child.writer.drain()
        head, rest = LENGTHS.unpack(await child.reader.readexactly(LENGTHS.size))
        answer = orjson.loads(await child.reader.readexactly(head))
        return answer, await child.reader.readexactly(rest)

    def _call(self, function: str, answer: Any, values: bytes) -> InferCall:
        if "reason" in answer:
            raise BadRequestError(answer["reason"], HTTPStatus(answer["status"]))
        network, _ = self._networks[function]
        view, parts, samples = memoryview(values), [], int(answer["samples"])
        for tensor in network.inputs:
            size = samples * tensor.size
            parts.append(view[:size])
            view = view[size:]
        outputs = [(network.outputs[place], binary) for place, binary in answer["outputs"]]
        return InferCall(answer["id"], samples, parts, outputs, answer["timeout_s"])

    # --- the child ------------------------------------------------------------------------------------------

    async def _start(self) -> _Child:
        ours, theirs = socket.socketpair()
        command = [
            sys.executable, "-P", "-m", "scaler.serving.json_main", str(theirs.fileno()), str(os.getpid()),
        ]  # fmt: skip
        with theirs:
            process = subprocess.Popen(
                command,
                env=child_environment(),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # A group of its own: Ctrl-C is for the gateway.
                process_group=0,
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=1 << 20)
        self._child = child = _Child(process, reader, writer)
        networks = {
            name: {"network": network.to_json(), "max_batch": most}
            for name, (network, most) in self._networks.items()
        }
        text = orjson.dumps(networks)
        child.writer.write(LENGTHS.pack(len(text), 0) + text)
        return child

    def close(self) -> None:
        """End the child; the next large request starts another."""
        child, self._child = self._child, None
        if child is not None:
            child.writer.transport.abort()
            child.process.kill()
            asyncio.get_running_loop().run_in_executor(None, child.process.wait)
