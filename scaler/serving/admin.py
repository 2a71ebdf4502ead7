"""What controllers use: observe, apply, and leave a record of what they decided. Each needs the token."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rapp.errors import RappError
from scaler.backends.fencing import TERM_HEADER, FencedError, Terms
from scaler.core.codec import decision_from_json
from scaler.core.decision import Decision
from scaler.serving.asgi import Message
from scaler.serving.body import read_body
from scaler.serving.fleet import Fleet
from scaler.serving.page_access import LOOK, may_look
from scaler.serving.report import observation_json, status_json
from scaler.serving.requests import BadRequestError
from scaler.serving.respond import answer, unauthorized
from scaler.serving.token import is_authorized

MOST_BYTES = 4 << 20
"""Of a decision: some 20,000 changes."""
MOST_RECORD_BYTES = 64 << 10
RECORDS_KEPT = 100
MOST_TERM_DIGITS = 18
_TIMEOUT_S = 10.0

Handler = Callable[[Request], Awaitable[Response]]


class AdminRoutes:
    """The routes below `/admin`, and `/status.json`, which shows the same and changes nothing.

    Args:
        fleet: what is changed. token: the secret.
    """

    def __init__(self, fleet: Fleet, token: str) -> None:
        self._fleet, self._token = fleet, token
        self.records: deque[dict[str, Any]] = deque(maxlen=RECORDS_KEPT)
        self.record_count = 0
        self._terms = Terms()

    def routes(self) -> list[Route]:
        """For Starlette."""
        return [
            Route("/admin/observation", self._guarded(self._observation)),
            Route("/admin/apply", self._guarded(self._apply), methods=["POST"]),
            Route("/admin/decisions", self._guarded(self._record), methods=["POST"]),
            Route("/admin/events", self._guarded(self._status)),
            Route("/status.json", self._looked_at),
        ]

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            if not is_authorized(request.headers.get("authorization"), self._token):
                return unauthorized("the admin interface needs the token: Authorization: Bearer")
            return await handler(request)

        return guarded

    async def _observation(self, request: Request) -> Response:
        return answer(observation_json(self._fleet))

    async def _status(self, request: Request) -> Response:
        return answer(status_json(self._fleet, list(self.records)))

    async def _looked_at(self, request: Request) -> Response:
        return await self._status(request) if may_look(request, self._token) else unauthorized(LOOK)

    async def _apply(self, request: Request) -> Response:
        decision = _decision(await _body(request, MOST_BYTES))
        # From here on nothing comes in between: changes of a term are made all, or none.
        self._admit(request.headers.get(TERM_HEADER))
        refused = self._fleet.apply(decision)
        return answer({"refused": [{"id": id_, "why": why} for id_, why in refused]})

    def _admit(self, term: str | None) -> None:
        if term is not None and not (term.isascii() and term.isdigit() and len(term) <= MOST_TERM_DIGITS):
            raise BadRequestError(f"{TERM_HEADER} is {term[:40]!r}: it must be a whole number")
        try:
            if self._terms.admit(None if term is None else int(term)):
                self._fleet.log(f"a controller leads: term {term}")
        except FencedError as error:
            raise BadRequestError(str(error), HTTPStatus.CONFLICT) from error

    async def _record(self, request: Request) -> Response:
        """Keep any JSON object; `decision` in it, if there, must be one."""
        try:
            record = orjson.loads(await _body(request, MOST_RECORD_BYTES))
        except orjson.JSONDecodeError as error:
            raise BadRequestError(f"the body is no valid JSON: {error}") from error
        if not isinstance(record, dict):
            raise BadRequestError("the body is no JSON object")
        if "decision" in record:
            _decision(orjson.dumps(record["decision"]))
        self.record_count += 1
        self.records.append({**record, "number": self.record_count, "recorded_s": time.monotonic()})
        return answer({"number": self.record_count})


async def _body(request: Request, most_bytes: int) -> bytes:
    async def receive() -> Message:
        return await request.receive()

    return await read_body(request.scope, receive, most_bytes, _TIMEOUT_S)


def _decision(text: bytes) -> Decision:
    try:
        return decision_from_json(text.decode())
    except (RappError, UnicodeDecodeError) as error:  # a configuration out of its range among them
        raise BadRequestError(str(error), HTTPStatus.BAD_REQUEST) from error
