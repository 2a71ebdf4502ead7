"""Which fleet `hybrid` wants: how many like instances of which SM partition.

A fleet costs, at a demand, SM share x quota x number with the least quota at which it serves that demand
within the objective. Exchanging one for another costs cold starts in which both are paid for. Whether to
exchange is a question of renting or buying, for what the demand will be is not known: what a better fleet
would have saved is added up tick by tick, and once that exceeds the price of the exchange it is made (the
rule of the break-even point, at most twice as dear as knowing how long the demand lasts: Karlin et al. 1988;
for many states Borodin, Linial and Saks 1992). A demand that comes and goes never gets so far: it is followed
by quotas alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rapp.types import FloatArray
from scaler.capacity.plans import NUMBERS, PlanTable, plan_table
from scaler.core.corrected import CorrectedTimes, corrected
from scaler.policies.base import Case

BESIDE = 1.10
"""Factor on execution times beside other instances of a GPU: V100 pairs have a median of 1.09."""

START_PRICE = 0.02
"""GPU-seconds of any start or stop beside the cold start, so that nothing moves for a gain of no account."""

LIFETIME_S = 60.0
"""Time for which an instance that is needed now is expected to be needed, s: Knative's stable window."""

MOST_RIVALS = 6
"""Fleets that are kept in mind beside the present one."""

Savings = Mapping[str, float]
"""What each rival would have saved so far, GPU-seconds, by its name."""


@dataclass(frozen=True, slots=True, order=True)
class Fleet:
    """Like instances, whose quota follows the demand."""

    number: int
    sm_pct: float

    @property
    def name(self) -> str:
        """As a key of JSON."""
        return f"{self.number} x {self.sm_pct:g}"

    @staticmethod
    def named(name: str) -> Fleet:
        """The fleet of a name."""
        number, sm_pct = name.split(" x ")
        return Fleet(int(number), float(sm_pct))


def planned_table(case: Case) -> PlanTable:
    """Plans of a function by execution times beside other instances of a GPU.

    What was observed counts: where times are longer than predicted by up to `BESIDE`, that is taken for the
    neighbours' doing and not counted twice.
    """
    plain, device, pace = case.times, BESIDE, BESIDE
    if isinstance(case.times, CorrectedTimes):
        plain = case.times.plain
        observed = float(np.exp(np.mean(np.log(case.times.device_ms / plain.device_ms))))
        pace = max(observed, BESIDE * min(observed, 1.0))
        observed *= case.times.device_over_pace
        device = max(observed, BESIDE * min(observed, 1.0))
    spec = case.spec
    times = corrected(plain, device_factor=device, pace_factor=pace, spread=0.0)
    return plan_table(times, case.slo_ms - spec.max_batch_delay_ms, spec.slo_quantile, spec.max_batch)


def cost(table: PlanTable, fleet: Fleet, demand_rps: float) -> float:
    """GPU-seconds a second of a fleet at a demand; infinite: it cannot serve it."""
    served = _served(table, fleet)
    at = int(np.searchsorted(served, demand_rps))
    return fleet.number * fleet.sm_pct * (at + 1) / 1e4 if at < len(served) else math.inf


def most_rps(table: PlanTable, fleet: Fleet) -> float:
    """What a fleet serves at full quota."""
    return float(_served(table, fleet)[-1])


@lru_cache(maxsize=65_536)
def _served(table: PlanTable, fleet: Fleet) -> FloatArray:
    """(Q,) rate by quota, with the best batch at each, non-decreasing."""
    if fleet.number == 0:
        return np.zeros(1)
    s = max(int(np.searchsorted(table.sm_pct, fleet.sm_pct + 1e-9)) - 1, 0)
    return np.asarray(np.maximum.accumulate(table.rates_rps(fleet.number)[s].max(axis=0)))


def options(table: PlanTable, now: Fleet | None, demand_rps: float, least: int) -> list[Fleet]:
    """Fleets that serve a demand: the cheapest of all, and the cheapest of the SM partition that is there."""
    found = []
    for scarcity in (0.0, 1.0):
        plan = table.cheapest(demand_rps, scarcity)
        if plan is not None:
            found.append(Fleet(max(plan.number, least), plan.config.sm_pct))
    if now is not None and found:
        numbers = {now.number - 1, now.number + 1, *NUMBERS}
        most = 2 * max(now.number, found[0].number, found[1].number) + 1
        same = [Fleet(n, now.sm_pct) for n in numbers if max(least, 1) <= n <= most]
        found.append(min(same, key=lambda fleet: (cost(table, fleet, demand_rps), fleet)))
    return list(dict.fromkeys(found))


def price(table: PlanTable, now: Fleet | None, fleet: Fleet, demand_rps: float, cold_start_s: float) -> float:
    """GPU-seconds of an exchange: cold starts of what is new, and of what goes, which may be wanted again."""
    same = min(now.number, fleet.number) if now is not None and now.sm_pct == fleet.sm_pct else 0
    new, total = fleet.number - same, cost(table, fleet, demand_rps) * cold_start_s + START_PRICE
    paid = new * total / fleet.number
    if now is not None and now.number > same:
        before = cost(table, now, demand_rps)
        gone = (before if math.isfinite(before) else 0.0) * cold_start_s + START_PRICE
        paid += (now.number - same) * gone / now.number
    return paid


def needed(
    table: PlanTable, now: Fleet | None, demand_rps: float, least: int, cold_start_s: float
) -> list[Fleet]:
    """Fleets to go to if what is there does not suffice, the best first.

    Cheapest over `LIFETIME_S`, the exchange included.
    """
    found = options(table, now, demand_rps, least)

    def total(fleet: Fleet) -> float:
        return LIFETIME_S * cost(table, fleet, demand_rps) + price(
            table, now, fleet, demand_rps, cold_start_s
        )

    return sorted((fleet for fleet in found if math.isfinite(total(fleet))), key=lambda f: (total(f), f))


def saved(
    savings: Savings,
    table: PlanTable,
    now: Fleet,
    rivals: Iterable[Fleet],
    demand_rps: float,
    dt_s: float,
) -> dict[str, float]:
    """What each rival would have saved by now, GPU-seconds; those that would not have are forgotten."""
    here = cost(table, now, demand_rps)
    found = {}
    for fleet in dict.fromkeys([*(Fleet.named(name) for name in savings), *rivals]):
        if fleet == now:
            continue
        gain = savings.get(fleet.name, 0.0) + (here - cost(table, fleet, demand_rps)) * dt_s
        if gain > 0:
            found[fleet.name] = gain
    best = sorted(found, key=lambda name: (-found[name], name))[:MOST_RIVALS]
    return {name: found[name] for name in sorted(best)}


def exchange(
    savings: Savings, table: PlanTable, now: Fleet, demand_rps: float, cold_start_s: float
) -> list[Fleet]:
    """Rivals whose savings have reached the price of going over to them, those of the largest gain first."""
    gains = [
        (gain - price(table, now, Fleet.named(name), demand_rps, cold_start_s), name)
        for name, gain in savings.items()
    ]
    return [Fleet.named(name) for gain, name in sorted(gains, reverse=True) if gain > 0]
