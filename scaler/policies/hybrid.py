"""`Hybrid`: our own policy. Vertical when that suffices, horizontal in time, repacked when it pays.

A function is served by one fleet: like instances of one SM partition, each in a row of its own where there is
room, all with the same quota and batch. Each tick, for each function:

1. Demand (`scaler.policies.hybrid_demand`). `quick` is what quotas have to serve until the next tick: the
   upper quantile of the forecast, and the largest rate that came by surprise often enough to matter. `ahead`
   is what has to be served a cold start from now. What waits beyond a batch for each instance is a backlog,
   and is added: it is emptied within a tick.
2. Quotas. The least common quota at which the instances that are ready serve `quick` within the objective,
   at the objective's quantile, queueing and batching delay included (`scaler.capacity`), and the batch that
   serves most at it. It needs no restart, so it is set at every tick: up at once, down when the demand has
   been lower for some seconds.
3. Fleet (`scaler.policies.hybrid_fleets`). If the fleet could not serve `ahead` even at full quota, another is
   needed: of more instances, or of a better SM partition; the one that costs least for a minute, its cold
   starts included. If it could, another may still be cheaper: it is taken once the GPU-seconds that it would
   have saved so far exceed what the exchange costs. The same rule removes instances that are not needed and
   goes over to another SM partition, and a demand that swings never triggers it.
4. An exchange starts what is new first. Until that is ready both serve; then what is old is drained. What was
   lost is missing in the fleet and started at once. Without requests for long a function goes to zero, where
   its specification allows it; the first request wakes it up.

Execution times are planned with as they are beside busy neighbours, at the risk the core is set to.

Room. Rooms of functions are not reserved: an instance goes where a row of its own leaves the fewest SMs over,
so that whole GPUs stay free; where no GPU has the SMs, into a row of the same SM partition. Where a fleet does
not fit, the next best that fits is taken, down to one of small SM partitions with high quotas; where nothing
suffices, what serves most. Instances are started one function at a time, always for the function of which
the smallest part of the demand is served, so that none starves while others grow. What could not be had shows
in the rates that are answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rapp.types import ResourceConfig
from scaler.capacity.fleet import Share, fleet_rate_rps, least_quotas
from scaler.core.decision import Action, Drain, Reason, Resize, Start
from scaler.core.needs import instance_need
from scaler.core.observation import Phase
from scaler.packing import TOLERANCE, Need, PackingError, Pool
from scaler.policies import hybrid_demand, hybrid_fleets
from scaler.policies.base import Case, Member, Memory, new_id
from scaler.policies.changes import fewest, why_below
from scaler.policies.hybrid_fleets import Fleet

IDLE_RPS = 0.01
"""Rate that an idle function's fleet is chosen for: a single request is to meet the objective."""


@dataclass(frozen=True, slots=True)
class Hybrid:
    """Vertical, horizontal and repacking, at the least GPU-seconds within the objective."""

    @property
    def name(self) -> str:
        """`hybrid`."""
        return "hybrid"

    def start(self) -> Memory:
        """Nothing known of any function."""
        return {"at_s": None, "functions": {}}

    def decide(
        self, memory: Memory, now_s: float, cases: Sequence[Case], pool: Pool
    ) -> tuple[Memory, list[Action], Mapping[str, float]]:
        """As `Policy.decide`."""
        functions = dict(memory["functions"])
        dt_s = 0.0 if memory["at_s"] is None else max(now_s - memory["at_s"], 0.0)
        steps = [_Step(functions.get(case.spec.name), case, now_s, dt_s, pool) for case in cases]
        # Room is made before it is used: drains and smaller quotas of all functions come first.
        actions: list[Action] = [action for step in steps for action in step.drains()]
        wanted = [(step, step.quotas()) for step in steps]
        actions += [action for step, configs in wanted for action in step.resizes(configs, up=False)]
        actions += [action for step, configs in wanted for action in step.resizes(configs, up=True)]
        hungry = [step for step in steps if step.is_short()]
        while hungry:
            hungry.sort(key=lambda step: (step.served_part(), step.case.spec.name))
            started = hungry[0].start_one()
            if started is None:
                del hungry[0]
                continue
            actions.append(started)
            if not hungry[0].is_short():
                del hungry[0]
        functions |= {step.case.spec.name: step.memory() for step in steps}
        capacity = {step.case.spec.name: step.capacity_rps() for step in steps}
        return {"at_s": now_s, "functions": functions}, actions, capacity


