"""A request on its way: its samples, its deadline, and how it ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any


@dataclass(frozen=True, slots=True)
class Fault:
    """How a request ends that is not answered with a result.

    Args:
        status: of HTTP. reason: one sentence for a person. retry_after_s: when to come again; None: not said.
        close: whether the connection is of no use any more.
    """

    status: HTTPStatus
    reason: str
    retry_after_s: int | None = None
    close: bool = False


class BadRequestError(Exception):
    """Raised while a request is read; carries its `Fault`."""

    def __init__(
        self,
        reason: str,
        status: HTTPStatus = HTTPStatus.BAD_REQUEST,
        close: bool = False,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.fault = Fault(status, reason, retry_after_s, close)


class Sample:
    """One sample of a request, in a slot of its function's arena.

    Args:
        request: which it belongs to. slot: where its tensors are; -1 once it was given back.
    """

    __slots__ = ("alone", "request", "running", "slot", "tries")

    def __init__(self, request: Request, slot: int) -> None:
        self.request, self.slot = request, slot
        self.tries = 0
        self.running = False
        # Whether it is run by itself, so that a sample that ends its worker takes no other with it.
        self.alone = False


class Request:
    """A request that was read whole.

    Args:
        arrived_s: time at which it came, s of CLOCK_MONOTONIC. deadline_s: when it must have ended.
        slots: one for each of its samples.
    """

    __slots__ = ("arrived_s", "deadline_s", "done", "left", "result", "samples", "timer")

    def __init__(self, arrived_s: float, deadline_s: float, slots: list[int]) -> None:
        self.arrived_s, self.deadline_s = arrived_s, deadline_s
        self.samples = [Sample(self, slot) for slot in slots]
        self.left = len(slots)
        self.done: asyncio.Future[Fault | None] = asyncio.get_running_loop().create_future()
        self.result: Any = None
        self.timer: asyncio.TimerHandle | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has its answer; a sample that still runs is nobody's."""
        return self.done.done()

    def end(self, fault: Fault | None) -> None:
        """Give it its answer: None: the samples' slots hold it."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if not self.done.done():
            self.done.set_result(fault)
