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
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rapp.types import FloatArray
from scaler.capacity.fleet import MOST_KEPT, partition, served_rps
from scaler.capacity.plans import NUMBERS, PER_INSTANCE, PlanTable
from scaler.packing import TOLERANCE, Pool

START_PRICE = 0.02
"""GPU-seconds of any start or stop beside the cold start, so that nothing moves for a gain of no account."""

PATIENCE = 2
"""Numbers of instances that may be dearer than the best before the search ends; costs fall, then rise."""

RETURN_S = 10.0
"""Time for which an instance has to be of no use before it goes, s, where SMs are so scarce that it would
save all of its own: demand that fell for a moment is back by then."""

LIFETIME_S = 60.0
"""Time for which an instance that is needed now is expected to be needed, s: Knative's stable window."""

SCARCE_BELOW = ((0.5, 0.0), (0.25, 0.3), (-math.inf, 1.0))
"""From which share of the SMs that is free on what SMs without quota cost (as `PlanTable.cheapest`)."""

SCARCITIES = tuple(price for _, price in SCARCE_BELOW)
"""Prices that fleets are looked for with, so that there are some that fit where others do not."""

FLEET_STEP = 1.05
"""Demands for which fleets are looked for are rounded up to powers of it. Quotas follow the demand itself, so
what that costs is a little headroom; and fleets are found again while the demand hardly changes."""

LARGEST_SM_PCT = (5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 50.0, 100.0)
"""SM partitions that room is filled with where nothing suffices: whole numbers of them about fill a GPU."""

IDLE_RPS = 0.01
"""Rate that counts as none: a single request is to meet the objective."""

IDLE_PRICE = 3.0
"""Times the least cost without requests that a fleet may cost: a larger SM partition under a small quota
costs little more, and serves the first requests by its quota alone."""

IDLE_SM_PCT = 50.0
"""Largest SM partition without requests, %, unless the objective needs a larger one: others want SMs too."""

MOST_RIVALS = 6
"""Fleets that are kept in mind beside the present one."""

