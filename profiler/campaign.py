"""A campaign: units of work are measured, outcomes go to the journal, and a table comes of it.

    with Journal.open(out, specification) as journal:
        campaign = Campaign(device.info, plans, journal, rule)
        campaign.run(device)
        campaign.write(out)

What has an outcome in the journal is not measured again. A driver that spreads work over processes does what
`run` does: it sends each of `units_left()` to `profiler.bench.run_unit` and hands every outcome to `report`.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from profiler.bench import run_unit
from profiler.derive import check_device_time
from profiler.device import Device, DeviceInfo, Failure
from profiler.journal import Journal
from profiler.measure import StopRule
from profiler.outcome import Outcome, Status
from profiler.outputs import References
from profiler.plan import NetworkPlan, Point, QuotaMode, WorkUnit
from profiler.rows import Origin, Quality, campaign_table, quality
from rapp.errors import ProfileError

if TYPE_CHECKING:
    from rapp.profiles import ProfileTable

MOST_DEVICE_ERRORS = 3
"""Points in a row that end with a device error before the campaign stops: the device is gone by then."""


class Halt(StrEnum):
    """Why a campaign stopped before its end."""

    BUDGET = "budget"
    INTERRUPTED = "interrupted"
    DEVICE = "the device failed"
    ERROR = "an error ended the campaign"


class Brake:
    """Says when a campaign has to stop.

    Args:
        budget_s: seconds it may take, of wall time, or of virtual time on a device in it; None: any.
        virtual_time: the device's.
    """

    def __init__(self, budget_s: float | None = None, *, virtual_time: bool = False) -> None:
        self._budget_s, self._virtual_time = budget_s, virtual_time
        self._started_s, self._spent_s = time.monotonic(), 0.0
        self._pulled: Halt | None = None

    def pull(self, halt: Halt) -> None:
        """Stop before the next point; may be called from a signal handler."""
        self._pulled = self._pulled or halt

    def spend(self, seconds: float) -> None:
        """Count the cost of an outcome."""
        self._spent_s += seconds

    @property
    def halt(self) -> Halt | None:
        """Why to stop; None: go on."""
        if self._pulled is None and self._budget_s is not None:
            passed = self._spent_s if self._virtual_time else time.monotonic() - self._started_s
            if passed >= self._budget_s:
                self._pulled = Halt.BUDGET
        return self._pulled


class Watcher:
    """Is told what happens; this one listens to nothing."""

    def begin(self, point: Point) -> None:
        """A point is about to be tried."""

    def ended(self, outcome: Outcome) -> None:
        """A point has its outcome, which is in the journal."""


class Campaign:
    """The plan of a campaign, and how far it is.

    Args:
        info: of the device, or of the devices, which must agree in it.
        plans: one for each network, in order.
        journal: holds the outcomes.
        rule: when a point is measured well enough.
        brake: when to stop.
        watcher: is told of every point.
    """

    def __init__(
        self,
        info: DeviceInfo,
        plans: Sequence[NetworkPlan],
        journal: Journal,
        rule: StopRule,
        *,
        mode: QuotaMode = QuotaMode.MEASURE,
        seed: int = 0,
        brake: Brake | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self.plans, self.journal, self.rule = tuple(plans), journal, rule
        self.brake = brake or Brake(virtual_time=info.virtual_time)
        self.watcher = watcher or Watcher()
        self.origin = Origin(info, journal.campaign_id, seed, mode)
        self._device_errors = 0
        self._failures: defaultdict[tuple[str, float], list[Outcome]] = defaultdict(list)
        for outcome in journal.outcomes.values():
            self._keep_failure(outcome)

    @property
    def outcomes(self) -> Mapping[Point, Outcome]:
        """So far, of earlier runs too."""
        return self.journal.outcomes

    def units_left(self, plan: NetworkPlan) -> Iterator[WorkUnit]:
        """The units of a network without the points that have an outcome; looked at when asked for."""
        for unit in plan.units:
            points = tuple(point for point in unit.points if point not in self.outcomes)
            if points:
                yield WorkUnit(unit.network, unit.sm_pct, points)

    def failures_at(self, network: str, sm_pct: float) -> list[Outcome]:
        """Outcomes of grid points at a network and SM partition that tell how others will end."""
        return self._failures[network, sm_pct]

    def report(self, outcome: Outcome) -> None:
        """Put an outcome into the journal.

        Raises:
            ConfigError: it lacks what quotas are derived from.
            RappError: the journal cannot be written.
        """
        if self.origin.mode == QuotaMode.DERIVE:
            check_device_time(outcome)
        self.journal.append(outcome)
        self._keep_failure(outcome)
        self.brake.spend(outcome.seconds)
        if outcome.status == Status.OK:
            self._device_errors = 0
        elif outcome.failure == Failure.DEVICE and outcome.stage is not None:
            self._device_errors += 1
            if self._device_errors >= MOST_DEVICE_ERRORS:
                self.brake.pull(Halt.DEVICE)
        self.watcher.ended(outcome)

    def _keep_failure(self, outcome: Outcome) -> None:
        point = outcome.point
        if outcome.failure is not None and point.anchor is None:
            self._failures[point.network, point.config.sm_pct].append(outcome)

    def run(self, device: Device) -> Halt | None:
        """Measure what is left.

        Returns:
            Why it stopped; None: every planned point has an outcome.
        """
        for plan in self.plans:
            references = References(plan.network, plan.batches)
            for unit in self.units_left(plan):
                if self.brake.halt is not None:
                    return self.brake.halt
                self.run_unit(device, unit, references)
        return self.brake.halt if any(self.left.values()) else None

    def run_unit(self, device: Device, unit: WorkUnit, references: References) -> None:
        """Measure the points of a unit until the brake is pulled."""
        run_unit(
            device,
            unit,
            self.rule,
            references=references,
            report=self.report,
            ended=self.failures_at(unit.network.name, unit.sm_pct),
            begin=self.watcher.begin,
            stopped=lambda: self.brake.halt is not None,
        )

    @property
    def left(self) -> Counter[str]:
        """How many points are to be measured yet, by network."""
        return Counter(
            point.network for plan in self.plans for point in plan.measured if point not in self.outcomes
        )

    def quality(self) -> dict[str, Quality]:
        """By network, what its anchors and verified points say."""
        own: dict[str, list[Outcome]] = {plan.network.name: [] for plan in self.plans}
        for outcome in self.outcomes.values():
            own[outcome.point.network].append(outcome)
        return {name: quality(outcomes, self.origin) for name, outcomes in own.items()}

    def table(self) -> ProfileTable:
        """Every planned point once; what was not measured yet is skipped, with the reason."""
        halt = self.brake.halt or Halt.INTERRUPTED
        return campaign_table(self.plans, self.outcomes, self.origin, f"not measured: {halt.value}")

    def write(self, out: str | Path) -> ProfileTable:
        """Write the table, unless the file has it already.

        Raises:
            RappError: it cannot be written.
        """
        from rapp.profiles import ProfileTable

        table = self.table()
        if Path(out).exists():
            try:
                if ProfileTable.read(out) == table:
                    return table
            except ProfileError:
                pass  # it is replaced
        table.write(out)
        return table
