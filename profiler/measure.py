"""Measure one point: warm up, then blocks of batches until the median is known well enough.

The rules are those that benchmarking tools agree on (NVBench's stopping criteria, perf_analyzer's stable
windows), with a stop rule that assumes no distribution:

- warm-up: 3 runs, then until the medians of two blocks of 10 agree within 2 %; for at most 5 s;
- stop: half the 95 % interval of the median is within 1 % of it, after 20 to 500 samples or 30 s;
- rejection: whole blocks with a cause that the device saw, never a sample for its value. Where rejected
  blocks outnumber the others, the machine is busy rather than disturbed: then everything that ran counts,
  and the point has not converged.

The interval is looked at after every block and the point ends at the first that is narrow enough, so that it
misses the median more often than the 5 % of one look.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from profiler.device import Block
from profiler.statistics import mad, median_interval, percentile, relative_half_width
from rapp.errors import ConfigError
from rapp.types import FloatArray

WARM_UP_RUNS = 3
WARM_UP_BLOCK = 10
WARM_UP_AGREEMENT = 0.02

LEAST_SAMPLES = 3
"""Of a point whose batches take longer than the time allowed: fewer samples say nothing of their spread."""


class Runs(Protocol):
    """What `measure` needs of a `Session`: batches that run one after another."""

    def run(self, count: int) -> Block:
        """Run `count` batches and time each."""


@dataclass(frozen=True, slots=True)
class StopRule:
    """When a point is measured well enough.

    Args:
        relative_half_width: half the 95 % interval of the median over the median, at most.
        min_samples: samples before that interval is looked at.
        max_samples: samples after which the point ends, converged or not.
        max_seconds: time for the samples, s, after which it ends. It counts `wall_ms`, so that a device in
            virtual time obeys it, and the clock, so that pauses between the batches count too.
        block: batches run in one go: what is rejected as a whole.
        max_rejected: rejected blocks after which it ends, if they are more than the others.
        warm_up_seconds: longest warm-up, s.

    Raises:
        ConfigError: a value out of its range.
    """

    relative_half_width: float = 0.01
    min_samples: int = 20
    max_samples: int = 500
    max_seconds: float = 30.0
    block: int = 10
    max_rejected: int = 10
    warm_up_seconds: float = 5.0

    def __post_init__(self) -> None:
        for name in ("relative_half_width", "max_seconds"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name):g}: it must be above 0")
        for name in ("min_samples", "block", "max_rejected"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        if not self.warm_up_seconds >= 0:
            raise ConfigError(f"warm_up_seconds is {self.warm_up_seconds:g}: it must be 0 or more")
        if self.max_samples < max(self.min_samples, LEAST_SAMPLES):
            least = max(self.min_samples, LEAST_SAMPLES)
            raise ConfigError(f"max_samples is {self.max_samples}: it must be {least} or more")


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured at one point: columns of the profile table, in ms.

    Args:
        latency_ms: mean wall time of one batch.
        median_ms: its median. median_low_ms, median_high_ms: 95 % interval of it; None under 6 samples.
        p95_ms: 95th percentile; None under 100 samples. p99_ms: 99th; None under 1,000.
        mad_ms: median absolute deviation from the median.
        device_ms: mean device time of one batch. launch_ms: mean host time until everything was launched.
            None: the device does not tell.
        n_samples: batches that the figures are from.
        converged: whether the stop rule was met by blocks without a disturbance.
        rejected: how many blocks were disturbed, by cause.
        warm_up_runs: batches that ran before the first sample.
        counts_rejected: whether the figures are from all blocks, since too few were undisturbed.
    """

    latency_ms: float
    median_ms: float
    median_low_ms: float | None
    median_high_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    mad_ms: float
    device_ms: float | None
    launch_ms: float | None
    n_samples: int
    converged: bool
    rejected: Mapping[str, int] = field(default_factory=dict)
    warm_up_runs: int = 0
    counts_rejected: bool = False