LOG_STEP = math.log(FLEET_STEP)

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


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a fleet has to do.

    Args:
        rps: rate that it is paid for. most_rps: rate that it has to be able to serve at full quota.
        least: instances that it has to have.
        scarcity: price of SMs that are set aside without quota, against those with it.
        room_pct: SMs that it may have, % of a GPU.
    """

    rps: float
    most_rps: float
    least: int
    scarcity: float = 0.0
    room_pct: float = math.inf


def scarcity(pool: Pool) -> float:
    """What SMs without quota cost: nothing while there are plenty, all of it once few are left."""
    left = sum(gpu.free_sm_pct for gpu in pool.gpus.values()) / (100.0 * max(len(pool.gpus), 1))
    return next(price for least, price in SCARCE_BELOW if left >= least)


def cost(table: PlanTable, fleet: Fleet, wanted: Wanted) -> float:
    """GPU-seconds a second of a fleet, with those of scarce SMs; infinite: it cannot serve what is wanted."""
    served = served_rps(table, fleet.number)[partition(table, fleet.sm_pct)]
    at = int(served.searchsorted(wanted.rps))
    if at == len(served):
        return math.inf
    quota = (at + 1) / len(served)
    return fleet.number * fleet.sm_pct / 100 * (quota + wanted.scarcity * (1.0 - quota))


def most_rps(table: PlanTable, fleet: Fleet) -> float:
    """What a fleet serves at full quota."""
    return float(served_rps(table, fleet.number)[partition(table, fleet.sm_pct), -1]) if fleet.number else 0.0


def suits(table: PlanTable, fleet: Fleet, wanted: Wanted) -> bool:
    """Whether a fleet does what it has to."""
    if fleet.number < wanted.least or fleet.number * fleet.sm_pct > wanted.room_pct + TOLERANCE:
        return False
    return most_rps(table, fleet) >= max(wanted.most_rps, wanted.rps)


def cheapest(table: PlanTable, wanted: Wanted, scarcity: float = 0.0) -> Fleet | None:
    """The cheapest fleet that does what it has to; None: none does.

    Args:
        scarcity: price of SMs without quota against those with it, as `PlanTable.cheapest`.
    """
    return _each(table, wanted, None, (scarcity,))[0]


def options(table: PlanTable, now: Fleet | None, wanted: Wanted) -> list[Fleet]:
    """Fleets worth looking at: the cheapest of all, and that of the SM partition that is there.

    Where SMs are scarce, those for the other prices of them as well: some may fit where others do not.
    """
    prices = SCARCITIES if wanted.scarcity > 0 else (0.0,)
    return _found(_each(table, wanted, None if now is None else now.sm_pct, prices))


def _found(fleets: Iterable[Fleet | None]) -> list[Fleet]:
    return list(dict.fromkeys(fleet for fleet in fleets if fleet is not None))


def _each(
    table: PlanTable, wanted: Wanted, sm_pct: float | None, scarcities: tuple[float, ...]
) -> tuple[Fleet | None, ...]:
    """The cheapest fleet for each price of scarce SMs; and of one SM partition, if it is given."""
    # Rates in steps, so that answers are found again while the demand hardly changes.
    rps_step, most_step = (
        math.ceil(math.log(max(rps, 1e-3)) / LOG_STEP - 1e-9)
        for rps in (wanted.rps, max(wanted.most_rps, wanted.rps))
    )
    s = None if sm_pct is None else partition(table, sm_pct)
    return _cheapest(table, rps_step, most_step, wanted.least, s, scarcities, wanted.room_pct)


@lru_cache(maxsize=65_536)
def _cheapest(
    table: PlanTable,
    rps_step: int,
    most_step: int,
    least: int,
    s: int | None,
    scarcities: tuple[float, ...],
    room_pct: float,
) -> tuple[Fleet | None, ...]:
    rps, most = FLEET_STEP**rps_step, FLEET_STEP**most_step
    without_quota = np.array(scarcities)[:, None]
    # One search for each price; the last one, of one SM partition, is among fleets without scarce SMs.
    searches = len(scarcities) + (s is not None)
    best: list[tuple[float, Fleet | None]] = [(math.inf, None)] * searches
    worse = [0] * searches
    for number in NUMBERS[bisect_left(NUMBERS, least) :]:
        fits = number * table.sm_axis[0] <= room_pct + TOLERANCE
        if fits and number * table.unhindered_within(room_pct / number) < most:
            continue
        served, most_rps, sms_pct, share = _of_number(table, number)
        suits = (most_rps >= most) & (sms_pct <= room_pct + TOLERANCE)
        if fits and not suits.any():
            continue
        quota = ((served >= rps).argmax(axis=1) + 1.0) / served.shape[1]
        share = np.where(suits, share, np.inf)
        prices = share * (quota + without_quota * (1.0 - quota))
        found = [(float(price[at]), at) for price, at in zip(prices, prices.argmin(axis=1), strict=True)]
        if s is not None:
            found.append((float(share[s] * quota[s]), s))
        for i, (price, at) in enumerate(found):
            if price < best[i][0] and worse[i] < PATIENCE:
                best[i], worse[i] = (price, Fleet(number, table.sm_axis[at])), 0
            elif best[i][1] is not None or not fits:
                worse[i] += 1
        # A partition that needs still more instances than all others is not waited for.
        if min(worse[: len(scarcities)]) >= PATIENCE and (worse[-1] >= PATIENCE or best[-1][1] is None):
            break
    return tuple(fleet for _, fleet in best)


@lru_cache(maxsize=MOST_KEPT)
def _of_number(table: PlanTable, number: int) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Of `number` like instances, by SM partition.

    Returns:
        (S, Q) what they serve, rps; (S,) that at full quota; (S,) SMs, % of a GPU; (S,) GPU-seconds a second
        at full quota, and a little more for each instance.
    """
    served, sms_pct = served_rps(table, number), number * table.sm_pct
    return served, served[:, -1], sms_pct, sms_pct / 100 * (1.0 + PER_INSTANCE * number)


