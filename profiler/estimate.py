"""How long a campaign will take, before it begins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from profiler.outcome import Outcome
from profiler.plan import NetworkPlan

POINT_S = 4.0
SESSION_S = 5.0
"""Assumed, not measured: 23 batches to warm up and some 50 to measure, at 50 ms each, and the start of a
process that loads a network. The pace of a campaign that has begun takes their place."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What a point costs.

    Args:
        point_s: seconds a point, with its share of the session if `session_s` is 0.
        session_s: seconds a session.
        source: where that is from, for a person.
    """

    point_s: float
    session_s: float
    source: str

    def minutes(self, plan: NetworkPlan) -> float:
        """Estimated minutes for the points and sessions of a plan."""
        points = sum(len(unit.points) for unit in plan.units)
        return (points * self.point_s + len(plan.units) * self.session_s) / 60


ASSUMED = Pace(POINT_S, SESSION_S, f"assumed: {POINT_S:g} s a point, {SESSION_S:g} s a session")


def known_pace(outcomes: Iterable[Outcome]) -> Pace:
    """The pace of the points that were tried so far, or the assumed one."""
    tried = [
        outcome.seconds for outcome in outcomes if outcome.started_at is not None and outcome.seconds > 0
    ]
    if not tried:
        return ASSUMED
    mean_s = sum(tried) / len(tried)
    return Pace(mean_s, 0.0, f"from {len(tried):,} points of the journal: {mean_s:.2g} s each")
