"""`Bench`: measures points of one network at one SM partition; each ends as an `Outcome`, whatever happens.

A unit of work needs the device and nothing of a campaign, so it can run in another process:

    run_unit(device, unit, rule, references=References(network, batches), report=outcomes.append)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Self

from profiler.device import Device, Failure, MeasureError, NetworkFile, Session
from profiler.measure import Measurement, StopRule, measure
from profiler.outcome import Outcome, Stage, Status, foregone
from profiler.outputs import References
from profiler.plan import FULL_PCT, Point, WorkUnit

Report = Callable[[Outcome], None]

# After these the worker is as sound as before; after any other it is ended, and the next point gets another.
_HARMLESS = (Failure.UNSUPPORTED, Failure.WRONG_OUTPUT)


class Bench:
    """One network at one SM partition: a session that is opened when first needed, and again after a failure.

    A context manager; leaving it ends the session.

    Args:
        references: outputs at SM 100 % to compare with.
        rule: when a point is measured well enough.
    """

    def __init__(
        self, device: Device, network: NetworkFile, sm_pct: float, rule: StopRule, references: References
    ) -> None:
        self._device, self._network, self.sm_pct = device, network, sm_pct
        self._rule, self._references = rule, references
        self._virtual_time = device.info.virtual_time
        self._stack = ExitStack()
        self._session: Session | None = None
        self._batch: int | None = None
        self._compared = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the session, if there is one."""
        self._session = self._batch = None
        self._stack.close()

    def measure(self, point: Point) -> Outcome:
        """Measure a point; a `MeasureError` is its end, any other exception a bug."""
        started_at, started_s = datetime.now(UTC), time.monotonic()
        stage = Stage.OPEN
        try:
            session = self._opened(point)
            stage = Stage.PREPARE
            self._prepare(session, point)
            stage = Stage.RUN
            session.set_quota(point.config.quota_pct)
            measurement = measure(session, self._rule)
            return Outcome(
                point,
                Status.OK,
                started_at=started_at,
                seconds=self._cost_s(started_s, measurement),
                sm_count=session.sm_count,
                peak_memory_mib=session.peak_memory_mib,
                outputs_compared=self._compared,
                measurement=measurement,
            )
        except MeasureError as error:
            if error.failure in _HARMLESS and self._session is not None:
                self._batch = None if stage == Stage.PREPARE else self._batch
            else:
                self.close()
            return Outcome.failed(point, error, stage, started_at, self._cost_s(started_s, None))

    def _opened(self, point: Point) -> Session:
        if self._session is None:
            if point.anchor is None:
                self._references.make(self._device)
            self._session = self._stack.enter_context(self._device.open(self._network, self.sm_pct))
        return self._session

    def _prepare(self, session: Session, point: Point) -> None:
        """Load the network at the batch of the point, unless it is, and compare what it answers."""
        if self._batch == point.config.batch:
            return
        self._batch, self._compared = None, False
        session.prepare(point.config.batch)
        self._compared = self._references.compare(point.config.batch, session.outputs())
        self._batch = point.config.batch

    def take_references(self) -> None:
        """Use the open session, if there is one, for the outputs at SM 100 %."""
        if self._session is None or self.sm_pct != FULL_PCT:
            return
        try:
            self._references.take(self._session)
        except MeasureError:
            self.close()
        self._batch = None

    def _cost_s(self, started_s: float, measurement: Measurement | None) -> float:
        if not self._virtual_time:
            return time.monotonic() - started_s
        if measurement is None:
            return 0.0
        return (measurement.n_samples + measurement.warm_up_runs) * measurement.latency_ms / 1e3


def run_unit(
    device: Device,
    unit: WorkUnit,
    rule: StopRule,
    *,
    references: References,
    report: Report,
    ended: Iterable[Outcome] = (),
    begin: Callable[[Point], None] = lambda point: None,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Bring each point of a unit to its end, in order.

    Args:
        references: of the network; made at the first point that needs them.
        report: takes each outcome at once, in the order of the points.
        ended: earlier outcomes at the same partition: points that they decide are not tried.
        begin: is told of each point that is about to be tried.
        stopped: asked before each point; the rest is left when it says so.
    """
    failures = [outcome for outcome in ended if outcome.failure is not None]
    with Bench(device, unit.network, unit.sm_pct, rule, references) as bench:
        for point in unit.points:
            if stopped():
                return
            outcome = foregone(point, failures) if point.anchor is None else None
            if outcome is None:
                begin(point)
                outcome = bench.measure(point)
            report(outcome)
            if outcome.failure is not None:
                failures.append(outcome)
        if any(point.anchor is not None for point in unit.points):
            bench.take_references()
