"""`Local`: the server of `rapp serve` as a backend, over its admin interface."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rapp.errors import ConfigError
from rapp.types import ResourceConfig
from scaler.backends.fencing import TERM_HEADER, UNFENCED, Fence, FencedError
from scaler.core.codec import decision_to_json
from scaler.core.decision import Decision
from scaler.core.observation import FunctionView, GpuView, InstanceView, Observation, Phase
from scaler.errors import BackendError

TIMEOUT_S = 10.0
"""For an answer, s: the server answers in milliseconds, and a tick is a second or more."""

_COUNTS = ("arrivals", "completed", "late", "refused")
_SUMS = ("batches", "requests", "run_s", "device_s")

Counts = Mapping[str, float]


class Local:
    """A server on this machine, or on one that is reached by its URL.

    It keeps the counts of its last observation, and takes differences of the server's, which go up only: any
    number of readers can observe. The first observation, and the first after the server was started anew,
    says `arrivals` None.

    Args:
        url: `http://HOST:PORT`. token: of the admin interface. timeout_s: longest wait for an answer, s.

    Raises:
        ConfigError: no http URL.
    """

    def __init__(self, url: str, token: str, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        try:
            self._address = parts.hostname or "", parts.port or 80
        except ValueError as error:
            raise ConfigError(f"{url}: {error}") from error
        if parts.scheme != "http" or not parts.hostname:
            raise ConfigError(f"{url}: write http://HOST:PORT, as `rapp serve` prints it")
        self._url, self._token, self._timeout_s = url, token, timeout_s
        self._connection: http.client.HTTPConnection | None = None
        self._is_open = True
        self._boot_id: str | None = None
        self._functions: dict[str, Counts] = {}
        self._instances: dict[tuple[str, float], Counts] = {}

    @classmethod
    def at(cls, url: str, token_file: Path | None = None) -> Local:
        """The server at a URL, with the token of a file.

        Args:
            token_file: None: the variable RAPP_ADMIN_TOKEN, or else where `rapp serve` of this user and port
                puts it.

        Raises:
            ConfigError: no http URL. TokenError: there is no token that can be read.
        """
        import os

        from scaler.serving.token import VARIABLE, checked, default_token_file, read_token_file

        made = cls(url, "")
        given = os.environ.get(VARIABLE)
        if token_file is None and given is not None:
            made._token = checked(given, VARIABLE)
        else:
            made._token = read_token_file(token_file or default_token_file(made._address[1]))
        return made

    @property
    def name(self) -> str:
        """What it is."""
        return f"local:{self._address[0]}:{self._address[1]}"

    def observe(self) -> Observation:
        """As `Backend.observe`."""
        seen = self._ask("GET", "/admin/observation")
        try:
            return self._observation(seen)
        except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
            raise BackendError(f"{self._url}: its observation cannot be read ({error!r})") from error

    def apply(self, decision: Decision, fence: Fence = UNFENCED) -> list[tuple[str, str]]:
        """As `Backend.apply`; the server makes all changes at once, or none if it knows of a later term."""
        term = {} if fence.term is None else {TERM_HEADER: str(fence.term)}
        body = decision_to_json(decision).encode()
        fence.check()
        answer = self._ask("POST", "/admin/apply", body, term)
        try:
            return [(str(one["id"]), str(one["why"])) for one in answer["refused"]]
        except (KeyError, TypeError) as error:
            raise BackendError(f"{self._url}: its answer cannot be read ({error!r})") from error

    def record(self, content: Mapping[str, Any]) -> None:
        """Leave a record of a decision for the status page; `decision` in it must be one, as JSON object.

        Raises:
            BackendError: as `apply`.
        """
        self._ask("POST", "/admin/decisions", json.dumps(content, allow_nan=False).encode())

    def close(self) -> None:
        """As `Backend.close`."""
        self._is_open = False
        self._hang_up()

    # --- what is seen ---------------------------------------------------------------------------------------

    def _observation(self, seen: Any) -> Observation:
        if seen["version"] != 1:
            raise BackendError(f"{self._url}: speaks version {seen['version']}, this program reads 1")
        boot_id = str(seen["boot_id"])
        known = boot_id == self._boot_id
        functions = {name: _counts(one, _COUNTS) for name, one in seen["functions"].items()}
        instances = {(one["id"], one["started_s"]): _counts(one, _SUMS) for one in seen["instances"]}
        made = Observation(
            float(seen["now_s"]),
            {
                name: _function(one, functions[name], self._functions.get(name) if known else None)
                for name, one in seen["functions"].items()
            },
            tuple(
                self._instance(one, instances[one["id"], one["started_s"]], known)
                for one in seen["instances"]
            ),
            tuple(
                GpuView(
                    str(one["id"]),
                    float(one["memory_mib"]),
                    float(one["host_cores"]),
                    float(one["sm_step_pct"]),
                )
                for one in seen["gpus"]
            ),
        )
        # Only now: what could not be read is asked for again.
        self._boot_id, self._functions, self._instances = boot_id, functions, instances
        return made

    def _instance(self, one: Mapping[str, Any], counts: Counts, known: bool) -> InstanceView:
        # One that was not there at the last look did all since then; at the first look, nothing counts.
        before = self._instances.get((one["id"], one["started_s"]), dict.fromkeys(_SUMS, 0.0))
        if not known:
            before = counts
        new = {name: counts[name] - before[name] for name in _SUMS}
        batches = int(new["batches"])
        return InstanceView(
            id=str(one["id"]),
            function=str(one["function"]),
            gpu=str(one["gpu"]),
            row=int(one["row"]),
            config=ResourceConfig(float(one["sm_pct"]), float(one["quota_pct"]), int(one["batch"])),
            phase=Phase(one["phase"]),
            since_s=float(one["since_s"]),
            batches=batches,
            requests=int(new["requests"]),
            run_ms=1e3 * new["run_s"] / batches if batches else None,
            device_ms=1e3 * new["device_s"] / batches if batches else None,
        )

    # --- HTTP -----------------------------------------------------------------------------------------------

    def _ask(
        self, method: str, path: str, body: bytes | None = None, extra: Mapping[str, str] | None = None
    ) -> Any:
        if not self._is_open:
            raise BackendError(f"{self.name}: it was closed")
        status, text = self._exchange(method, path, body, extra or {})
        try:
            answer = json.loads(text)
        except ValueError as error:
            raise BackendError(f"{self._url}: its answer is no JSON: is it `rapp serve`?") from error
        if status == HTTPStatus.UNAUTHORIZED:
            raise BackendError(
                f"{self._url}: does not take this token: give the file that `rapp serve` names"
            )
        if status != HTTPStatus.OK:
            reason = answer.get("error", status) if isinstance(answer, dict) else status
            kind = FencedError if status == HTTPStatus.CONFLICT else BackendError
            raise kind(f"{self._url}: {method} {path}: {reason}")
        return answer

    def _exchange(
        self, method: str, path: str, body: bytes | None, extra: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Ask, once more on a new connection if the server had closed a kept one.

        Changes are idempotent, so that it does no harm if they were made and only the answer was lost.
        """
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json", **extra}
        kept = self._connection is not None
        try:
            return self._exchanged(method, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            self._hang_up()
            if not kept:
                raise self._unreachable(error) from error
        try:
            return self._exchanged(method, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            self._hang_up()
            raise self._unreachable(error) from error

    def _exchanged(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(*self._address, timeout=self._timeout_s)
        self._connection.request(method, path, body, dict(headers))
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def _unreachable(self, error: Exception) -> BackendError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return BackendError(f"{self._url}: does not answer ({reason}): is `rapp serve` running?")

    def _hang_up(self) -> None:
        if self._connection is not None:
            with suppress(OSError):
                self._connection.close()
            self._connection = None


def _counts(one: Mapping[str, Any], names: tuple[str, ...]) -> Counts:
    return {name: float(one[name]) for name in names}


def _function(one: Mapping[str, Any], counts: Counts, before: Counts | None) -> FunctionView:
    latency_ms = None if one["latency_ms"] is None else float(one["latency_ms"])
    queue, in_flight = int(one["queue"]), int(one["in_flight"])
    if before is None:
        return FunctionView(None, queue, in_flight, latency_ms=latency_ms)
    arrivals, completed, late, refused = (int(counts[name] - before[name]) for name in _COUNTS)
    return FunctionView(arrivals, queue, in_flight, completed, late, refused, latency_ms)
