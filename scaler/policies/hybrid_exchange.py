"""How `hybrid` goes from one fleet to another where there is no room for both.

What is new is started first, as far as it fits, and what was before leaves once the new serves as much. But
SMs that are free may be in pieces: on each GPU fewer than an instance takes that would be of use. A fleet
that misses its objective could never be left then. So its instances count as gone, and what serves most in
the room that they and the free SMs make together is compared with what is there. If nothing of it fits
beside, the exchange costs what is there for a cold start.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from scaler.capacity.fleet import Share, most_rate_rps
from scaler.capacity.plans import NUMBERS, PlanTable
from scaler.core.observation import Phase
from scaler.packing import TOLERANCE
from scaler.policies import hybrid_fleets
from scaler.policies.base import Member
from scaler.policies.hybrid_fleets import LIFETIME_S, Fleet, Wanted

WAIT_COLD_STARTS = 3.0
"""Cold starts for which what is missing is waited for while others leave its room: one for the part that fits
beside them, one for the rest, one for their last requests."""


def instead(
    table: PlanTable,
    wanted: Wanted,
    there_rps: float,
    expected_rps: float,
    cold_start_s: float,
    fits: Callable[[float, int], int],
) -> Fleet | None:
    """The fleet to take the place of what is there; None: it is not worth a cold start without any.

    Of fleets that serve `wanted.rps` the one with the fewest SMs; where none does, the one that serves most.

    Args:
        there_rps: rate within the objective of what is there.
        expected_rps: rate that is to come; what could be served beyond it is no gain.
        fits: how many instances of an SM partition, %, there is room for, up to a number.
    """
    best: tuple[float, float] = 0.0, 0.0
    found: Fleet | None = None
    for sm_pct in table.sm_pct.tolist():
        most = fits(sm_pct, int(wanted.room_pct / sm_pct + TOLERANCE))
        fleets = [Fleet(number, sm_pct) for number in NUMBERS if wanted.least <= number <= most]
        if not fleets:
            continue
        at = bisect_left(fleets, wanted.rps, key=lambda fleet: hybrid_fleets.most_rps(table, fleet))
        fleet = fleets[min(at, len(fleets) - 1)]
        worth = min(hybrid_fleets.most_rps(table, fleet), wanted.rps), -fleet.number * fleet.sm_pct
        if found is None or worth > best:
            best, found = worth, fleet
    gain_rps = min(best[0], expected_rps) - min(there_rps, expected_rps)
    return found if gain_rps * LIFETIME_S > there_rps * cold_start_s else None


def replaced(table: PlanTable, new: Sequence[Member], number: int, old: Sequence[Member], rps: float) -> bool:
    """Whether old instances can go: `number` new ones are ready, and serve `rps` or no less than the old."""
    if sum(member.phase == Phase.READY for member in new) < number:
        return False
    there, before = (
        most_rate_rps(table, [Share(member.config.sm_pct) for member in of]) for of in (new, old)
    )
    return there >= min(before, rps)


def excess(new: Sequence[Member], old: Sequence[Member], room_pct: float, least: int) -> list[Member]:
    """Old instances in room that others are owed, the smallest first; what starts is waited for.

    Args:
        room_pct: SMs that all may have together, % of a GPU. least: instances that have to stay.
    """
    if any(member.phase != Phase.READY for member in (*new, *old)):
        return []
    over_pct = sum(member.config.sm_pct for member in (*new, *old)) - room_pct
    found: list[Member] = []
    for member in sorted(old, key=lambda one: (one.config.sm_pct, one.id)):
        if over_pct > TOLERANCE and len(new) + len(old) - len(found) > least:
            found.append(member)
            over_pct -= member.config.sm_pct
    return found
