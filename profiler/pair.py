"""Two networks side by side on one device: how much each slows the other down.

Both are loaded in partitions of their own the whole time. Each is measured alone, while the other rests; then
both at once, so that either runs for the whole of the other's measurement; then each alone again, which shows
drift. The slowdown is the median together over the mean of the two medians alone. Its interval holds all
ratios that the 95 % intervals of the three medians allow, and with them what drifted in between: it misses
in one case of ten at most.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from profiler.device import Block, Device, DeviceInfo, NetworkFile, Session
from profiler.measure import Measurement, StopRule, measure
from rapp.errors import ConfigError

if TYPE_CHECKING:
    from rapp.profiles.pairs import PairRow, PairTable

STAGES = ("first alone", "second alone", "together", "second alone again", "first alone again")

Progress = Callable[[str, int, int], None]
"""Is told a stage that begins, how many stages are done, and how many there are."""


def run_pair(
    device: Device,
    first: NetworkFile,
    second: NetworkFile,
    sm_pct: tuple[float, float],
    batches: Sequence[tuple[int, int]],
    rule: StopRule | None = None,
    on_progress: Progress = lambda stage, done, total: None,
) -> PairTable:
    """Measure a pair at each pair of batches.

    Args:
        device: holds both at a time, in partitions that do not overlap where it can.
        first, second: the networks; may be the same.
        sm_pct: the SM partition of each, %.
        batches: the batch of each.
        rule: when a median is known well enough.
        on_progress: told of every stage.

    Returns:
        Two rows for each pair of batches: what the first suffered, and what the second did.

    Raises:
        ConfigError: no batches, or a device that runs nothing at the same time.
        MeasureError: one of the two cannot be run, or not beside the other.
    """
    from rapp.profiles.pairs import PairTable

    if not batches:
        raise ConfigError("a pair needs at least one pair of batches")
    if device.info.virtual_time:
        raise ConfigError(f"{device.info.device} answers from a table: nothing runs side by side on it")
    rule = rule or StopRule()
    total = len(batches) * len(STAGES)
    rows: list[PairRow] = []
    with device.open(first, sm_pct[0]) as one, device.open(second, sm_pct[1]) as other:
        for done, both in enumerate(batches):
            one.prepare(both[0])
            other.prepare(both[1])
            started_at = datetime.now(UTC)
            begin = _Stages(on_progress, done * len(STAGES), total).begin
            found = _measure(one, other, rule, begin)
            sides = (_Side(first, float(sm_pct[0]), both[0]), _Side(second, float(sm_pct[1]), both[1]))
            rows.append(_row(device.info, *sides, found[0], started_at))
            rows.append(_row(device.info, *sides[::-1], found[1], started_at))
    return PairTable(rows, f"{first.name} beside {second.name}")


@dataclass(frozen=True, slots=True)
class _Stages:
    """Tells the progress of the stages of one pair of batches; `done` came before, of `total`."""

    on_progress: Progress
    done: int
    total: int

    def begin(self, stage: int) -> None:
        self.on_progress(STAGES[stage], self.done + stage, self.total)


@dataclass(frozen=True, slots=True)
class _Side:
    network: NetworkFile
    sm_pct: float
    batch: int


@dataclass(frozen=True, slots=True)
class _Found:
    """What was measured of one of the two."""

    before: Measurement
    together: Measurement
    after: Measurement


def _measure(
    one: Session, other: Session, rule: StopRule, begin: Callable[[int], None]
) -> tuple[_Found, _Found]:
    begin(0)
    one_before = measure(one, rule)
    begin(1)
    other_before = measure(other, rule)
    begin(2)
    rules = (
        _spanning(rule, one_before.median_ms, other_before.median_ms),
        _spanning(rule, other_before.median_ms, one_before.median_ms),
    )
    one_together, other_together = measure_together(one, other, rules)
    begin(3)
    other_after = measure(other, rule)
    begin(4)
    one_after = measure(one, rule)
    return _Found(one_before, one_together, one_after), _Found(other_before, other_together, other_after)


BATCHES_OF_THE_OTHER = 10


def _spanning(rule: StopRule, own_ms: float, other_ms: float) -> StopRule:
    """The rule with samples enough to meet the other network in all its phases: for ten of its batches."""
    least = min(math.ceil(BATCHES_OF_THE_OTHER * other_ms / own_ms), rule.max_samples)
    return replace(rule, min_samples=max(rule.min_samples, least))


def measure_together(
    one: Session, other: Session, rules: tuple[StopRule, StopRule]
) -> tuple[Measurement, Measurement]:
    """Measure both at once, each by its rule; either runs on until the other's measurement has ended.

    Raises:
        MeasureError: one of them cannot run; the other is stopped after the block that it is in.
    """
    barrier = threading.Barrier(2)
    measured = (threading.Event(), threading.Event())
    failed = threading.Event()

    def side(session: Session, rule: StopRule, own: threading.Event, beside: threading.Event) -> Measurement:
        runs = _UntilFailed(session, failed)
        try:
            barrier.wait()
            found = measure(runs, rule)
            own.set()
            count = max(1, min(rule.block, int(_FILL_MS / found.median_ms)))
            while not beside.is_set():
                runs.run(count)
        except BaseException:
            failed.set()
            raise
        return found

    with ThreadPoolExecutor(2, "pair") as pool:
        futures = (
            pool.submit(side, one, rules[0], *measured),
            pool.submit(side, other, rules[1], *measured[::-1]),
        )
        try:
            wait(futures)
        except BaseException:  # Ctrl-C: both end after the block that they are in
            failed.set()
            raise
    errors = [error for error in (future.exception() for future in futures) if error is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, _StoppedError)):
        raise error
    return futures[0].result(), futures[1].result()


_FILL_MS = 200.0
"""About the longest block of the one that only keeps its partition busy and waits for the other."""


class _StoppedError(Exception):
    """The other side failed."""


class _UntilFailed:
    """A session that stops between blocks when the other side has failed."""

    def __init__(self, session: Session, failed: threading.Event) -> None:
        self._session, self._failed = session, failed

    def run(self, count: int) -> Block:
        if self._failed.is_set():
            raise _StoppedError
        return self._session.run(count)


def _row(info: DeviceInfo, own: _Side, beside: _Side, found: _Found, started_at: datetime) -> PairRow:
    from rapp.profiles.pairs import PairRow

    alone_ms = (found.before.median_ms + found.after.median_ms) / 2
    low, high = slowdown_interval(found.before, found.together, found.after)
    return PairRow(
        device=info.device,
        device_uuid=info.device_uuid,
        runtime=info.runtime,
        network=own.network.name,
        other=beside.network.name,
        sm_pct=own.sm_pct,
        other_sm_pct=beside.sm_pct,
        batch=own.batch,
        other_batch=beside.batch,
        alone_ms=alone_ms,
        together_ms=found.together.median_ms,
        slowdown=found.together.median_ms / alone_ms,
        slowdown_low=low,
        slowdown_high=high,
        n_samples=found.together.n_samples,
        converged=found.before.converged and found.together.converged and found.after.converged,
        started_at=started_at,
    )


def slowdown_interval(
    before: Measurement, together: Measurement, after: Measurement
) -> tuple[float | None, float | None]:
    """The interval of a slowdown, as the module says; (None, None) if a median has none."""
    ends = [(one.median_low_ms, one.median_high_ms) for one in (before, together, after)]
    known = [(low, high) for low, high in ends if low is not None and high is not None]
    if len(known) < len(ends):
        return None, None
    (before_low, before_high), (low, high), (after_low, after_high) = known
    return low / max(before_high, after_high), high / min(before_low, after_low)
