"""The gateway as an ASGI application: inference by its own route, the rest by Starlette."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from scaler.serving.admin import AdminRoutes
from scaler.serving.asgi import Receive, Scope, Send
from scaler.serving.body import BODY_TIMEOUT_S
from scaler.serving.fleet import Fleet
from scaler.serving.infer import InferRoute
from scaler.serving.metrics import metrics_route
from scaler.serving.models import ModelRoutes
from scaler.serving.requests import BadRequestError
from scaler.serving.respond import answer, bad_request, http_error

STATIC = Path(__file__).parent / "static"
"""The status page: `index.html` is served at `/`, the folder at `/static`."""
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
        routes: list[Route | Mount] = [
            *ModelRoutes(fleet, __version__).routes(),
            *AdminRoutes(fleet, token).routes(),
            metrics_route(fleet),
            Route("/", _page),
        ]
        if STATIC.is_dir():
            routes.append(Mount("/static", StaticFiles(directory=STATIC)))
        self._rest = Starlette(
            routes=routes,
            exception_handlers={BadRequestError: bad_request, HTTPException: http_error},
        )
        self._rest.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI wants it."""
        if scope["type"] == "http" and self._infer.matches(scope):
            await self._infer(scope, receive, send)
        else:
            await self._rest(scope, receive, send)


async def _page(request: Request) -> Response:
    page = STATIC / "index.html"
    if page.is_file():
        return FileResponse(page)
    return answer({"name": "rapp", "models": "/v2/models/{name}", "status": "/status.json"})
