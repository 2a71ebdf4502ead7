"""uvicorn's HTTP protocol, with limits on what a client may do before its request has begun."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 64 << 10
"""Of request line and headers, as of most servers 8 to 64 KiB."""
HEAD_TIMEOUT_S = 20.0
"""For a head to come, from its first byte or the connection on; nginx gives 60 s, Apache 20."""
KEEP_ALIVE_S = 75
"""An idle connection is kept so long, as nginx does: a client's pool should not find it closed."""
GONE = "rapp.gone"
"""Key of a request's scope: what to call if the client hangs up before it has its answer."""
PIECE_BYTES = 1 << 20
"""A body is handed on in pieces of about this size, most of them whole. uvicorn's own 64 KiB take a turn of
the event loop each, and for every one the socket is taken out of the poll and put in again."""


class LimitedProtocol(HttpToolsProtocol):
    """A connection."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._in_head, self._head_bytes = True, 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._pieces: list[bytes] = []
        self._pieces_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As asyncio's."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio's."""
        self._end_head()
        super().connection_lost(exc)
        gone = (self.scope or {}).get(GONE)
        if callable(gone):
            gone()

    def data_received(self, data: bytes) -> None:
        """As asyncio's."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
                self._refuse(b"431 Request Header Fields Too Large", "the headers are too large")

    def on_message_begin(self) -> None:
        """As httptools'."""
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        """As httptools'."""
        self._end_head()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """As httptools'."""
        if self.cycle.response_complete:
            return
        self._pieces.append(body)
        self._pieces_bytes += len(body)
        if self._pieces_bytes > PIECE_BYTES:
            self.flow.pause_reading()
            self._hand_on()

    def on_message_complete(self) -> None:
        """As httptools'."""
        self._hand_on()
        super().on_message_complete()

    def _hand_on(self) -> None:
        if self._pieces:
            # uvicorn hands on bytes(body): no further copy of what is bytes already.
            self.cycle.body = b"".join((self.cycle.body, *self._pieces))  # type: ignore[assignment]
            self.cycle.message_event.set()
            self._pieces.clear()
            self._pieces_bytes = 0

    def send_400_response(self, msg: str) -> None:
        """As uvicorn's, in JSON."""
        if not self.transport.is_closing():
            self._refuse(b"400 Bad Request", "this is no HTTP request")

    def _await_head(self) -> None:
        self._end_head()
        self._in_head, self._head_bytes = True, 0
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._late)

    def _end_head(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _late(self) -> None:
        if not self.transport.is_closing():
            self._refuse(b"408 Request Timeout", "the head of the request did not come in time")

    def _refuse(self, status: bytes, reason: str) -> None:
        self._end_head()
        body = orjson.dumps({"error": reason})
        head = (
            b"HTTP/1.1 %s" % status,
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"connection: close",
        )
        self.transport.write(b"\r\n".join((*head, b"", body)))
        self.transport.close()
