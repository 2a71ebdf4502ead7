"""Counts of functions and instances, which Kubernetes knows nothing of, from the gateway that serves them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from scaler.core.observation import FunctionView, InstanceView
from scaler.errors import BackendError

try:
    from urllib3 import PoolManager, Timeout
    from urllib3.exceptions import HTTPError
except ModuleNotFoundError as error:
    from rapp.errors import MissingExtraError

    raise MissingExtraError(str(error.name), "kubernetes") from error

VERSION = 1
PATH = "/admin/observation"


@dataclass(frozen=True, slots=True)
class FunctionTotals:
    """One function: counts since the gateway started, and what waits now; as `FunctionView`."""

    arrivals: int
    completed: int
    late: int
    refused: int
    queue: int
    in_flight: int
    latency_ms: float | None


@dataclass(frozen=True, slots=True)
class InstanceTotals:
    """One instance: batches, requests in them, s of executing, s of device time; since `began`.

    Args:
        began: changes when the counts begin anew.
    """

    batches: int
    requests: int
    run_s: float
    device_s: float | None
    began: str


@dataclass(frozen=True, slots=True)
class Totals:
    """What a gateway counted.

    Args:
        began: changes when the counts begin anew, as after a restart.
        functions: by name. instances: by id.
    """

    began: str
    functions: Mapping[str, FunctionTotals] = field(default_factory=dict)
    instances: Mapping[str, InstanceTotals] = field(default_factory=dict)


class FunctionCounters(Protocol):
    """Where counts come from."""

    def read(self) -> Totals:
        """What was counted up to now.

        Raises:
            BackendError: it cannot be had.
        """


class GatewayCounters:
    """The admin observation of a gateway that speaks as `rapp serve` does: `GET <url>/admin/observation`.

    Args:
        url: of the gateway. token: of its admin interface. timeout_s: of a call, s.
    """

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 2.0) -> None:
        self.url = url.rstrip("/") + PATH
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._pool = PoolManager(timeout=Timeout(timeout_s), retries=False)

    def read(self) -> Totals:
        """As `FunctionCounters.read`."""
        try:
            response = self._pool.request("GET", self.url, headers=self._headers)
        except (HTTPError, OSError) as error:
            raise BackendError(f"{self.url}: the gateway cannot be reached: {error}") from error
        if response.status != 200:
            raise BackendError(f"{self.url}: the gateway answers {response.status}: is it the right token?")
        try:
            return _totals(json.loads(response.data))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BackendError(f"{self.url}: it is no observation of version {VERSION}: {error}") from error


def _totals(content: Any) -> Totals:
    if content["version"] != VERSION:
        raise ValueError(f"it has version {content['version']}")
    began = str(content["boot_id"])
    functions = {
        str(name): FunctionTotals(
            int(one["arrivals"]), int(one["completed"]), int(one["late"]), int(one["refused"]),
            int(one["queue"]), int(one["in_flight"]),
            None if one["latency_ms"] is None else float(one["latency_ms"]),
        )
        for name, one in content["functions"].items()
    }  # fmt: skip
    instances = {
        str(one["id"]): InstanceTotals(
            int(one["batches"]), int(one["requests"]), float(one["run_s"]),
            None if one.get("device_s") is None else float(one["device_s"]),
            f"{began} {one.get('started_s')}",
        )
        for one in content["instances"]
    }  # fmt: skip
    return Totals(began, functions, instances)


class Since:
    """Counts since the time before, from totals that may begin anew."""

    def __init__(self) -> None:
        self._before: Totals | None = None

    def forget(self) -> None:
        """There was a time of which nothing is known: the next totals are those to count from."""
        self._before = None

    def functions(self, now: Totals) -> dict[str, FunctionView]:
        """Each function; `arrivals` is None where there is nothing to count from."""
        before = self._before
        views = {}
        for name, one in now.functions.items():
            known = None if before is None or before.began != now.began else before.functions.get(name)
            if known is None:
                views[name] = FunctionView(None, one.queue, one.in_flight, latency_ms=one.latency_ms)
                continue
            views[name] = FunctionView(
                one.arrivals - known.arrivals, one.queue, one.in_flight, one.completed - known.completed,
                one.late - known.late, one.refused - known.refused, one.latency_ms,
            )  # fmt: skip
        return views

    def instance(self, view: InstanceView, now: Totals) -> InstanceView:
        """An instance with its counts; one that began since the time before has all of its own."""
        one = now.instances.get(view.id)
        if one is None or self._before is None:
            return view
        known = self._before.instances.get(view.id)
        if known is None or known.began != one.began:
            known = InstanceTotals(0, 0, 0.0, None if one.device_s is None else 0.0, one.began)
        batches, requests = one.batches - known.batches, one.requests - known.requests
        if batches <= 0:
            return view
        device_ms = None
        if one.device_s is not None and known.device_s is not None:
            device_ms = 1e3 * (one.device_s - known.device_s) / batches
        run_ms = 1e3 * (one.run_s - known.run_s) / batches
        return replace(view, batches=batches, requests=requests, run_ms=run_ms, device_ms=device_ms)

    def done(self, now: Totals) -> None:
        """These are the totals to count from next."""
        self._before = now
