"""One function at one tick of `hybrid`: its fleet, and the changes that lead there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from rapp.types import ResourceConfig
from scaler.capacity.even import even_table
from scaler.core.decision import Action, Reason
from scaler.core.observation import Phase
from scaler.packing import TOLERANCE, Pool
from scaler.policies import hybrid_demand, hybrid_exchange, hybrid_fleets
from scaler.policies.base import Case
from scaler.policies.changes import fewest, why_below
from scaler.policies.hybrid_fleets import IDLE_RPS, Fleet, Wanted
from scaler.policies.hybrid_instances import Instances
from scaler.policies.hybrid_room import Room
from scaler.policies.hybrid_table import planned_table

LOOK_S = 5.0
"""Time between two looks for fleets that would cost less, s: their savings take longer to add up."""

HEADROOM_LEFT = 0.75
"""Part of the headroom that a fleet is chosen with which has to be left: below it another is needed."""


def is_due(looked_s: float, now_s: float) -> bool:
    """Whether a look is due, the last one having been at `looked_s`; the clock may have been set back."""
    return not 0 <= now_s - looked_s < LOOK_S


class FunctionStep:
    """One function at one tick.

    Args:
        memory: what `memory` of the tick before answered; None: nothing is known.
        room: SMs that it may have. may_look: whether it is its turn to look for other fleets, if one is due.
    """

    def __init__(
        self,
        memory: Mapping[str, Any] | None,
        case: Case,
        now_s: float,
        pool: Pool,
        room: Room,
        may_look: bool,
    ) -> None:
        self.case, self.now_s, self.room, self._may_look = case, now_s, room, may_look
        new: Mapping[str, Any] = {
            "demand": hybrid_demand.start(),
            "fleet": None,
            "savings": {},
            "looked_s": now_s - LOOK_S,
            "short": False,
            "waits_s": None,
            "need_pct": None,
        }
        before = new if memory is None else memory
        self._known_need_pct: float | None = before["need_pct"]
        self._demand_memory = hybrid_demand.updated(before["demand"], case, now_s)
        self.table, self._gain = planned_table(case)
        # Even arrivals are a matter of quotas: these can be taken back at the next tick, a fleet cannot.
        quotas_table = self.table
        if self._demand_memory["evenness"]["even"]:
            # The margin takes off what Poisson arrivals are given too much; even ones are given nothing more.
            quotas_table = even_table(self.table, min(self._demand_memory["margin"], 1.0))
        # All rates of a step are those of the table.
        self.demand = hybrid_demand.demand(self._demand_memory, case).over(self._gain)
        self._savings: dict[str, float] = dict(before["savings"])
        self._looked_s: float = before["looked_s"]
        self._short = bool(before["short"])
        self._waits_s: float | None = before["waits_s"]
        self.own = Instances(case, now_s, pool, quotas_table, self.demand)
        self._reason = Reason.DEMAND_UP
        self._yields = False
        self.fleet = self._target(before["fleet"])

    @property
    def _waits(self) -> bool:
        """Whether what is missing of the fleet is waited for."""
        return self._waits_s is not None and self.now_s < self._waits_s

    # --- which fleet --------------------------------------------------------------------------------------

    def _target(self, before: str | None) -> Fleet | None:
        """The fleet to have; None: no instance at all."""
        fewest_now, demand = fewest(self.case), self.demand
        if fewest_now == 0 and demand.ahead <= 0:
            return None
        least = max(fewest_now, 1)
        wanted = Wanted(
            max(demand.ahead, IDLE_RPS),
            max(demand.most, IDLE_RPS),
            least,
            self.room.scarcity,
            self.room.most_pct,
        )
        now = Fleet.named(before) if before is not None else self.own.best_group()
        if now is not None and now.number < least:
            now = Fleet(least, now.sm_pct)
        if now is not None and now.number * now.sm_pct > wanted.room_pct + TOLERANCE:
            # It gives instances away first; only if it cannot, all of them for others.
            fitting = int(wanted.room_pct / now.sm_pct + TOLERANCE)
            self._yields = fitting < least
            now = now if self._yields else Fleet(fitting, now.sm_pct)
        if now is not None and self._waits:
            self._yields = False
            return now
        if now is None or self._yields:
            return self._needed(now, wanted)
        own = [member for member in self.case.members if member.config.sm_pct == now.sm_pct]
        waiting = sum(member.phase == Phase.READY for member in own) < now.number
        # What is on its way is waited for; what is not urgent, or had no room, is looked for in turn.
        dt_s = self.now_s - self._looked_s
        late = self._may_look and is_due(self._looked_s, self.now_s)
        if hybrid_fleets.most_rps(self.table, now) < wanted.rps and (late or not self._short):
            self._looked_s = self.now_s if self._short else self._looked_s
            return self._needed(now, wanted)
        if waiting or not late:
            return now
        self._looked_s = self.now_s
        enough = replace(wanted, most_rps=HEADROOM_LEFT * wanted.most_rps)
        if hybrid_fleets.most_rps(self.table, now) < enough.most_rps:
            return self._needed(now, wanted)
        return self._exchanged(now, enough, dt_s)

    def _exchanged(self, now: Fleet, wanted: Wanted, dt_s: float) -> Fleet:
        """The present fleet, or one that has earned to take its place."""
        wanted = replace(wanted, rps=max(self.demand.quick, IDLE_RPS))
        idle = self._idle(wanted)
        rivals = hybrid_fleets.options(self.table, now, wanted) if idle is None else [idle]
        # A first look, or one after a long time, counts as one of many.
        dt_s = min(max(dt_s, 0.0), 2 * LOOK_S)
        self._savings = hybrid_fleets.saved(self._savings, self.table, now, rivals, wanted, dt_s)
        cold_start_s = self.case.spec.cold_start_s
        for fleet in hybrid_fleets.exchange(self._savings, self.table, now, wanted, cold_start_s):
            if self.own.room(fleet) >= self.own.missing(fleet):
                self._savings, self._reason = {}, Reason.REPACK
                return fleet
            del self._savings[fleet.name]
        return now

    def _idle(self, wanted: Wanted) -> Fleet | None:
        """The fleet for no demand; None: there is a demand, or nothing meets the objective."""
        if wanted.most_rps > IDLE_RPS:
            return None
        return hybrid_fleets.idle(self.table, wanted.least, self.room.scarcity)

    def _needed(self, now: Fleet | None, wanted: Wanted) -> Fleet:
        """A fleet for a demand that the present one cannot serve; the best that there is room for."""
        idle = self._idle(wanted) if now is None else None
        if idle is not None and self.own.room(idle) >= self.own.missing(idle):
            return idle
        best: tuple[Fleet | None, float] = None, -1.0
        if now is not None and not self._yields:
            best = now, max(hybrid_fleets.most_rps(self.table, now), self.own.rate_rps())
        cold_start_s = self.case.spec.cold_start_s
        goals: list[Wanted | None] = [wanted, replace(wanted, most_rps=wanted.rps)]
        if best[0] is None or self.room.scarcity == 0:
            goals.append(None)
        # The full headroom; if there is no room for it, what is expected; if there is none, what serves most.
        for goal in goals:
            if best[1] >= (wanted.rps if goal is None else goal.most_rps):
                break
            fleets: Iterable[Fleet]
            if goal is not None:
                fleets = hybrid_fleets.needed(self.table, now, goal, cold_start_s)
            else:
                fleets = hybrid_fleets.largest(self.table, wanted, None if best[0] is None else now)
            for fleet in fleets:
                missing = self.own.missing(fleet)
                room = missing if self._yields else self.own.room(fleet)
                if room >= missing:
                    self._savings = {}
                    return fleet
                there = Fleet(fleet.number - missing + room, fleet.sm_pct)
                served = hybrid_fleets.most_rps(self.table, there)
                if served > best[1] and there.number >= wanted.least:
                    best = there, served
        other = None
        if now is not None and not self._yields and best[1] < wanted.rps:
            other = self._instead(now, wanted)
        if other is not None:
            self._savings, self._waits_s = {}, self.now_s + hybrid_exchange.WAIT_COLD_STARTS * cold_start_s
            # What fits beside the present instances is started first; if nothing does, they leave at once.
            self._yields = self.own.missing(other) > 0 and self.own.room(other) == 0
            return other
        if best[0] is not None:
            return best[0]
        config, _ = self.case.times.fastest()
        return Fleet(wanted.least, config.sm_pct)

    def _instead(self, now: Fleet, wanted: Wanted) -> Fleet | None:
        """The fleet to have in the room of the present instances and what is free; None: not worth it.

        What answers in time in fact is not given up for what is computed, nor what is on its way.
        """
        late = self.demand.backlog > 0 or (self.case.latency_ms or 0.0) > self.case.slo_ms
        if not late or any(member.phase != Phase.READY for member in self.own.live.values()):
            return None
        cold_start_s, expected_rps = self.case.spec.cold_start_s, self.case.forecast.mean_rps / self._gain
        fits = self.own.room_without_them(wanted.least)
        fleet = hybrid_exchange.instead(
            self.table, wanted, self.own.rate_rps(), expected_rps, cold_start_s, fits
        )
        return None if fleet == now else fleet

    # --- changes ------------------------------------------------------------------------------------------

    def drains(self) -> list[Action]:
        """What is not needed any more."""
        if self.fleet is None:
            return self.own.drain(list(self.own.live.values()), Reason.IDLE)
        sm_pct, number = self.fleet.sm_pct, self.fleet.number
        own, others = self.own.of(sm_pct), self.own.apart_from(sm_pct)
        ready = len(own) if self._waits else number
        if others and not (
            self._yields or hybrid_exchange.replaced(self.table, own, ready, others, self.demand.quick)
        ):
            least = max(fewest(self.case), 1)
            others = hybrid_exchange.excess(own, others, self.room.most_pct, least)
        found = self.own.drain(others, Reason.REPACK)
        order = sorted(own, key=lambda one: (one.phase != Phase.READY, one.since_s, one.id))
        return found + self.own.drain(order[number:], Reason.DEMAND_DOWN)

    def quotas(self) -> dict[str, ResourceConfig]:
        """Quota and batch that each instance is to have now."""
        return self.own.least_quotas(self.demand.quick + self.demand.backlog)

    def part(self) -> float:
        """Part of the fleet that is there."""
        return 1.0 if self.fleet is None else 1.0 - self.own.missing(self.fleet) / self.fleet.number

    def start_one(self) -> Action | None:
        """Start one instance of the fleet; None: there is no room for it."""
        assert self.fleet is not None
        reason = self._reason
        if self.case.lost:
            reason = Reason.LOST
        elif len(self.case.members) < fewest(self.case):
            reason = why_below(self.case)
        return self.own.start(self.fleet, reason)

    # --- what is left -------------------------------------------------------------------------------------

    def capacity_rps(self) -> float:
        """What the instances serve within the objective at the quotas that they could have."""
        return self._gain * self.own.rate_rps()

    def need_pct(self) -> float | None:
        """The fewest SMs that serve what comes and what came lately, % of a GPU; None: none do.

        As of the function's last turn, unless it is short of room.
        """
        if self._known_need_pct is not None and not (self._may_look or self._short):
            return self._known_need_pct
        peak = self._demand_memory["margin"] * self._demand_memory["peak"] / self._gain
        rps = max(self.demand.ahead, peak, IDLE_RPS)
        fleet = hybrid_fleets.cheapest(self.table, Wanted(rps, rps, max(fewest(self.case), 1)), scarcity=1.0)
        return None if fleet is None else fleet.number * fleet.sm_pct

    def memory(self, capacity_rps: float, need_pct: float | None) -> dict[str, Any]:
        """What to remember of the function; what had no room is waited for only while others leave it.

        Else its fleet is again the group of like instances that serves most, not the part of a better one.

        Args:
            capacity_rps: as above.
            need_pct: SMs that it needs; None: all that it can get, or not looked at.
        """
        fleet = self.fleet
        if fleet is not None and not self._waits and self.own.missing(fleet) > 0:
            fleet = self.own.best_group()
        return {
            "demand": self._demand_memory,
            "savings": self._savings,
            "looked_s": self._looked_s,
            "waits_s": self._waits_s,
            "need_pct": need_pct,
            "short": capacity_rps < self._gain * self.demand.ahead,
            "fleet": None if fleet is None or fleet.number == 0 else fleet.name,
        }
