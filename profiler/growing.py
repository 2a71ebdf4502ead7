"""Adaptive campaigns: the next point of a network hangs on what was measured of it.

The rule (`profiler.adaptive`) is a function of the measured points, in the order in which they were measured,
so that a campaign that was killed goes on as it would have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from profiler.bench import Bench
from profiler.campaign import Campaign, Halt
from profiler.device import Device, NetworkFile
from profiler.outcome import Outcome, foregone
from profiler.outputs import References
from profiler.plan import NetworkPlan, Point
from rapp.types import MeasuredPoint, ResourceConfig


class PointRule(Protocol):
    """Chooses what to measure next."""

    def next_point(
        self, measured: Sequence[MeasuredPoint], candidates: Sequence[ResourceConfig]
    ) -> ResourceConfig | None:
        """One of the candidates, at least one; None: enough is known."""


RuleOf = Callable[[NetworkFile], PointRule]
"""The rule for a network."""


def run_adaptively(
    campaign: Campaign, plans: Sequence[NetworkPlan], device: Device, rule_of: RuleOf, most_points: int
) -> Halt | None:
    """Measure point by point what the rules ask for, one network after another.

    Args:
        campaign: of the plans as `anchored_only` makes them: its table has the points that were chosen.
        plans: whose configurations are the candidates.
        most_points: of a network. The middle anchor comes after half of them, if the rule asks so long.

    Returns:
        Why it stopped; None: each rule knows enough, or has no candidate left.
    """
    for plan in plans:
        if campaign.brake.halt is None:
            _Sweep(campaign, plan, device).run(rule_of, most_points)
    return campaign.brake.halt


def anchored_only(plan: NetworkPlan) -> NetworkPlan:
    """A plan with its anchors alone: the rest is chosen on the way, and what is not chosen has no row."""
    return replace(plan, units=plan.anchors, derived=(), skipped={})


class _Sweep:
    """The adaptive sweep of one network."""

    def __init__(self, campaign: Campaign, plan: NetworkPlan, device: Device) -> None:
        self._campaign, self._plan, self._device = campaign, plan, device
        self._references = References(plan.network, plan.batches)
        self._anchors = {unit.points[0].anchor: unit for unit in plan.anchors}
        self._bench: Bench | None = None

    def run(self, rule_of: RuleOf, most_points: int) -> None:
        rule: PointRule | None = None
        try:
            while self._campaign.brake.halt is None:
                ended = self._ended()
                candidates = self._candidates(ended)
                if len(ended) >= most_points or not candidates:
                    break
                # Before the first anchor: a predictor that cannot answer is told before anything is measured.
                rule = rule or rule_of(self._plan.network)
                self._anchor(0)
                config = rule.next_point(self._measured(ended), candidates)
                if config is None:
                    break
                if len(ended) >= most_points // 2:
                    self._anchor(1)
                if self._campaign.brake.halt is None:
                    self._measure(Point(self._plan.network.name, config))
        finally:
            self._close()
        self._anchor(2)

    def _ended(self) -> list[Outcome]:
        """The outcomes of the network's grid points, in the order in which they ended."""
        name = self._plan.network.name
        own = (outcome for point, outcome in self._campaign.outcomes.items() if point.network == name)
        return [outcome for outcome in own if outcome.point.anchor is None]

    def _measured(self, ended: Sequence[Outcome]) -> list[MeasuredPoint]:
        kind = self._campaign.origin.info.quota_kind
        return [
            MeasuredPoint(one.point.config, one.measurement.latency_ms, kind)
            for one in ended
            if one.measurement is not None
        ]

    def _candidates(self, ended: Sequence[Outcome]) -> list[ResourceConfig]:
        """What can be measured yet, without what is known to fail."""
        name, done = self._plan.network.name, {outcome.point.config for outcome in ended}
        return [
            config
            for config in self._plan.candidates
            if config not in done
            and foregone(Point(name, config), self._campaign.failures_at(name, config.sm_pct)) is None
        ]

    def _measure(self, point: Point) -> None:
        """In the open session, if it is of the same partition."""
        if self._bench is None or self._bench.sm_pct != point.config.sm_pct:
            self._close()
            self._bench = Bench(
                self._device,
                self._plan.network,
                point.config.sm_pct,
                self._campaign.rule,
                self._references,
            )
        self._campaign.watcher.begin(point)
        self._campaign.report(self._bench.measure(point))

    def _anchor(self, place: int) -> None:
        """Measure an anchor, unless it has been, there is none, or the brake is pulled."""
        unit = self._anchors.get(place)
        if unit is None or unit.points[0] in self._campaign.outcomes or self._campaign.brake.halt is not None:
            return
        self._close()
        self._campaign.run_unit(self._device, unit, self._references)

    def _close(self) -> None:
        if self._bench is not None:
            self._bench.close()
            self._bench = None
