"""Real time, and ticks on it that do not drift."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol


class Stopping(Protocol):
    """Whether a loop is to end; `threading.Event` is one too."""

    def is_set(self) -> bool:
        """Whether it is."""

    def wait(self, timeout: float | None = None, /) -> bool:
        """Wait until it is, `timeout` s at most; whether it is."""


class Stop:
    """A `Stopping` that a signal handler may set.

    An Event may not: its lock is no reentrant one, and a handler runs in the thread that may hold it.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[None] = SimpleQueue()
        self._is_set = False

    def set(self) -> None:
        """The loop is to end; `SimpleQueue.put` is documented as reentrant."""
        self._is_set = True
        self._queue.put(None)

    def is_set(self) -> bool:
        """As `Stopping.is_set`."""
        return self._is_set

    def wait(self, timeout: float | None = None, /) -> bool:
        """As `Stopping.wait`; for one thread."""
        if not self._is_set:
            try:
                self._queue.get(timeout=timeout)
            except Empty:
                return self._is_set
        return self._is_set


class Clock(Protocol):
    """Time as the controller's loop uses it; a test gives one that it moves itself."""

    def now_s(self) -> float:
        """Seconds that never go back and that no one sets."""

    def wait_until(self, when_s: float, stop: Stopping) -> None:
        """Return at `when_s`, or as soon as `stop` is set."""


class RealClock:
    """The monotonic clock of this machine."""

    def now_s(self) -> float:
        """As `Clock.now_s`."""
        return time.monotonic()

    def wait_until(self, when_s: float, stop: Stopping) -> None:
        """As `Clock.wait_until`."""
        stop.wait(max(when_s - time.monotonic(), 0.0))


@dataclass(slots=True)
class Ticks:
    """Ticks at `begin_s`, `begin_s + tick_s`, ...: from the beginning, not from the tick before.

    Args:
        begin_s: time of tick 0. tick_s: between two of them.
        number: of the tick that comes next.
    """

    begin_s: float
    tick_s: float
    number: int = 0

    @property
    def next_s(self) -> float:
        """Time of the tick that comes next."""
        return self.begin_s + self.number * self.tick_s

    def done(self, now_s: float) -> int:
        """The tick that came next is over; those that are late by now are skipped.

        Returns:
            How many are skipped.
        """
        planned = self.number + 1
        # A rounding error of the division is not a late tick.
        self.number = max(planned, math.ceil((now_s - self.begin_s) / self.tick_s - 1e-6))
        return self.number - planned


@dataclass(slots=True)
class Backoff:
    """When to try again after errors in a row: after `first_s`, then twice as long each time, up to `most_s`.

    Args:
        failures: errors in a row. until_s: not before this time.
    """

    first_s: float
    most_s: float = 30.0
    failures: int = 0
    until_s: float = -math.inf

    def failed(self, now_s: float) -> float:
        """One more error; how long to wait now, s."""
        wait_s = min(self.first_s * 2.0 ** min(self.failures, 32), max(self.most_s, self.first_s))
        self.failures += 1
        self.until_s = now_s + wait_s
        return wait_s

    def worked(self) -> None:
        """It worked."""
        self.failures, self.until_s = 0, -math.inf