class _Step:
    """One function at one tick."""

    def __init__(
        self, memory: Mapping[str, Any] | None, case: Case, now_s: float, dt_s: float, pool: Pool
    ) -> None:
        self.case, self.now_s, self.pool = case, now_s, pool
        self.table = hybrid_fleets.planned_table(case)
        self.live = {member.id: member for member in case.members}
        before = {"demand": hybrid_demand.start(), "savings": {}, "fleet": None} if memory is None else memory
        self._demand_memory = hybrid_demand.updated(before["demand"], case, now_s)
        at_once = sum(member.config.batch for member in case.members)
        self.demand = hybrid_demand.demand(self._demand_memory, case, at_once)
        self._savings: dict[str, float] = dict(before["savings"])
        self._started = 0
        self._reason = Reason.DEMAND_UP
        self.fleet = self._target(before["fleet"], dt_s)

    # --- which fleet --------------------------------------------------------------------------------------

    def _target(self, before: str | None, dt_s: float) -> Fleet | None:
        """The fleet to have; None: no instance at all."""
        least = fewest(self.case)
        ahead = max(self.demand.ahead, self.demand.quick, IDLE_RPS)
        now = Fleet.named(before) if before is not None else self._present()
        if least == 0 and self.demand.ahead <= 0:
            self._savings = {}
            return None
        if now is not None and now.number < max(least, 1):
            now = Fleet(max(least, 1), now.sm_pct)
        cold_start_s = self.case.spec.cold_start_s
        if now is None or hybrid_fleets.most_rps(self.table, now) < ahead:
            return self._needed(now, ahead, max(least, 1))
        own = [member for member in self.case.members if member.config.sm_pct == now.sm_pct]
        if sum(member.phase == Phase.READY for member in own) < now.number:
            # What is on its way is waited for.
            return now
        rivals = hybrid_fleets.options(self.table, now, ahead, max(least, 1))
        self._savings = hybrid_fleets.saved(self._savings, self.table, now, rivals, ahead, dt_s)
        for fleet in hybrid_fleets.exchange(self._savings, self.table, now, ahead, cold_start_s):
            if fleet.number >= least and self._room(fleet) >= self._missing(fleet):
                self._savings, self._reason = {}, Reason.REPACK
                return fleet
        return now

    def _needed(self, now: Fleet | None, ahead: float, least: int) -> Fleet:
        """A fleet for a demand that the present one cannot serve; the best that there is room for."""
        found = hybrid_fleets.needed(self.table, now, ahead, least, self.case.spec.cold_start_s)
        best: tuple[float, Fleet] | None = None
        for fleet in found:
            missing = self._missing(fleet)
            room = self._room(fleet) if missing > 0 else 0
            if room >= missing:
                self._savings = {}
                return fleet
            there = Fleet(fleet.number - missing + room, fleet.sm_pct)
            served = hybrid_fleets.most_rps(self.table, there)
            if best is None or served > best[0]:
                best = served, there
        if best is not None and (now is None or best[0] > hybrid_fleets.most_rps(self.table, now)):
            if best[1].number >= least:
                self._savings = {}
                return best[1]
        if now is not None:
            return now
        if best is not None:
            return Fleet(max(best[1].number, least), best[1].sm_pct)
        config, _ = self.case.times.fastest()
        return Fleet(least, config.sm_pct)

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
        trial, takes = self.pool.copy(), self._need(self._config(fleet))
        missing = self._missing(fleet)
        for number in range(missing):
            place = _place(trial, takes)
            if place is None:
                return number
            trial.add(f"\0{number}", *place, takes)
        return missing

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
        if ready >= number:
            found += self._drain(others, Reason.REPACK)
        order = sorted(own, key=lambda one: (one.phase != Phase.READY, one.since_s, one.id))
        return found + self._drain(order[number:], Reason.DEMAND_DOWN)

    def quotas(self) -> dict[str, ResourceConfig]:
        """Quota and batch of each instance."""
        ready = [member for member in self.live.values() if member.phase == Phase.READY]
        starting = [member for member in self.live.values() if member.phase != Phase.READY]
        wanted = self._least(ready, self.demand.quick)
        # One that starts is set for the time at which all are there.
        everyone = self._least([*ready, *starting], self.demand.ahead)
        return wanted | {member.id: everyone[member.id] for member in starting}

    def _least(self, members: Sequence[Member], demand_rps: float) -> dict[str, ResourceConfig]:
        shares = [
            Share(member.config.sm_pct, member.config.quota_pct + self._room_to_grow(member))
            for member in members
        ]
        configs = least_quotas(self.table, shares, demand_rps)
        return {member.id: config for member, config in zip(members, configs, strict=True)}

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
            if grows != up or (config.quota_pct == before.quota_pct and config.batch == before.batch):
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

    def is_short(self) -> bool:
        """Whether an instance of the fleet is missing."""
        return self.fleet is not None and self._missing(self.fleet) > 0

    def served_part(self) -> float:
        """Part of the demand that is served, for whose turn it is."""
        return self.capacity_rps() / max(self.demand.ahead, IDLE_RPS)

    def start_one(self) -> Action | None:
        """Start one instance of the fleet; None: there is no room for it."""
        assert self.fleet is not None
        config = self._config(self.fleet)
        takes = self._need(config)
        place = _place(self.pool, takes)
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
        """What the instances serve within the objective."""
        configs = [member.config for member in self.live.values()]
        return fleet_rate_rps(self.table, configs) if configs else 0.0

    def memory(self) -> dict[str, Any]:
        """What to remember of the function."""
        return {
            "demand": self._demand_memory,
            "savings": self._savings,
            "fleet": None if self.fleet is None else self.fleet.name,
        }


def _place(pool: Pool, takes: Need) -> tuple[str, int] | None:
    """A row of its own on the GPU with the fewest SMs to spare; else where it fragments least."""
    best: tuple[float, str, int] | None = None
    for gpu in pool.gpus.values():
        spare = gpu.free_sm_pct - takes.sm_pct
        if spare < -TOLERANCE or takes.memory_mib > gpu.free_memory_mib + TOLERANCE:
            continue
        if takes.host_cores > gpu.free_host_cores + TOLERANCE:
            continue
        if best is None or (spare, gpu.id) < best[:2]:
            best = spare, gpu.id, gpu.free_row()
    return pool.find(takes) if best is None else (best[1], best[2])
