"""JSON answers of the routes that Starlette serves, and its errors in the words of the protocol."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from scaler.serving.requests import BadRequestError


def answer(content: Any, status: int = 200) -> Response:
    """An object as JSON."""
    return Response(orjson.dumps(content), status, media_type="application/json")


def unauthorized(reason: str) -> Response:
    """The answer to who has to show the token, and does not."""
    made = answer({"error": reason}, HTTPStatus.UNAUTHORIZED)
    made.headers["www-authenticate"] = "Bearer"
    return made


async def bad_request(request: Request, error: Exception) -> Response:
    """The answer to a `BadRequestError`."""
    assert isinstance(error, BadRequestError)
    made = answer({"error": error.fault.reason}, error.fault.status)
    if error.fault.close:
        made.headers["connection"] = "close"
    return made


async def http_error(request: Request, error: Exception) -> Response:
    """The answer to an error that Starlette raises: an unknown path, or a method that it has not."""
    status = HTTPStatus(getattr(error, "status_code", 500))
    path = request.url.path[:80]
    reasons = {404: f"there is nothing at {path!r}", 405: f"{request.method} is no method of {path!r}"}
    made = answer({"error": reasons.get(status, status.phrase)}, status)
    for name, value in (getattr(error, "headers", None) or {}).items():
        made.headers[name] = value
    return made