def largest(table: PlanTable, wanted: Wanted, now: Fleet | None = None) -> list[Fleet]:
    """Fleets that use the room that there is, those that serve most first.

    Args:
        now: what is there; if it is given, more of the same.
    """
    found = []
    for sm_pct in LARGEST_SM_PCT if now is None else (now.sm_pct,):
        fitting = [number for number in NUMBERS if number * sm_pct <= wanted.room_pct + TOLERANCE]
        if sm_pct >= table.sm_pct[0] and fitting and fitting[-1] >= wanted.least:
            found.append(Fleet(fitting[-1], sm_pct))
    return sorted(found, key=lambda fleet: (-most_rps(table, fleet), fleet))


def idle(table: PlanTable, least: int, scarcity: float) -> Fleet | None:
    """The fleet of a function without requests: of those that cost little, the one that could serve most."""
    wanted = Wanted(IDLE_RPS, IDLE_RPS, least, scarcity)
    first = cheapest(table, wanted, scarcity=scarcity)
    if first is None:
        return None
    most = IDLE_PRICE * cost(table, first, wanted)
    fleets = [Fleet(first.number, float(sm)) for sm in table.sm_pct if sm <= max(IDLE_SM_PCT, first.sm_pct)]
    return max(
        (fleet for fleet in fleets if cost(table, fleet, wanted) <= most),
        key=lambda fleet: (most_rps(table, fleet), -fleet.sm_pct),
    )


def price(table: PlanTable, now: Fleet | None, fleet: Fleet, wanted: Wanted, cold_start_s: float) -> float:
    """GPU-seconds of an exchange: cold starts of what is new, and of what goes, which may be wanted again."""
    same = min(now.number, fleet.number) if now is not None and now.sm_pct == fleet.sm_pct else 0
    new, total = fleet.number - same, cost(table, fleet, wanted) * cold_start_s + START_PRICE
    paid = new * total / fleet.number
    if now is not None and now.number > same:
        before = cost(table, now, wanted)
        gone = (before if math.isfinite(before) else 0.0) * max(cold_start_s, RETURN_S) + START_PRICE
        paid += (now.number - same) * gone / now.number
    return paid


def needed(table: PlanTable, now: Fleet | None, wanted: Wanted, cold_start_s: float) -> Iterator[Fleet]:
    """Fleets to go to if what is there does not suffice, the best first.

    Cheapest over `LIFETIME_S`, the exchange included; then, should none of them have room, those for other
    prices of scarce SMs.
    """

    def total(fleet: Fleet) -> float:
        running = LIFETIME_S * cost(table, fleet, wanted)
        return running + price(table, now, fleet, wanted, cold_start_s)

    first = _found(_each(table, wanted, None if now is None else now.sm_pct, (wanted.scarcity,)))
    yield from sorted(first, key=lambda fleet: (total(fleet), fleet))
    prices = tuple(price for price in SCARCITIES if price != wanted.scarcity)
    others = (fleet for fleet in _found(_each(table, wanted, None, prices)) if fleet not in first)
    yield from sorted(others, key=lambda fleet: (total(fleet), fleet))


def saved(
    savings: Savings, table: PlanTable, now: Fleet, rivals: Iterable[Fleet], wanted: Wanted, dt_s: float
) -> dict[str, float]:
    """What each rival would have saved by now, GPU-seconds; those that would not have are forgotten."""
    here = cost(table, now, wanted)
    found: dict[str, float] = {}
    # Rivals of now come first: what has saved for long and is not among them has had no room.
    for fleet in dict.fromkeys([*rivals, *(Fleet.named(name) for name in savings)]):
        if fleet == now or not suits(table, fleet, wanted):
            continue
        gain = savings.get(fleet.name, 0.0) + (here - cost(table, fleet, wanted)) * dt_s
        if gain > 0:
            found[fleet.name] = gain
    return {name: found[name] for name in sorted(list(found)[:MOST_RIVALS])}


def exchange(
    savings: Savings, table: PlanTable, now: Fleet, wanted: Wanted, cold_start_s: float
) -> list[Fleet]:
    """Rivals whose savings have reached the price of going over to them, those of the largest gain first."""
    gains = [
        (gain - price(table, now, Fleet.named(name), wanted, cold_start_s), name)
        for name, gain in savings.items()
    ]
    return [Fleet.named(name) for gain, name in sorted(gains, reverse=True) if gain > 0]
