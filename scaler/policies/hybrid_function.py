"""One function at one tick of `hybrid`: its fleet, and the changes that lead there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rapp.types import ResourceConfig
from scaler.capacity.fleet import Share, fleet_rate_rps, least_quotas, most_rate_rps
from scaler.core.decision import Action, Drain, Reason, Resize, Start
from scaler.core.needs import instance_need, latency_ms
from scaler.core.observation import Phase
from scaler.gpu import Need
from scaler.packing import TOLERANCE, PackingError, Pool
from scaler.policies import hybrid_demand, hybrid_fleets, hybrid_room
from scaler.policies.base import Case, Member, new_id
from scaler.policies.changes import fewest, why_below
from scaler.policies.hybrid_fleets import IDLE_RPS, Fleet, Wanted
from scaler.policies.hybrid_room import Room
from scaler.policies.hybrid_table import planned_table

LOOK_S = 5.0
"""Time between two looks for fleets that would cost less, s: their savings take longer to add up."""

HEADROOM_LEFT = 0.75
"""Part of the headroom that a fleet is chosen with which has to be left: below it another is needed."""

SLACK = 0.08
"""Part by which a quota may be larger than needed before it is lowered: changes that hardly save anything are
as many calls to workers."""


class FunctionStep:
    """One function at one tick."""

    def __init__(
        self,
        memory: Mapping[str, Any] | None,
        case: Case,
        now_s: float,
        pool: Pool,
        room: Room,
        number: int,
    ) -> None:
        self.case, self.now_s, self.pool, self.room = case, now_s, pool, room
        self.table, self._gain = planned_table(case)
        self.live = {member.id: member for member in case.members}
        # Functions look for rivals in turn, so that a tick never looks for those of all.
        looked_s = now_s - LOOK_S * (number % 5) / 5
        demand, none = hybrid_demand.start(), None
        new: Mapping[str, Any] = {
            "demand": demand,
            "fleet": none,
            "savings": {},
            "looked_s": looked_s,
            "short": False,
        }
        before = new if memory is None else memory
        self._demand_memory = hybrid_demand.updated(before["demand"], case, now_s)
        # All rates of a step are those of the table.
        self.demand = hybrid_demand.demand(self._demand_memory, case).over(self._gain)
        self._savings: dict[str, float] = dict(before["savings"])
        self._looked_s: float = before["looked_s"]
        self._short = bool(before["short"])
        self._started = 0
        self._reason = Reason.DEMAND_UP
        self._yields = False
        self.fleet = self._target(before["fleet"])

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
        now = Fleet.named(before) if before is not None else self._present()
        if now is not None and now.number < least:
            now = Fleet(least, now.sm_pct)
        self._yields = now is not None and now.number * now.sm_pct > wanted.room_pct + TOLERANCE
        if now is None or self._yields:
            return self._needed(now, wanted)
        own = [member for member in self.case.members if member.config.sm_pct == now.sm_pct]
        waiting = sum(member.phase == Phase.READY for member in own) < now.number
        # What is on its way is waited for; what is not urgent, or had no room, is looked for in turn.
        dt_s = self.now_s - self._looked_s
        late = not 0 <= dt_s < LOOK_S
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
            if self._room(fleet) >= self._missing(fleet):
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
        if idle is not None and self._room(idle) >= self._missing(idle):
            return idle
        best: tuple[Fleet | None, float] = None, -1.0
        if now is not None and not self._yields:
            best = now, hybrid_fleets.most_rps(self.table, now)
        cold_start_s = self.case.spec.cold_start_s
        # The full headroom; if there is no room for it, what is expected; if there is none, what serves most.
        for goal in (wanted, replace(wanted, most_rps=wanted.rps), replace(wanted, rps=0.0, most_rps=0.0)):
            if best[1] >= max(goal.most_rps, 0.0):
                break
            fleets = hybrid_fleets.needed(self.table, now, goal, cold_start_s)
            if goal.rps == 0.0:
                fleets = hybrid_fleets.largest(self.table, goal)
            for fleet in fleets:
                missing = self._missing(fleet)
                room = missing if self._yields else self._room(fleet)
                if room >= missing:
                    self._savings = {}
                    return fleet
                there = Fleet(fleet.number - missing + room, fleet.sm_pct)
                served = hybrid_fleets.most_rps(self.table, there)
                if served > best[1] and there.number >= wanted.least:
                    best = there, served
        if best[0] is not None:
            return best[0]
        config, _ = self.case.times.fastest()
        return Fleet(wanted.least, config.sm_pct)

    def _present(self) -> Fleet | None:
        """The largest group of like instances that are there, after a restart."""
        by_sm: dict[float, int] = {}
        for member in self.case.members:
            by_sm[member.config.sm_pct] = by_sm.get(member.config.sm_pct, 0) + 1
        groups = (Fleet(number, sm) for sm, number in by_sm.items())
        return max(groups, default=None)

    def _missing(self, fleet: Fleet) -> int:
        own = sum(member.config.sm_pct == fleet.sm_pct for member in self.live.values())
        return max(fleet.number - own, 0)

    def _room(self, fleet: Fleet) -> int:
        """How many of the instances that are missing there is room for."""
        return hybrid_room.room(self.pool, self._need(self._config(fleet)), self._missing(fleet))

    # --- changes ------------------------------------------------------------------------------------------

    def drains(self) -> list[Action]:
        """What is not needed any more."""
        if self.fleet is None:
            return self._drain(list(self.live.values()), Reason.IDLE)
        sm_pct, number = self.fleet.sm_pct, self.fleet.number
        own = [member for member in self.live.values() if member.config.sm_pct == sm_pct]
        others = [member for member in self.live.values() if member.config.sm_pct != sm_pct]
        ready = sum(member.phase == Phase.READY for member in own)
        found: list[Action] = []
        if ready >= number or self._yields:
            found += self._drain(others, Reason.REPACK)
        order = sorted(own, key=lambda one: (one.phase != Phase.READY, one.since_s, one.id))
        return found + self._drain(order[number:], Reason.DEMAND_DOWN)

    def quotas(self) -> dict[str, ResourceConfig]:
        """Quota and batch of each instance that is ready; one that starts has what it will need."""
        ready = [member for member in self.live.values() if member.phase == Phase.READY]
        return self._least(ready, self.demand.quick + self.demand.backlog)

    def _least(self, members: Sequence[Member], demand_rps: float) -> dict[str, ResourceConfig]:
        shares = self._shares(members)
        configs = least_quotas(self.table, shares, demand_rps)
        if self.demand.backlog > 0 and fleet_rate_rps(self.table, configs) < demand_rps:
            # What waits is late already: the way out is to serve most, whatever a batch takes.
            configs = [self._flat_out(share) for share in shares]
        return {member.id: config for member, config in zip(members, configs, strict=True)}

    def _shares(self, members: Iterable[Member]) -> list[Share]:
        return [
            Share(member.config.sm_pct, member.config.quota_pct + self._room_to_grow(member))
            for member in members
        ]

    def _flat_out(self, share: Share) -> ResourceConfig:
        """The configuration with the largest throughput."""
        quota_pct = min(share.most_quota_pct, 100.0)
        configs = [ResourceConfig(share.sm_pct, quota_pct, batch) for batch in self.table.batches]
        most = self.case.spec.max_batch
        return max(configs, key=lambda one: one.batch / latency_ms(self.case.times, one, most))

    def _room_to_grow(self, member: Member) -> float:
        """An equal part of what its row has left: its neighbours may want the rest."""
        place = self.pool.where(member.id)
        if place is None:
            return 0.0
        row = self.pool.gpus[place[0]].rows[place[1]]
        return max(row.free_quota_pct, 0.0) / len(row.needs)

    def resizes(self, wanted: Mapping[str, ResourceConfig], *, up: bool) -> list[Action]:
        """Quotas, larger or smaller ones, and batches."""
        found: list[Action] = []
        for id_, config in wanted.items():
            member = self.live[id_]
            before = member.config
            grows = config.quota_pct > before.quota_pct + TOLERANCE
            little = (1.0 - SLACK) * before.quota_pct < config.quota_pct <= before.quota_pct
            if grows != up or (little and config.batch <= before.batch):
                continue
            try:
                self.pool.resize(id_, self._need(config))
            except PackingError:
                continue
            self.live[id_] = Member(id_, member.gpu, member.row, config, member.phase, member.since_s)
            reason = Reason.DEMAND_DOWN
            if grows:
                reason = Reason.BACKLOG if self.demand.backlog > 0 else Reason.DEMAND_UP
            found.append(Resize(id_, self.case.spec.name, config.quota_pct, config.batch, reason))
        return found

    def part(self) -> float:
        """Part of the fleet that is there."""
        return 1.0 if self.fleet is None else 1.0 - self._missing(self.fleet) / self.fleet.number

    def start_one(self) -> Action | None:
        """Start one instance of the fleet; None: there is no room for it."""
        assert self.fleet is not None
        config = self._config(self.fleet)
        takes = self._need(config)
        place = hybrid_room.place(self.pool, takes)
        if place is None:
            return None
        id_ = new_id(self.case.spec.name, self.now_s, self._started)
        self._started += 1
        self.pool.add(id_, *place, takes)
        self.live[id_] = Member(id_, *place, config, Phase.STARTING, self.now_s)
        reason = self._reason
        if self.case.lost:
            reason = Reason.LOST
        elif len(self.case.members) < fewest(self.case):
            reason = why_below(self.case)
        return Start(id_, self.case.spec.name, *place, config, reason)

    def _config(self, fleet: Fleet) -> ResourceConfig:
        """Configuration of each instance of a fleet, once all are there."""
        shares = [Share(fleet.sm_pct)] * fleet.number
        return least_quotas(self.table, shares, self.demand.ahead)[0]

    def _drain(self, members: Sequence[Member], reason: Reason) -> list[Action]:
        for member in members:
            del self.live[member.id]
        return [Drain(member.id, self.case.spec.name, reason) for member in members]

    def _need(self, config: ResourceConfig) -> Need:
        return instance_need(self.case.spec, self.case.times, self.case.memory_mib, config)

    # --- what is left -------------------------------------------------------------------------------------

    def capacity_rps(self) -> float:
        """What the instances serve within the objective at the quotas that they could have."""
        return self._gain * most_rate_rps(self.table, self._shares(self.live.values()))

    def memory(self, capacity_rps: float) -> dict[str, Any]:
        """What to remember of the function; instances that there was no room for are not waited for.

        Args:
            capacity_rps: as above.
        """
        fleet = self.fleet
        if fleet is not None:
            fleet = Fleet(fleet.number - self._missing(fleet), fleet.sm_pct)
        return {
            "demand": self._demand_memory,
            "savings": self._savings,
            "looked_s": self._looked_s,
            "short": capacity_rps < self._gain * self.demand.ahead,
            "fleet": None if fleet is None or fleet.number == 0 else fleet.name,
        }