def measure(
    session: Runs, rule: StopRule | None = None, *, clock: Callable[[], float] = time.monotonic
) -> Measurement:
    """Measure a session that is prepared and has its quota.

    A batch that takes long ends by `max_seconds` with few samples, 3 at least, and has not converged.

    Args:
        session: what runs the batches.
        rule: when to stop; the project's rule unless given.
        clock: seconds of the guard against pauses.

    Raises:
        MeasureError: the session cannot run.
    """
    rule = rule or StopRule()
    warm = _Timed(session, rule.warm_up_seconds, clock)
    _warm_up(warm)
    timed = _Timed(session, rule.max_seconds, clock, per_run_s=warm.per_run_s)
    clean: list[Block] = []
    disturbed: list[Block] = []
    causes: Counter[str] = Counter()
    converged = False
    while timed.runs < rule.max_samples and (timed.runs < LEAST_SAMPLES or timed.left_s > 0):
        count = timed.affordable(min(rule.block, rule.max_samples - timed.runs))
        block = timed.run(count)
        if block.disturbance is None:
            clean.append(block)
        else:
            disturbed.append(block)
            causes[block.disturbance] += 1
        samples = _joined(clean, "wall_ms")
        if samples is not None and len(samples) >= rule.min_samples:
            converged = relative_half_width(samples) <= rule.relative_half_width
        if converged or len(disturbed) >= max(rule.max_rejected, len(clean) + 1):
            break
    enough = sum(len(block.wall_ms) for block in clean) >= (rule.min_samples if disturbed else 1)
    counted = clean if enough else clean + disturbed
    return _measurement(counted, converged, dict(causes), warm.runs, counts_rejected=not enough)


class _Timed:
    """Runs a session under a limit of time, and knows how long a batch takes.

    Args:
        limit_s: seconds for all runs. per_run_s: what a batch is known to take, s; None: not known.
    """

    def __init__(
        self, session: Runs, limit_s: float, clock: Callable[[], float], per_run_s: float | None = None
    ) -> None:
        self._session, self._limit_s, self._clock = session, limit_s, clock
        self._started, self._wall_s = clock(), 0.0
        self.per_run_s = per_run_s
        self.runs = 0

    @property
    def left_s(self) -> float:
        """What is left of the limit: of wall times or of the clock, whichever is less."""
        return self._limit_s - max(self._wall_s, self._clock() - self._started)

    def affordable(self, most: int) -> int:
        """How many batches fit into the time left: 1 at least, `most` at most."""
        if self.per_run_s is None or self.per_run_s * most <= self.left_s:
            return most
        return max(1, min(most, int(self.left_s / self.per_run_s)))

    def run(self, count: int) -> Block:
        before_s = self._clock()
        block = self._session.run(count)
        wall_s = float(np.sum(block.wall_ms)) / 1e3
        self._wall_s += wall_s
        self.runs += len(block.wall_ms)
        self.per_run_s = max(wall_s, self._clock() - before_s) / max(len(block.wall_ms), 1)
        return block


def _warm_up(timed: _Timed) -> None:
    """Run until two blocks one after the other agree, or the time is up; once in any case."""
    for _ in range(WARM_UP_RUNS):
        timed.run(1)
        if timed.left_s <= 0:
            return
    before: float | None = None
    while timed.left_s > 0:
        now = float(np.median(timed.run(timed.affordable(WARM_UP_BLOCK)).wall_ms))
        if before is not None and abs(now - before) <= WARM_UP_AGREEMENT * before:
            return
        before = now


def _joined(blocks: list[Block], times: str) -> FloatArray | None:
    """(N,) the times of all blocks, ms; None if there is no block, or one that does not tell."""
    arrays = [getattr(block, times) for block in blocks]
    if not arrays or any(array is None for array in arrays):
        return None
    return np.concatenate(arrays)


def _measurement(
    blocks: list[Block], converged: bool, rejected: dict[str, int], warm_up_runs: int, counts_rejected: bool
) -> Measurement:
    """The figures of these blocks."""
    from rapp.profiles.schema import P95_MIN_SAMPLES, P99_MIN_SAMPLES

    samples = _joined(blocks, "wall_ms")
    assert samples is not None
    low_ms, high_ms = median_interval(samples) or (None, None)
    device, launch = _joined(blocks, "device_ms"), _joined(blocks, "launch_ms")
    return Measurement(
        latency_ms=float(np.mean(samples)),
        median_ms=float(np.median(samples)),
        median_low_ms=low_ms,
        median_high_ms=high_ms,
        p95_ms=percentile(samples, 95) if len(samples) >= P95_MIN_SAMPLES else None,
        p99_ms=percentile(samples, 99) if len(samples) >= P99_MIN_SAMPLES else None,
        mad_ms=mad(samples),
        device_ms=None if device is None else float(np.mean(device)),
        launch_ms=None if launch is None else float(np.mean(launch)),
        n_samples=len(samples),
        converged=converged,
        rejected=rejected,
        warm_up_runs=warm_up_runs,
        counts_rejected=counts_rejected,
    )
