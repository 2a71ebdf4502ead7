"""`Trace`: the requests of functions over time.

    trace = Trace.read("trace.csv").window(3600, 7200).scaled(0.1)
    arrivals = trace.arrivals(["classify"], ArrivalProcess.POISSON, seed=0)     # {name: (A,) seconds}

`window` speaks the file's own time; everything that a trace gives counts from its start.
"""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rapp.errors import ConfigError
from rapp.types import FloatArray
from scaler.arrivals import ArrivalProcess, ArrivalTimes, RateSteps
from scaler.errors import TraceError
from scaler.trace_file import Load, read_load

__all__ = ["ArrivalProcess", "ArrivalTimes", "RateSteps", "Trace"]


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Load by function. Immutable; the methods make new ones.

    Args:
        source: the file, for messages.
        load: of each function; the key None stands for every function, each with arrivals of its own.
        start_s, end_s: the time covered, in the file's own time, s.
    """

    source: str
    load: Mapping[str | None, Load]
    start_s: float
    end_s: float

    @classmethod
    def read(cls, path: str | Path) -> Trace:
        """Read `*.csv`, `*.json` or `*.json#workload` (`scaler.trace_file` tells the formats).

        Raises:
            TraceError: unreadable or not valid; one line that names file, line and reason.
        """
        return cls.of(read_load(path), str(path))

    @classmethod
    def of(cls, load: Mapping[str | None, Load], source: str = "trace") -> Trace:
        """A trace of these loads, from the first start to the last end."""
        start_s = min(own.start_s for own in load.values())
        end_s = max(own.end_s for own in load.values())
        return cls(source, {name: own.window(start_s, end_s) for name, own in load.items()}, start_s, end_s)

    @classmethod
    def of_rates(cls, rps: Sequence[float], interval_s: float = 1.0, source: str = "trace") -> Trace:
        """A trace of rates at equal intervals, the same for every function."""
        edges_s = np.arange(len(rps) + 1, dtype=np.float64) * interval_s
        return cls.of({None: RateSteps(edges_s, np.asarray(rps, np.float64))}, source)

    @property
    def duration_s(self) -> float:
        """The time covered, s."""
        return self.end_s - self.start_s

    @property
    def functions(self) -> tuple[str, ...]:
        """The functions that it names; none if its load is that of every function."""
        return tuple(name for name in self.load if name is not None)

    def window(self, from_s: float | None = None, to_s: float | None = None) -> Trace:
        """The part from `from_s` to before `to_s`, in the file's own time; None: its begin or end.

        Raises:
            ConfigError: it holds nothing of the trace.
        """
        start = self.start_s if from_s is None else max(from_s, self.start_s)
        end = self.end_s if to_s is None else min(to_s, self.end_s)
        if not start < end:
            raise ConfigError(
                f"{self.source}: covers {self.start_s:g} to {self.end_s:g} s,"
                f" nothing of it lies from {from_s if from_s is not None else self.start_s:g}"
                f" to {to_s if to_s is not None else self.end_s:g} s"
            )
        load = {name: own.window(start, end) for name, own in self.load.items()}
        return Trace(self.source, load, start, end)

    def scaled(self, scale: float) -> Trace:
        """The same with `scale` times as many requests.

        Raises:
            ConfigError: `scale` is not a positive number.
        """
        if not (math.isfinite(scale) and scale > 0):
            raise ConfigError(f"scale is {scale:g}: it must be a positive number")
        return replace(self, load={name: own.scaled(scale) for name, own in self.load.items()})

    def repeated(self, times: int) -> Trace:
        """The same `times` times, one after another.

        Raises:
            ConfigError: `times` is below 1.
        """
        if times < 1:
            raise ConfigError(f"repeat is {times}: it must be 1 or more")
        load = {name: own.repeated(times) for name, own in self.load.items()}
        return replace(self, load=load, end_s=self.start_s + times * self.duration_s)

    def arrivals(
        self, functions: Sequence[str], process: ArrivalProcess = ArrivalProcess.EVEN, seed: int = 0
    ) -> dict[str, FloatArray]:
        """When the requests of each function come: seconds from the start, (A,), ascending.

        What one function gets depends on its name and the seed, not on which others there are. A function
        that the trace does not name has none.

        Raises:
            TraceError: the trace names a function that is not among `functions`.
        """
        return {name: own.arrivals(process, _stream(seed, name)) for name, own in self._by(functions).items()}

    def rates(self, functions: Sequence[str], step_s: float = 1.0) -> dict[str, FloatArray]:
        """The mean rate of each function in each step from the start, rps, (ceil(duration_s / step_s),).

        Of a trace of rates it is what arrivals are drawn from; of one of arrivals what was counted.

        Raises:
            TraceError: as `arrivals`.
        """
        count = math.ceil(self.duration_s / step_s - 1e-9)
        edges = np.minimum(self.start_s + step_s * np.arange(count + 1), self.end_s)
        return {
            name: np.diff(own.expected(edges)) / np.diff(edges) for name, own in self._by(functions).items()
        }

    def _by(self, functions: Sequence[str]) -> dict[str, Load]:
        for name in self.functions:
            if name not in functions:
                close = difflib.get_close_matches(name, functions, n=1)
                near = f" (near: {close[0]})" if close else ""
                raise TraceError(self.source, f"unknown function {name!r}{near}: functions.yaml lacks it")
        nothing = RateSteps(np.array([self.start_s, self.end_s]), np.zeros(1))
        return {name: self.load.get(name) or self.load.get(None) or nothing for name in functions}


def _stream(seed: int, function: str) -> np.random.Generator:
    """Random numbers of one function: `SeedSequence` makes streams of different entropy independent."""
    words = np.frombuffer(hashlib.sha256(function.encode()).digest(), dtype="<u4")
    return np.random.default_rng(np.random.SeedSequence([seed, *words.tolist()]))
