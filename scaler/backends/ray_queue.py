"""The central queue of one function: requests that wait, and what is counted of them.

Lives in the event loop of `scaler.backends.ray_router`; knows nothing of Ray.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from rapp.errors import RappError
from scaler.backends.ray_network import Tensors
from scaler.core.observation import FunctionView

LATENCIES_KEPT = 100_000
"""Of the last answers: more than come between two looks of a reader."""

MOST_TRIES = 3
"""Instances that a request may lose before it is given up: it is the request then that ends them."""


class RefusedError(RappError):
    """The queue of the function is full."""


class DeadlineError(RappError):
    """The request was not answered in its time."""


class FailedError(RappError):
    """The request cannot be answered: its tensors are not those of the network, or it ended its instances."""


@dataclass(slots=True, eq=False)
class Request:
    """One request: its tensors, of batch 1, and where the answer goes."""

    inputs: Tensors
    arrived_s: float
    answer: asyncio.Future[Tensors]
    tries: int = 0

    @property
    def over(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.answer.done()


@dataclass(slots=True)
class _Counts:
    """Since the beginning."""

    arrivals: int = 0
    completed: int = 0
    late: int = 0
    refused: int = 0
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))


class FunctionQueue:
    """Requests of one function.

    Args:
        name: of the function. limit: requests that may wait. delay_s: longest wait for a batch to fill, s.
        slo_ms: its objective. slo_quantile: of the latency that is reported.
    """

    def __init__(self, name: str, limit: int, delay_s: float, slo_ms: float, slo_quantile: float) -> None:
        self.name = name
        self.configure(limit, delay_s, slo_ms, slo_quantile)
        self._waiting: deque[Request] = deque()
        self._in_flight = 0
        self._counts = _Counts()
        self._changed = asyncio.Event()

    def configure(self, limit: int, delay_s: float, slo_ms: float, slo_quantile: float) -> None:
        """Set what a functions.yaml says."""
        self._limit, self._delay_s, self._slo_ms, self._slo_quantile = limit, delay_s, slo_ms, slo_quantile

    async def ask(self, inputs: Tensors, timeout_s: float) -> Tensors:
        """Wait in the queue, and for the answer.

        Raises:
            RefusedError: the queue is full.
            DeadlineError: there was no answer in time.
            FailedError: the network does not take these tensors.
        """
        self._counts.arrivals += 1
        if len(self._waiting) >= self._limit:
            self._counts.refused += 1
            raise RefusedError(f"{self.name}: {self._limit} requests wait: ask again later")
        request = Request(inputs, time.monotonic(), asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self.notify()
        try:
            return await asyncio.wait_for(request.answer, timeout_s)
        except FailedError:
            self._counts.refused += 1
            raise
        except (TimeoutError, asyncio.CancelledError) as error:  # cancelled: nobody waits for it any more
            self._counts.refused += 1
            if request in self._waiting:
                self._waiting.remove(request)
            if isinstance(error, asyncio.CancelledError):
                raise
            raise DeadlineError(f"{self.name}: no answer within {1e3 * timeout_s:g} ms") from None

    async def take(self, batch: Callable[[], int], stopped: Callable[[], bool]) -> list[Request]:
        """The next batch, at most `batch()` requests; waits for it. Empty: `stopped()`."""
        while not stopped():
            wait_s: float | None = None
            if self._waiting:
                count = batch()
                wait_s = self._waiting[0].arrived_s + self._delay_s - time.monotonic()
                if len(self._waiting) >= count or wait_s <= 0:
                    taken = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
                    self._in_flight += len(taken)
                    return taken
            changed = self._changed
            try:
                await asyncio.wait_for(changed.wait(), wait_s)
            except TimeoutError:
                continue
        return []

    def answered(self, requests: Sequence[Request], answers: Sequence[Tensors | str]) -> None:
        """A batch is over: tensors for each request, or why there are none."""
        self._in_flight -= len(requests)
        now_s = time.monotonic()
        for request, answer in zip(requests, answers, strict=True):
            if request.over:
                continue
            if isinstance(answer, str):
                request.answer.set_exception(FailedError(f"{self.name}: {answer}"))
                continue
            latency_ms = 1e3 * (now_s - request.arrived_s)
            self._counts.completed += 1
            self._counts.latencies_ms.append(latency_ms)
            self._counts.late += latency_ms > self._slo_ms
            request.answer.set_result(answer)

    def give_back(self, requests: Sequence[Request]) -> None:
        """Their instance was lost: they go to the head of the queue, in their order."""
        self._in_flight -= len(requests)
        for request in reversed([one for one in requests if not one.over]):
            request.tries += 1
            if request.tries >= MOST_TRIES:
                why = f"{self.name}: {MOST_TRIES} instances were lost over this request"
                request.answer.set_exception(FailedError(why))
            else:
                self._waiting.appendleft(request)
        self.notify()

    def notify(self) -> None:
        """Have all who wait in `take` look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def view(self, completed_before: int | None) -> FunctionView:
        """What there is, with counts since the beginning.

        Args:
            completed_before: answers that the reader knows of: the latency is that of those after them.
                None: it knows none, and gets no latency.
        """
        counts = self._counts
        new = 0 if completed_before is None else min(counts.completed - completed_before, LATENCIES_KEPT)
        latest = list(islice(reversed(counts.latencies_ms), max(new, 0)))
        return FunctionView(
            arrivals=counts.arrivals,
            queue=len(self._waiting),
            in_flight=self._in_flight,
            completed=counts.completed,
            late=counts.late,
            refused=counts.refused,
            latency_ms=float(np.quantile(latest, self._slo_quantile, method="higher")) if latest else None,
        )
