"""The load of one function over time, as rates in steps or as single arrivals, and arrivals drawn from it.

Arrivals of a rate are made by a change of time: with the expected count up to t,

    Lambda(t) = integral of the rate,

the arrivals are Lambda^-1(m) of marks m: 0.5, 1.5, 2.5, ... for even ones, the points of a Poisson process
of rate 1 for Poisson ones (Devroye 1986, section VI.1.3). Times count from the start of the load, seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from rapp.types import FloatArray


class ArrivalProcess(StrEnum):
    """How requests arrive at a given rate.

    `even`: at equal distances while the rate lasts, the same each time; a rate of n rps for a second is n
    arrivals in that second. `poisson`: independent of each other.
    """

    EVEN = "even"
    POISSON = "poisson"


@dataclass(frozen=True, slots=True, eq=False)
class RateSteps:
    """A rate that is constant between edges.

    Args:
        edges_s: (N + 1,) where the steps begin and the last one ends, s, ascending.
        rps: (N,) requests per second, >= 0.
    """

    edges_s: FloatArray
    rps: FloatArray

    @property
    def start_s(self) -> float:
        """Where it begins, s."""
        return float(self.edges_s[0])

    @property
    def end_s(self) -> float:
        """Where it ends, s."""
        return float(self.edges_s[-1])

    def window(self, from_s: float, to_s: float) -> RateSteps:
        """The part from `from_s` to `to_s`, filled up with a rate of 0 where there was none."""
        inner = np.clip(self.edges_s, from_s, to_s)
        edges, rps = np.concatenate([[from_s], inner, [to_s]]), np.concatenate([[0.0], self.rps, [0.0]])
        kept = np.diff(edges) > 0
        return RateSteps(np.append(edges[:-1][kept], to_s), rps[kept])

    def scaled(self, scale: float) -> RateSteps:
        """The same with every rate multiplied."""
        return RateSteps(self.edges_s, self.rps * scale)

    def repeated(self, times: int) -> RateSteps:
        """The same so many times, one after another."""
        span = self.end_s - self.start_s
        starts = (self.edges_s[:-1] + span * np.arange(times)[:, None]).ravel()
        return RateSteps(np.append(starts, self.start_s + span * times), np.tile(self.rps, times))

    def expected(self, at_s: FloatArray) -> FloatArray:
        """Expected number of arrivals from the start to each time, (M,)."""
        return np.interp(at_s, self.edges_s, self._counts())

    def arrivals(self, process: ArrivalProcess, rng: np.random.Generator) -> FloatArray:
        """Arrival times, s from `start_s`, (A,), ascending."""
        counts = self._counts()
        total = float(counts[-1])
        if process == ArrivalProcess.EVEN:
            marks = np.arange(max(math.ceil(total - 0.5), 0), dtype=np.float64) + 0.5
        else:
            marks = _poisson_marks(total, rng)
        # How many marks fall into each step; a step without rate has none, so there is no division by it.
        last = np.searchsorted(marks, counts[1:])
        in_step = np.diff(last, prepend=0)
        times = marks - np.repeat(counts[:-1], in_step)
        with np.errstate(divide="ignore", over="ignore"):
            times *= np.repeat(1.0 / self.rps, in_step)
        times += np.repeat(self.edges_s[:-1] - self.start_s, in_step)
        # Rounding must put nothing beyond the step's end, where the next step's first arrival may be.
        np.minimum(times, np.repeat(self.edges_s[1:] - self.start_s, in_step), out=times)
        return times

    def _counts(self) -> FloatArray:
        """Expected number of arrivals up to each edge, (N + 1,)."""
        return np.concatenate([[0.0], np.cumsum(self.rps * np.diff(self.edges_s))])


@dataclass(frozen=True, slots=True, eq=False)
class ArrivalTimes:
    """Arrivals as recorded.

    Args:
        times_s: (A,) s, ascending.
        start_s, end_s: the time that the record covers.
        scale: by how much there shall be more, or fewer, of them.
    """

    times_s: FloatArray
    start_s: float
    end_s: float
    scale: float = 1.0

    def window(self, from_s: float, to_s: float) -> ArrivalTimes:
        """Those from `from_s` to before `to_s`."""
        inside = self.times_s[np.searchsorted(self.times_s, from_s) : np.searchsorted(self.times_s, to_s)]
        return ArrivalTimes(inside, from_s, to_s, self.scale)

    def scaled(self, scale: float) -> ArrivalTimes:
        """`scale` times as many: see `arrivals`."""
        return ArrivalTimes(self.times_s, self.start_s, self.end_s, self.scale * scale)

    def repeated(self, times: int) -> ArrivalTimes:
        """The same so many times, one after another."""
        span = self.end_s - self.start_s
        all_s = (self.times_s + span * np.arange(times)[:, None]).ravel()
        return ArrivalTimes(all_s, self.start_s, self.start_s + span * times, self.scale)

    def expected(self, at_s: FloatArray) -> FloatArray:
        """Number of arrivals from the start to before each time, times the scale, (M,)."""
        return self.scale * np.searchsorted(self.times_s, at_s).astype(np.float64)

    def arrivals(self, process: ArrivalProcess, rng: np.random.Generator) -> FloatArray:
        """Arrival times, s from `start_s`, (A,), ascending; the process is that of the record.

        With a scale below 1 each arrival is kept with that probability. Above 1 it is multiplied, by chance
        up or down to a whole number; the copies lie at random between it and the next, so that bursts stay.
        """
        own = self.times_s - self.start_s
        if self.scale == 1 or not len(own):
            return own
        copies = np.floor(self.scale + rng.random(len(own))).astype(np.int64)
        gap = np.diff(own, append=self.end_s - self.start_s)
        shift = rng.random(int(copies.sum()))
        # The first of each keeps its time.
        first = np.cumsum(copies) - copies
        shift[first[copies > 0]] = 0.0
        return np.sort(np.repeat(own, copies) + shift * np.repeat(gap, copies))


def _poisson_marks(total: float, rng: np.random.Generator) -> FloatArray:
    """Points of a Poisson process of rate 1 below `total`, ascending."""
    parts, reached = [], 0.0
    while reached < total:
        missing = total - reached
        # Six standard deviations more than expected: a second round is needed once in a billion.
        part = reached + np.cumsum(rng.standard_exponential(int(missing + 6 * math.sqrt(missing)) + 16))
        parts.append(part)
        reached = float(part[-1])
    marks = np.concatenate(parts) if parts else np.empty(0)
    return marks[: np.searchsorted(marks, total)]
