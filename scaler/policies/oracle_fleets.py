"""Which instances to have at which time, if all arrivals are known: by dynamic programming.

A fleet is a number of like instances of one SM partition; what they cost at a rate is that of the least quota
at which they serve it within the objective. Between fleets there are cold starts, in which the new instances
are paid for beside the old. With the cost c of a fleet F in a step and the switch s between fleets

    V(t, F) = c(t, F) + min over F' of  s(t + 1, F, F') + V(t + 1, F')

is the least cost from t to the end of the demand (Bellman 1957), backwards from the end. There is no switch
between fleets that do not fit side by side: to where the peak is served, one has to come. A function has a
share of the GPUs for itself, in which each instance has a row of its own: instances that take turns in one
row slow each other, which the rates within the objective do not count with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from rapp.types import FloatArray
from scaler.arrivals import RateSteps
from scaler.capacity.plans import NUMBERS, PATIENCE, PER_INSTANCE, PlanTable
from scaler.core.corrected import CorrectedTimes, corrected
from scaler.policies.base import Case
from scaler.policies.oracle_shares import Share
from scaler.policies.static import function_table
from scaler.sources.service_times import ServiceTimes

MOST_STEPS = 20_000
"""Steps of the dynamic programme; longer demands have steps of more than a second."""

CANDIDATE_STEP = 1.25
"""Rates for which the cheapest instances are candidates differ by this factor."""

SCARCITIES = (0.0, 1.0)
"""Prices of SMs without quota that candidates are made with (`PlanTable.cheapest`)."""

SHORT_PRICE = 1e3
"""GPU-seconds a second for a rate of which nothing is served: no cost is worth a shortage that can be met."""

START_PRICE = 0.02
"""GPU-seconds of any start beside its cold start, so that nothing changes for a gain of no account."""


BESIDE = 1.10
"""Factor on execution times beside other instances of a GPU: V100 pairs have a median of 1.09."""

COARSE = 1.05
"""Step of the corrections of execution times that is planned with."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Like instances, whose quota follows the rate."""

    number: int
    sm_pct: float


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the fleets of a function.

    Args:
        least: instances that it has to have. share: of the GPUs, that it may use.
        cold_start_s: from the order to start an instance until it serves, s.
    """

    least: int
    share: Share
    cold_start_s: float

    def most(self, sm_pct: float) -> int:
        """Instances of an SM partition within the share; 0: not even the fewest that there have to be."""
        most = min(int(self.share.gpus * (100.0 // sm_pct) + 1e-6), self.share.instances)
        return most if most >= max(self.least, 1) else 0

    def hold(self, before: Fleet | None, after: Fleet) -> bool:
        """Whether two fleets fit side by side, as the old one serves until the new one is ready."""
        if before is None or before.sm_pct == after.sm_pct:
            return True
        gpus = sum(fleet.number / (100.0 // fleet.sm_pct) for fleet in (before, after))
        return gpus <= self.share.gpus + 1e-6 and before.number + after.number <= self.share.instances

    def numbers(self, table: PlanTable) -> list[int]:
        """Numbers of instances to look at: those of plans, and as many as there are rows; ascending."""
        most = {self.most(float(sm_pct)) for sm_pct in table.sm_pct}
        plans = {number for number in (*NUMBERS, self.least) if max(self.least, 1) <= number <= max(most)}
        return sorted((most | plans) - {0})


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """The value of fleets over time.

    Args:
        fleets: (K,) those to choose from. step_s: length of a step, s. start_s: of the first.
        cost: (T, K) GPU-seconds a second in a step. value: (T + 1, K) least cost from a step to the end.
        limits: what bounds the fleets.
    """

    fleets: tuple[Fleet, ...]
    step_s: float
    start_s: float
    cost: FloatArray
    value: FloatArray
    limits: Limits

    def best(self, now: Fleet | None, ready_s: float) -> Fleet:
        """The fleet to have from `ready_s` on if there is `now`: that of the least cost to the end."""
        t = self.step(ready_s)
        switch = _switch(self.fleets, [now])[0] * self.limits.cold_start_s * self.cost[t]
        moved = np.array([fleet != now for fleet in self.fleets])
        total = switch + START_PRICE * moved + self.value[t]
        beside = np.array([self.limits.hold(now, fleet) for fleet in self.fleets])
        # What is there may be of an earlier schedule, and leave room for no fleet of this one.
        return self.fleets[int(np.argmin(np.where(beside, total, np.inf) if beside.any() else total))]

    def step(self, at_s: float) -> int:
        """The step of a time; the last after the end."""
        return int(np.clip((at_s - self.start_s) / self.step_s, 0, len(self.cost) - 1))


def schedule(table: PlanTable, load: RateSteps, limits: Limits) -> Schedule:
    """The schedule of a function: `table` its plans, `load` its demand."""
    step_s = max(1.0, (load.end_s - load.start_s) / MOST_STEPS)
    edges_s = np.arange(load.start_s, load.end_s + step_s, step_s)
    rates = peaks(load, edges_s)
    fleets = candidates(table, rates, limits)
    cost = np.stack([fleet_cost(table, fleet, rates) for fleet in fleets], axis=1)
    held = [[limits.hold(before, after) for after in fleets] for before in fleets]
    paid_s = _switch(fleets, fleets) * limits.cold_start_s
    other = np.where(held, START_PRICE * (1.0 - np.eye(len(fleets))), np.inf)
    value = np.zeros((len(rates) + 1, len(fleets)))
    for t in range(len(rates) - 1, -1, -1):
        after = min(t + 1, len(rates) - 1)
        onward = (paid_s * cost[after] + other + value[t + 1]).min(axis=1)
        value[t] = cost[t] * step_s + onward
    return Schedule(fleets, step_s, load.start_s, cost, value, limits)


def peaks(load: RateSteps, edges_s: FloatArray) -> FloatArray:
    """The largest rate between each two edges, rps, (T,); the load ends where it ends."""
    first = np.searchsorted(load.edges_s, edges_s[:-1], side="right") - 1
    last = np.searchsorted(load.edges_s, edges_s[1:], side="left")
    padded = np.append(load.rps, 0.0)
    bounds = np.clip(np.stack([first, last], axis=1), 0, len(load.rps)).ravel()
    return np.asarray(np.maximum.reduceat(padded, bounds)[::2])


def candidates(table: PlanTable, rates: FloatArray, limits: Limits) -> tuple[Fleet, ...]:
    """The cheapest instances within the limits for rates between the least and the largest.

    For rates that no fleet within the limits serves: the one that serves most.
    """
    positive = rates[rates > 0]
    found: dict[Fleet, None] = {}
    if len(positive):
        low, high = float(positive.min()), float(positive.max())
        count = math.ceil(math.log(high / low) / math.log(CANDIDATE_STEP)) + 1
        for scarcity in SCARCITIES:
            found |= dict.fromkeys(_cheapest(table, np.geomspace(low, high, count), scarcity, limits))
    if not found:
        # Nothing comes, or nothing meets the objective: the smallest, or the fastest that there is room for.
        rows = [float(sm_pct) for sm_pct in table.sm_pct if limits.most(float(sm_pct)) and len(positive)]
        found[Fleet(max(limits.least, 1), max(rows, default=float(table.sm_pct[0])))] = None
    return tuple(found)


def _cheapest(table: PlanTable, rates: FloatArray, scarcity: float, limits: Limits) -> list[Fleet]:
    """The cheapest fleet for each of the rates (R,), as `candidates`.

    `PlanTable.cheapest` knows no rows: what it finds may need more of them than there are.
    """
    best = np.full(len(rates), np.inf)
    fleets: list[Fleet | None] = [None] * len(rates)
    most, largest, worse = 0.0, list[Fleet](), 0
    for number in limits.numbers(table):
        before = best.copy()
        for sm_pct, served in zip(table.sm_pct, _served(table, number), strict=True):
            if number > limits.most(float(sm_pct)):
                continue
            fleet, at = Fleet(number, float(sm_pct)), np.searchsorted(served, rates)
            quota = (at + 1.0) / 100
            price = number * sm_pct / 100 * (quota + scarcity * (1.0 - quota)) * (1.0 + PER_INSTANCE * number)
            cost = np.where(at < len(served), price, np.inf)
            for r in np.flatnonzero(cost < best):
                best[r], fleets[r] = cost[r], fleet
            if served[-1] > most:
                most, largest = float(served[-1]), [fleet]
        worse = 0 if (best < before).any() else worse + 1
        if np.isfinite(best).all() and worse == PATIENCE:
            break
    enough = [fleet for fleet in fleets if fleet is not None]
    return enough if len(enough) == len(rates) else enough + largest


def _served(table: PlanTable, number: int) -> FloatArray:
    """Rates within the objective by SM partition and quota in steps of 1 %, with the best batch, (S, Q)."""
    return np.maximum.accumulate(table.rates_rps(number).max(axis=1), axis=-1)


def fleet_cost(table: PlanTable, fleet: Fleet, rates: FloatArray) -> FloatArray:
    """GPU-seconds a second of a fleet at rates (T,), with `SHORT_PRICE` for what it cannot serve."""
    s = int(np.searchsorted(table.sm_pct, fleet.sm_pct + 1e-9)) - 1
    served = _served(table, fleet.number)[s]
    quota_pct = np.searchsorted(served, rates) + 1.0
    short = np.maximum(rates - served[-1], 0.0) / np.maximum(rates, 1e-9)
    share = fleet.number * fleet.sm_pct * np.minimum(quota_pct, 100.0) / 1e4
    return np.asarray(share + SHORT_PRICE * short)


def oracle_table(case: Case, quantile: float) -> PlanTable:
    """The plans of a function by execution times beside others on the GPU."""
    return function_table(replace(case, times=_beside(case.times)), quantile)


def given_times(case: Case) -> ServiceTimes:
    """The execution times of a function as they were given, without what was observed."""
    return case.times.plain if isinstance(case.times, CorrectedTimes) else case.times


@lru_cache(maxsize=1024)
def _beside(times: ServiceTimes) -> ServiceTimes:
    """Times slowed by neighbours; those observed where they are longer still.

    Corrections are rounded up to powers of `COARSE`, so that nothing changes with every small one.
    """
    plain, device, pace = times, BESIDE, BESIDE
    if isinstance(times, CorrectedTimes):
        plain = times.plain
        observed = float(np.exp(np.mean(np.log(times.device_ms / plain.device_ms))))
        pace = max(_rounded_up(observed), BESIDE)
        device = max(_rounded_up(observed * times.device_over_pace), BESIDE)
    return corrected(plain, device_factor=device, pace_factor=pace, spread=0.0)


def _rounded_up(factor: float) -> float:
    return float(COARSE ** math.ceil(math.log(factor) / math.log(COARSE) - 1e-6))


def _switch(after: Sequence[Fleet], before: Sequence[Fleet | None]) -> FloatArray:
    """Share of the instances of each fleet after that have to be started, (before, after)."""
    return np.array(
        [
            [
                max(new.number - (old.number if old is not None and old.sm_pct == new.sm_pct else 0), 0)
                / new.number
                for new in after
            ]
            for old in before
        ]
    )
