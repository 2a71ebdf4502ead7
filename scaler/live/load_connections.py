"""Connections of HTTP/1.1 to one server, each with one request at a time; the one used last goes first.

A request is written to a connection that is free. If there is none, one is opened; the request goes to
whichever is free first.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

from rapp.errors import MissingExtraError
from scaler.live.load_records import BROKEN, MALFORMED, NO_CONNECTION, TIMEOUT

IDLE_S = 2.0
"""A connection that was idle for longer is not used again: servers end them, Uvicorn after 5 s, and a request
that was sent at that moment would be lost."""


class Listener(Protocol):
    """Is told what becomes of requests; times are those of `time.perf_counter()`."""

    def sent(self, request: int, now_s: float) -> None: ...

    def end(self, request: int, status: int, now_s: float) -> None: ...


class Connections:
    """At most `most` connections.

    Args:
        loop: of the thread. address, port, tls, tls_host: where to.
        most: connections that there may be at once.
        parts: the buffers of a request by its number.
        listener: is told of each request that it left, and how it ended.

    Attributes:
        waited: requests that found all connections busy and no more allowed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: str,
        port: int,
        tls: ssl.SSLContext | None,
        tls_host: str | None,
        most: int,
        parts: Callable[[int], list[bytes | memoryview]],
        listener: Listener,
    ) -> None:
        try:
            import httptools
        except ModuleNotFoundError as error:
            raise MissingExtraError("httptools", "serve") from error
        self.parser: Callable[[Any], Any] = httptools.HttpResponseParser
        self.parser_error: type[Exception] = httptools.HttpParserError
        self._loop, self._address, self._port = loop, address, port
        self._tls, self._tls_host = tls, tls_host if tls is not None else None
        self._most, self._parts, self._listener = most, parts, listener
        self._idle: list[Connection] = []
        self._waiting: deque[int] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._open: set[Connection] = set()
        self._closed = False
        self.waited = 0

    async def open(self, count: int) -> None:
        """Have `count` connections ready before the first request.

        Raises:
            OSError: one cannot be had.
        """
        await asyncio.gather(*(self._connect() for _ in range(min(count, self._most))))

    def send(self, request: int) -> None:
        """Send a request now, or as soon as there is a connection."""
        connection = self._free_one()
        if connection is not None:
            connection.send(request, self._parts(request))
            return
        self._waiting.append(request)
        if len(self._open) + len(self._opening) < self._most:
            self._open_another()
        elif len(self._waiting) > len(self._opening):
            self.waited += 1

    def expire(self, request: int) -> None:
        """End a request that nobody answered in time, with its connection."""
        if request in self._waiting:
            self._waiting.remove(request)
        else:
            # The connection is of no use: the answer to the old request may still come over it.
            for connection in self._open:
                if connection.request == request:
                    connection.drop()
                    break
        self._listener.end(request, TIMEOUT, time.perf_counter())

    def close(self) -> None:
        """End all connections; their requests end without a word."""
        self._closed = True
        for task in self._opening:
            task.cancel()
        for connection in tuple(self._open):
            connection.drop()

    # --- from connections -----------------------------------------------------------------------------------

    def left(self, request: int) -> None:
        self._listener.sent(request, time.perf_counter())

    def ended(self, request: int, status: int) -> None:
        self._listener.end(request, status, time.perf_counter())

    def free(self, connection: Connection) -> None:
        """A connection has nothing to do."""
        if self._waiting:
            request = self._waiting.popleft()
            connection.send(request, self._parts(request))
        else:
            connection.idle_since_s = time.perf_counter()
            self._idle.append(connection)

    def gone(self, connection: Connection) -> None:
        """A connection is at its end."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._waiting and len(self._waiting) > len(self._opening) and not self._closed:
            self._open_another()

    # --- opening --------------------------------------------------------------------------------------------

    def _free_one(self) -> Connection | None:
        if not self._idle:
            return None
        connection = self._idle.pop()
        if time.perf_counter() - connection.idle_since_s <= IDLE_S:
            return connection
        # It was the one used last, so that the others are older still.
        for old in (connection, *self._idle):
            old.drop()
        self._idle.clear()
        return None

    def _open_another(self) -> None:
        task = self._loop.create_task(self._connect_for_a_request())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect_for_a_request(self) -> None:
        try:
            await self._connect()
        except OSError:
            if self._waiting:
                self._listener.end(self._waiting.popleft(), NO_CONNECTION, time.perf_counter())

    async def _connect(self) -> None:
        _, protocol = await self._loop.create_connection(
            lambda: Connection(self), self._address, self._port, ssl=self._tls, server_hostname=self._tls_host
        )
        if self._closed:
            protocol.drop()
            return
        if protocol.dead:
            raise ConnectionResetError
        self._open.add(protocol)
        self.free(protocol)


class Connection(asyncio.Protocol):
    """One connection and the request that is on its way over it, or -1."""

    __slots__ = ("_parser", "_pool", "_transport", "dead", "idle_since_s", "request")

    def __init__(self, pool: Connections) -> None:
        self._pool = pool
        self._parser = pool.parser(self)
        self.dead = False
        self.request = -1
        self.idle_since_s = 0.0

    def send(self, request: int, parts: list[bytes | memoryview]) -> None:
        """Send a request over this connection, which is free."""
        self.request = request
        self._pool.left(request)
        self._transport.writelines(parts)

    def drop(self) -> None:
        """End it; its request ends without a word."""
        self.request, self.dead = -1, True
        self._transport.abort()

    # --- asyncio.Protocol -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.dead:
            return
        try:
            self._parser.feed_data(data)
        except self._pool.parser_error:
            self._finish(MALFORMED, keep=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.dead = True
        if self.request >= 0:
            self._finish(BROKEN, keep=False)
        self._pool.gone(self)

    # --- httptools ------------------------------------------------------------------------------------------

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            # An answer before the whole request went out (413, say) leaves the rest of it in the way.
            keep = self._parser.should_keep_alive() and not self._transport.get_write_buffer_size()
            self._finish(status, keep)

    def _finish(self, status: int, keep: bool) -> None:
        request, self.request = self.request, -1
        if request >= 0:
            self._pool.ended(request, status)
        if self.dead:
            return
        if keep and request >= 0:
            self._pool.free(self)
        else:
            self.drop()
