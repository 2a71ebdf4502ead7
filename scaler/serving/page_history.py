"""The last minutes of each function, sampled each second: what the page's charts show when it is opened."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from scaler.serving.function import ServedFunction

SAMPLE_S = 1.0
KEPT = 300
"""Samples: five minutes."""
_AT_ONCE = 4
"""Functions that are looked at before requests have their turn again: 0.1 ms each after many answers."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a controller said last of a function: the rate it plans for and its capacity, requests/s."""

    planned_rps: float
    capacity_rps: float


Outlooks = Mapping[str, Outlook]


@dataclass(frozen=True, slots=True)
class Sample:
    """One function over one period.

    Args:
        at_s: end of the period, CLOCK_MONOTONIC, s. rps: requests that came, 1/s.
        violations: requests that were late, refused, dropped or failed in it.
        arrivals: requests that came in it. latency_ms: the objective's quantile of recent answers, ms.
        outlook: what a controller said last; None: nothing lately.
    """

    at_s: float
    rps: float
    arrivals: int
    violations: int
    latency_ms: float | None
    outlook: Outlook | None


class History:
    """Samples of functions; `run` takes them until it is cancelled.

    Args:
        functions: by name. outlooks: asked before each round of samples.
    """

    def __init__(self, functions: Mapping[str, ServedFunction], outlooks: Callable[[], Outlooks]) -> None:
        self._functions, self._outlooks = functions, outlooks
        self._samples: dict[str, deque[Sample]] = {name: deque(maxlen=KEPT) for name in functions}
        self._before = {name: (time.monotonic(), *_counts(one)) for name, one in functions.items()}

    async def run(self) -> None:
        """Take samples."""
        loop = asyncio.get_running_loop()
        next_s = loop.time() + SAMPLE_S
        while True:
            await asyncio.sleep(max(next_s - loop.time(), 0.0))
            next_s = max(next_s + SAMPLE_S, loop.time())
            outlooks = self._outlooks()
            for number, (name, function) in enumerate(self._functions.items()):
                if number % _AT_ONCE == _AT_ONCE - 1:
                    await asyncio.sleep(0)
                self.take(name, function, outlooks.get(name))

    def take(self, name: str, function: ServedFunction, outlook: Outlook | None) -> None:
        """Take a sample of one function."""
        now_s = time.monotonic()
        arrivals, violations = _counts(function)
        before_s, arrivals_before, violations_before = self._before[name]
        self._before[name] = now_s, arrivals, violations
        came = arrivals - arrivals_before
        self._samples[name].append(
            Sample(
                now_s,
                came / max(now_s - before_s, 1e-3),
                came,
                violations - violations_before,
                function.counts.latency_ms(now_s, function.spec.slo_quantile),
                outlook,
            )
        )

    def last(self, name: str) -> Sample | None:
        """The last sample of a function; None: there is none yet."""
        samples = self._samples[name]
        return samples[-1] if samples else None

    def since(self, since_s: float) -> dict[str, dict[str, list[Any]]]:
        """Columns of the samples taken after a time, by function; rates and times are rounded."""
        return {
            name: _columns([one for one in samples if one.at_s > since_s])
            for name, samples in self._samples.items()
        }


def _counts(function: ServedFunction) -> tuple[int, int]:
    counts = function.counts
    return counts.arrivals, counts.late + counts.refused + counts.expired + counts.failed


def _columns(samples: list[Sample]) -> dict[str, list[Any]]:
    outlooks = [one.outlook for one in samples]
    return {
        "at_s": [round(one.at_s, 3) for one in samples],
        "rps": [round(one.rps, 2) for one in samples],
        "arrivals": [one.arrivals for one in samples],
        "violations": [one.violations for one in samples],
        "latency_ms": [None if one.latency_ms is None else round(one.latency_ms, 2) for one in samples],
        "planned_rps": [None if one is None else round(one.planned_rps, 2) for one in outlooks],
        "capacity_rps": [None if one is None else round(one.capacity_rps, 2) for one in outlooks],
    }
