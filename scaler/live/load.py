"""Open-loop load: requests leave when they are due, whether those before are answered or not.

    trace = Trace.read("trace.csv")
    arrivals = trace.arrivals(["resnet50"], ArrivalProcess.POISSON, seed=0)
    report = run_load("http://127.0.0.1:8000", arrivals, trace.duration_s, slo_ms={"resnet50": 60})

Latency counts from the time at which a request was to be sent, so that a server, or a generator, that stands
still for a second shows that second in every request that was due in it (no coordinated omission: Tene, "How
not to measure latency", 2013). One thread; needs the extra `serve`.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rapp.errors import ConfigError
from rapp.types import FloatArray
from scaler.live.load_connections import Connections
from scaler.live.load_process import allow_files, loop_factory, without_collection
from scaler.live.load_records import UNFINISHED, LoadRecords, Recorder
from scaler.live.load_report import LoadReport, report_of
from scaler.live.load_target import SPREAD, Target, kserve_target
from scaler.live.load_timer import precise_timer
from scaler.live.load_url import Server

FIRST_CONNECTIONS = 8
"""Opened before the first request, which would wait for the handshake otherwise."""

BURST = 32
"""Requests sent before answers are read again, when the generator is behind."""

CHECK_S = 0.01
"""How often requests are looked at that take too long: what a time-out may be off."""

PROGRESS_S = 1.0
"""How often progress is told."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to send.

    Args:
        timeout_ms: a request without an answer ends then, counted from its intended time, ms.
        connections: at most so many at once; with fewer than the requests in flight the load is not open,
            and the report says so.
        seed: of the inputs.
        drain_s: how long answers are waited for after the last request, s; None: as long as the time-out.
    """

    timeout_ms: float = 10_000.0
    connections: int = 1024
    seed: int = 0
    drain_s: float | None = None

    def __post_init__(self) -> None:
        if not self.timeout_ms > 0:
            raise ConfigError(f"timeout_ms is {self.timeout_ms:g}: it must be above 0")
        if self.connections < 1:
            raise ConfigError(f"connections is {self.connections}: it must be 1 or more")


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """Where a load is: time passed, s, and counts so far."""

    passed_s: float
    duration_s: float
    sent: int
    answered: int
    refused: int
    failed: int
    in_flight: int


def run_load(
    url: str,
    arrivals: Mapping[str, FloatArray],
    duration_s: float,
    *,
    slo_ms: Mapping[str, float] | None = None,
    options: LoadOptions | None = None,
    targets: Mapping[str, Target] | None = None,
    on_progress: Callable[[LoadProgress], None] | None = None,
    stopped: Callable[[], bool] | None = None,
) -> LoadReport:
    """Send requests at their times, and say what became of them.

    In the main thread ctrl-C ends it early; the report then holds what there is.

    Args:
        url: http://HOST:PORT of a server of KServe's protocol v2.
        arrivals: by function, sorted times to send at, s from the start.
        duration_s: the time that they cover, s.
        slo_ms: objective by function, ms; a function may lack one.
        targets: requests of each function; None: as the server's metadata of the model say.
        on_progress: called each second. stopped: asked 100 times a second whether to end early.

    Raises:
        BackendError: nobody answers, or there is no such model.
        ConfigError: no URL, nothing to send, or inputs that cannot be made.
        MissingExtraError: the extra `serve` is not installed.
    """
    options = options or LoadOptions()
    names = tuple(arrivals)
    if not any(len(times) for times in arrivals.values()):
        raise ConfigError("the trace holds no request for these functions")
    allow_files(options.connections)
    server = Server.at(url)
    known = targets or {name: kserve_target(server, name, options.seed) for name in names}
    times_s = np.concatenate([arrivals[name] for name in names])
    order = np.argsort(times_s, kind="stable")
    function = np.repeat(np.arange(len(names)), [len(arrivals[name]) for name in names])[order]
    load = _Load(server, times_s[order], function, [known[name] for name in names], duration_s, options)
    load.on_progress, load.stopped = on_progress, stopped
    with without_collection():
        cpu_s, wall_s = time.thread_time(), time.perf_counter()
        # Not asyncio.run: it would hand ctrl-C to the task as a cancellation.
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(load.run())
        cpu_s, wall_s = time.thread_time() - cpu_s, time.perf_counter() - wall_s
    return report_of(
        LoadRecords.of(load.recorder, names, function, load.next),
        slo_ms or {},
        passed_s=load.passed_s,
        waited=load.waited,
        cpu_s=cpu_s,
        wall_s=wall_s,
        interrupted=load.interrupted,
    )


class _Load:
    """The run itself. `next` is the request to send next; those before have left."""

    def __init__(
        self,
        server: Server,
        times_s: FloatArray,
        function: NDArray[np.int64],
        targets: list[Target],
        duration_s: float,
        options: LoadOptions,
    ) -> None:
        self.recorder = Recorder(times_s)
        self.next = 0
        self.passed_s, self.waited, self.interrupted = duration_s, 0, False
        self.on_progress: Callable[[LoadProgress], None] | None = None
        self.stopped: Callable[[], bool] | None = None
        self._server, self._targets, self._duration_s, self._options = server, targets, duration_s, options
        self._function: list[int] = function.tolist()
        self._offset: list[int] = (
            np.random.default_rng(options.seed).integers(0, SPREAD, len(times_s)).tolist()
        )
        self._times_s, self._count = self.recorder.intended_s, len(times_s)
        self._oldest = 0  # every request before has ended

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        server = self._server
        self._connections = Connections(
            loop, server.address, server.port, server.tls_context(), server.host,
            self._options.connections, self._parts, self,
        )  # fmt: skip
        with suppress(OSError):  # the requests will say it
            await self._connections.open(FIRST_CONNECTIONS)
        self._loop, self._timer = loop, precise_timer(loop, self._send_due)
        self._start_s = time.perf_counter() + 0.01
        with self._interruptible(loop):
            self._timer.set(self._start_s + self._times_s[0])
            try:
                await self._watch()
            finally:
                self._timer.close()
                self.waited = self._connections.waited
                self._connections.close()
        await asyncio.sleep(0)  # lets the transports go

    def sent(self, request: int, now_s: float) -> None:
        self.recorder.sent(request, now_s - self._start_s)

    def end(self, request: int, status: int, now_s: float) -> None:
        self.recorder.end(request, status, now_s - self._start_s)

    def _parts(self, request: int) -> list[bytes | memoryview]:
        return self._targets[self._function[request]].parts(self._offset[request])

    def _send_due(self) -> None:
        """Send what is due, and set the timer to what comes next."""
        if self.interrupted:
            return
        times_s, last = self._times_s, min(self.next + BURST, self._count)
        passed_s = time.perf_counter() - self._start_s
        while self.next < last and times_s[self.next] <= passed_s:
            request = self.next
            self.next += 1
            self._connections.send(request)
        if self.next < self._count:
            self._timer.set(self._start_s + times_s[self.next])

    async def _watch(self) -> None:
        """Until everything has ended: look for requests that take too long, tell how far it is."""
        timeout_s = self._options.timeout_ms / 1e3
        drain_s = timeout_s + 2 * CHECK_S if self._options.drain_s is None else self._options.drain_s
        told_s = 0.0
        while not self.interrupted:
            passed_s = time.perf_counter() - self._start_s
            self._expire(passed_s - timeout_s)
            if passed_s >= told_s + PROGRESS_S and self.on_progress is not None:
                told_s = passed_s
                self.on_progress(self._progress(passed_s))
            all_over = self.next >= self._count and self.recorder.ended >= self._count
            if passed_s >= self._duration_s and (all_over or passed_s >= self._duration_s + drain_s):
                return
            if self.stopped is not None and self.stopped():
                self._interrupt()
                return
            await asyncio.sleep(CHECK_S)

    def _expire(self, before_s: float) -> None:
        """End those that were to be sent before a time; requests are in the order of that time."""
        times_s, status = self._times_s, self.recorder.status
        while self._oldest < self.next and times_s[self._oldest] <= before_s:
            if status[self._oldest] == UNFINISHED:
                self._connections.expire(self._oldest)
            self._oldest += 1

    def _progress(self, passed_s: float) -> LoadProgress:
        seen = self.recorder
        failed = seen.ended - seen.answered - seen.refused
        return LoadProgress(
            min(passed_s, self._duration_s), self._duration_s, self.next, seen.answered, seen.refused, failed,
            self.next - seen.ended,
        )  # fmt: skip

    def _interrupt(self) -> None:
        self.interrupted = True
        self.passed_s = min(time.perf_counter() - self._start_s, self._duration_s)

    @contextmanager
    def _interruptible(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Let ctrl-C end the run; other threads than the main one cannot have signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, before)
