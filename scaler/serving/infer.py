"""The route of inference: it handles ASGI messages itself, as every microsecond counts here."""

from __future__ import annotations

import math
import time
from functools import partial
from http import HTTPStatus

from scaler.serving.asgi import Receive, Scope, Send
from scaler.serving.body import header, read_body, send_answer, send_fault
from scaler.serving.fleet import Fleet
from scaler.serving.function import ServedFunction
from scaler.serving.http import GONE
from scaler.serving.json_process import JsonProcess
from scaler.serving.protocol import HEADER_LENGTH, InferCall, infer_answer, most_body_bytes, parse_infer
from scaler.serving.requests import BadRequestError, Fault, Request

TIMEOUT_HEADER = b"x-request-timeout-ms"
"""The deadline of a request, ms from when its head came; it ends then, answered or not (503)."""
MOST_TIMEOUT_S = 3600.0
VERSION = "1"
"""The only version of every model."""
_PREFIX, _SUFFIX = "/v2/models/", "/infer"


class InferRoute:
    """`POST /v2/models/{name}[/versions/1]/infer`.

    Args:
        fleet: what serves. timeout_s: deadline of a request that names none, s.
        body_timeout_s: for a whole body to come, s.
    """

    def __init__(self, fleet: Fleet, timeout_s: float, body_timeout_s: float) -> None:
        self._fleet, self._timeout_s, self._body_timeout_s = fleet, timeout_s, body_timeout_s
        self._most_bytes = {
            (name, binary): most_body_bytes(function.network, function.spec.max_batch, binary)
            for name, function in fleet.functions.items()
            for binary in (False, True)
        }
        self._json = JsonProcess(
            {name: (one.network, one.spec.max_batch) for name, one in fleet.functions.items()}
        )

    def close(self) -> None:
        """End what reads large requests."""
        self._json.close()

    @staticmethod
    def matches(scope: Scope) -> bool:
        """Whether a request is for this route."""
        path: str = scope["path"]
        return bool(scope["method"] == "POST") and path.startswith(_PREFIX) and path.endswith(_SUFFIX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            function = self._function(scope["path"][len(_PREFIX) : -len(_SUFFIX)])
            await self._infer(function, scope, receive, send)
        except BadRequestError as error:
            await send_fault(send, error.fault, receive)

    def _function(self, name: str) -> ServedFunction:
        name, slash, version = name.partition("/versions/")
        function = self._fleet.functions.get(name)
        if function is None or (slash and version != VERSION):
            raise unknown_model(f"{name}{slash}{version}")
        return function

    async def _infer(self, function: ServedFunction, scope: Scope, receive: Receive, send: Send) -> None:
        arrived_s, name = time.monotonic(), function.spec.name
        header_length = header(scope, HEADER_LENGTH)
        timeout_s = self._header_timeout_s(scope)
        most_bytes = self._most_bytes[name, header_length is not None]
        body = await read_body(scope, receive, most_bytes, self._body_timeout_s)
        if JsonProcess.is_large(body, header_length):
            call = await self._read_apart(function, body, header_length, arrived_s + timeout_s)
        else:
            call = parse_infer(body, header_length, function.network, function.spec.max_batch)
        if call.timeout_s is not None:
            timeout_s = min(timeout_s, call.timeout_s)
        slots = function.admit(call.samples)
        if isinstance(slots, Fault):
            await send_fault(send, slots)
            return
        memory, slot_bytes = function.arena.memory, function.arena.slot_bytes
        for tensor, values in zip(function.network.inputs, call.values, strict=True):
            size = tensor.size
            for place, slot in enumerate(slots):
                start = slot * slot_bytes + tensor.offset
                memory[start : start + size] = values[place * size : (place + 1) * size]
        request = Request(arrived_s, arrived_s + timeout_s, slots)
        # What was read is in the slots: it need not be kept while the request waits.
        del body, call.values[:]
        scope[GONE] = partial(function.leave, request)
        try:
            function.submit(request)
            fault = await request.done
            if fault is None:
                views = [memory[slot * slot_bytes : (slot + 1) * slot_bytes] for slot in slots]
                answer, length = await infer_answer(name, call, function.network, views)
        finally:
            del scope[GONE]
            function.leave(request)
            function.give_back(request)
        if fault is not None:
            await send_fault(send, fault)
        elif length is None:
            await send_answer(send, 200, answer)
        else:
            extra = ((HEADER_LENGTH, str(length).encode()),)
            await send_answer(send, 200, answer, b"application/octet-stream", extra)

    async def _read_apart(
        self, function: ServedFunction, body: bytes, header_length: bytes | None, deadline_s: float
    ) -> InferCall:
        """Read a request that is large JSON; one that could not be read is counted as one sample."""
        counts = function.counts
        try:
            return await self._json.read(function.spec.name, body, header_length, deadline_s)
        except TimeoutError:
            counts.arrivals += 1
            counts.expired += 1
            raise BadRequestError(
                "the deadline passed before it was read", HTTPStatus.SERVICE_UNAVAILABLE, retry_after_s=1
            ) from None
        except BadRequestError as error:
            if error.fault.status == HTTPStatus.TOO_MANY_REQUESTS:
                counts.arrivals += 1
                counts.refused += 1
            elif error.fault.status == HTTPStatus.SERVICE_UNAVAILABLE:
                counts.arrivals += 1
                counts.failed += 1
            raise

    def _header_timeout_s(self, scope: Scope) -> float:
        value = header(scope, TIMEOUT_HEADER)
        if value is None:
            return self._timeout_s
        try:
            timeout_ms = float(value)
        except ValueError:
            timeout_ms = math.nan
        if not 0 < timeout_ms <= MOST_TIMEOUT_S * 1e3:
            raise BadRequestError(
                f"x-request-timeout-ms is {value[:40].decode('latin-1')!r}: it must be milliseconds above 0,"
                f" {MOST_TIMEOUT_S * 1e3:g} at most"
            )
        return timeout_ms / 1e3


def unknown_model(name: str) -> BadRequestError:
    """The error for a model that is not served."""
    shown = name if len(name) <= 80 else f"{name[:80]}..."
    return BadRequestError(f"there is no model {shown!r}", HTTPStatus.NOT_FOUND)
