"""The body of a request, read within limits of size and time; and answers in one piece."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import orjson

from scaler.serving.asgi import Receive, Scope, Send
from scaler.serving.requests import BadRequestError, Fault

BODY_TIMEOUT_S = 30.0
"""Time for a whole body to come: 64 MiB at 17 Mbit/s."""
_DRAIN_S = 5.0
"""For so long a body that is refused is read on, so that its sender sees the answer and no broken pipe."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """A header of a request, by its name in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


async def read_body(scope: Scope, receive: Receive, most_bytes: int, timeout_s: float) -> bytes:
    """The whole body.

    Raises:
        BadRequestError: 413 it is larger than `most_bytes`, 408 it does not come in time, 400 it is cut off
            or its length is none, 415 it is compressed.
    """
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > most_bytes:
        raise _too_large(int(declared), most_bytes)
    encoding = header(scope, b"content-encoding")
    if encoding is not None and encoding != b"identity":
        raise BadRequestError(
            "compressed bodies are not supported", HTTPStatus.UNSUPPORTED_MEDIA_TYPE, close=True
        )
    chunks, size = [], 0
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise BadRequestError("the body is cut off", close=True)
                chunk = message.get("body", b"")
                chunks.append(chunk)
                size += len(chunk)
                if size > most_bytes:
                    raise _too_large(size, most_bytes)
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        raise BadRequestError(
            f"the body did not come within {timeout_s:g} s", HTTPStatus.REQUEST_TIMEOUT, close=True
        ) from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(size: int, most_bytes: int) -> BadRequestError:
    return BadRequestError(
        f"the body has {size} bytes or more, at most {most_bytes} can be a request here",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        close=True,
    )


async def send_answer(
    send: Send,
    status: int,
    body: bytes,
    content_type: bytes = b"application/json",
    extra: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """Send a whole answer."""
    headers = [
        (b"content-type", content_type), (b"content-length", str(len(body)).encode()), *extra,
    ]  # fmt: skip
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_fault(send: Send, fault: Fault, receive: Receive | None = None) -> None:
    """Send an error as the protocol wants it: `{"error": sentence}`.

    Args:
        receive: of a request whose body was not read to its end; it is read on for a while and thrown away.
    """
    body = orjson.dumps({"error": fault.reason})
    extra: list[tuple[bytes, bytes]] = []
    if fault.retry_after_s is not None:
        extra.append((b"retry-after", str(fault.retry_after_s).encode()))
    if not fault.close:
        await send_answer(send, fault.status, body, extra=extra)
        return
    length = (b"content-length", str(len(body)).encode())
    headers = [(b"content-type", b"application/json"), length, *extra, (b"connection", b"close")]
    await send({"type": "http.response.start", "status": fault.status, "headers": headers})
    # The answer is complete for the client, but the connection stays until its body was read.
    await send({"type": "http.response.body", "body": body, "more_body": True})
    if receive is not None:
        await _drain(receive)
    await send({"type": "http.response.body", "body": b""})


async def _drain(receive: Receive) -> None:
    try:
        async with asyncio.timeout(_DRAIN_S):
            message: Any = await receive()
            while message["type"] == "http.request" and message.get("more_body", False):
                message = await receive()
    except TimeoutError:
        pass
