"""The gateway as an ASGI application: inference by its own route, the rest by Starlette."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from scaler.serving.admin import AdminRoutes
from scaler.serving.asgi import Receive, Scope, Send
from scaler.serving.body import BODY_TIMEOUT_S
from scaler.serving.fleet import Fleet
from scaler.serving.infer import InferRoute
from scaler.serving.metrics import metrics_route
from scaler.serving.models import ModelRoutes
from scaler.serving.page import PageRoutes
from scaler.serving.requests import BadRequestError
from scaler.serving.respond import bad_request, http_error

TIMEOUT_S = 30.0
"""Deadline of a request that names none, s: longer than any objective of online inference."""


class Gateway:
    """Routes requests.

    Args:
        fleet: what serves. token: of the admin interface.
        timeout_s: deadline of a request that names none. body_timeout_s: for a body to come.
    """

    def __init__(
        self,
        fleet: Fleet,
        token: str,
        timeout_s: float = TIMEOUT_S,
        body_timeout_s: float = BODY_TIMEOUT_S,
    ) -> None:
        from rapp import __version__

        self._infer = InferRoute(fleet, timeout_s, body_timeout_s)
        admin = AdminRoutes(fleet, token)
        routes = [
            *ModelRoutes(fleet, __version__).routes(),
            *admin.routes(),
            *PageRoutes(fleet, token, admin.records, __version__).routes(),
            metrics_route(fleet),
        ]
        self._rest = Starlette(
            routes=routes,
            exception_handlers={BadRequestError: bad_request, HTTPException: http_error},
        )
        self._rest.router.redirect_slashes = False

    def close(self) -> None:
        """End what was started for requests."""
        self._infer.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI wants it."""
        if scope["type"] == "http" and self._infer.matches(scope):
            await self._infer(scope, receive, send)
        else:
            await self._rest(scope, receive, send)
