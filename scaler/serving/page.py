"""The status page at `/`, its files, and `GET /status`, which it asks each second.

    GET /status                          everything, and the last five minutes
    GET /status?boot=...&since=...       what is now, and what is new since the answer of that `now_s`

The server keeps the minutes, so a page that is opened late, or was cut off for a while, shows them all. It
keeps no connection to a page open, so that it can end at any time, and a page goes on once it is back.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scaler.core.observation import Phase
from scaler.serving import page_records
from scaler.serving.fleet import Fleet
from scaler.serving.instance import Instance
from scaler.serving.page_access import LOOK, may_look
from scaler.serving.page_history import KEPT, SAMPLE_S, History
from scaler.serving.page_records import Record
from scaler.serving.requests import BadRequestError
from scaler.serving.respond import answer, unauthorized

STATIC = Path(__file__).parent / "static"
VERSION = 1
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS = {
    # A server of another version may come to this address.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class PageRoutes:
    """Routes of the page. It must be made and used on the event loop's thread.

    Args:
        fleet: what is shown. token: needed by who is not on this machine. records: what controllers left, the
            oldest first; it is read again at each look.
        version: of the server.
    """

    def __init__(self, fleet: Fleet, token: str, records: Sequence[Record], version: str) -> None:
        self._fleet, self._token, self._records, self._version = fleet, token, records, version
        self._files = {path.name: path.read_bytes() for path in sorted(STATIC.iterdir())}
        self._history = History(
            fleet.functions, lambda: page_records.outlooks(list(records), time.monotonic())
        )
        # The loop that ends cancels it.
        self._sampling = asyncio.get_running_loop().create_task(self._history.run())

    def routes(self) -> list[Route]:
        """For Starlette."""
        return [
            Route("/", self._index),
            Route("/static/{name}", self._file),
            Route("/status", self._status),
        ]

    async def _index(self, request: Request) -> Response:
        return self._sent("index.html")

    async def _file(self, request: Request) -> Response:
        return self._sent(request.path_params["name"])

    def _sent(self, name: str) -> Response:
        if name not in self._files:
            raise HTTPException(404)
        return Response(self._files[name], media_type=_TYPES[Path(name).suffix], headers=_HEADERS)

    async def _status(self, request: Request) -> Response:
        if not may_look(request, self._token):
            made = unauthorized(LOOK)
        else:
            made = answer(self.status(request.query_params.get("boot"), request.query_params.get("since")))
        made.headers["cache-control"] = "no-store"
        return made

    def status(self, boot: str | None = None, since: str | None = None) -> dict[str, Any]:
        """What the page shows.

        Args:
            boot, since: `boot_id` and `now_s` of the last answer; None, or of another server: everything.

        Raises:
            BadRequestError: `since` is no number.
        """
        if self._sampling.done():
            # It ends by a bug alone, which is not to hide behind a chart that stands still.
            self._sampling.result()
        fleet, now_s, records = self._fleet, time.monotonic(), list(self._records)
        since_s = _seconds(since) if boot == fleet.boot_id and since is not None else -math.inf
        gpu = fleet.device.view
        return {
            "version": VERSION,
            "server": self._version,
            "boot_id": fleet.boot_id,
            "now_s": now_s,
            "unix_s": time.time(),
            "since_s": None if since_s == -math.inf else since_s,
            "sample_s": SAMPLE_S,
            "kept_s": SAMPLE_S * KEPT,
            "is_ready": fleet.is_ready,
            "functions": [self._function(name) for name in fleet.functions],
            "instances": [_instance(one) for one in fleet.instances.values()],
            "gpus": [{"id": gpu.id, "memory_mib": gpu.memory_mib, "host_cores": gpu.host_cores}],
            "controllers": page_records.controllers(records, now_s),
            "decisions": page_records.decisions(records, since_s),
            "events": [one for one in fleet.events if float(str(one["at_s"])) > since_s],
            "history": self._history.since(since_s),
        }

    def _function(self, name: str) -> dict[str, Any]:
        function, last = self._fleet.functions[name], self._history.last(name)
        outlook = None if last is None else last.outlook
        return {
            "name": name,
            "slo_ms": function.slo_ms,
            "slo_quantile": function.spec.slo_quantile,
            "queue": len(function.queue),
            "queue_limit": function.spec.queue_limit,
            "in_flight": function.in_flight,
            "arrivals": function.counts.arrivals,
            "rps": None if last is None else last.rps,
            "latency_ms": None if last is None else last.latency_ms,
            "planned_rps": None if outlook is None else outlook.planned_rps,
            "capacity_rps": None if outlook is None else outlook.capacity_rps,
        }


def _instance(one: Instance) -> dict[str, Any]:
    # To a controller an instance whose worker died starts; people want to know that it was lost.
    lost = one.phase is Phase.STARTING and one.restarts_at_s is not None
    return {
        "id": one.id,
        "function": one.function,
        "gpu": one.place.gpu,
        "row": one.place.row,
        "sm_pct": one.config.sm_pct,
        "quota_pct": one.config.quota_pct,
        "batch": one.config.batch,
        "state": Phase.LOST.value if lost else one.phase.value,
        "since_s": one.since_s,
        "restarts": one.counts.restarts,
        "in_flight": len(one.carried),
        "requests": one.counts.samples,
    }


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadRequestError("since: `now_s` of an earlier answer is needed, a number of seconds")
    return value
