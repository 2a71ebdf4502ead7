"""`Oracle`: knows the demand to come; what autoscaling could cost at best with these instances.

    fleet     the number and SM partition of the instances that cost least to the end of the demand, cold
              starts included (`scaler.policies.oracle_fleets`); ordered a cold start before it is needed
    quota     at each tick the least that serves the largest rate until the next one, with its batch
    others    drained once the new ones are ready and suffice

It is given rates, not the moments of single requests: what is random about these, it plans for as everyone
does, at a quantile of the latency. That is the objective's, or the share of requests that another policy had
answered late: so both are compared at the same violations. No forecast is used, and nothing that is observed
but which instances are there and how many requests wait.

It is no bound: instances of a function are alike at a time, and functions are placed one after another as
there is room. Its execution times are those that it is given, which should be the true ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from rapp.errors import ConfigError
from rapp.types import ResourceConfig
from scaler.arrivals import RateSteps
from scaler.capacity.plans import PlanTable
from scaler.core.decision import Action, Drain, Reason, Resize, Start
from scaler.core.needs import instance_need
from scaler.core.observation import Phase
from scaler.gpu import Need
from scaler.packing import TOLERANCE, PackingError, Pool
from scaler.policies import oracle_room
from scaler.policies.base import Case, Member, Memory, new_id
from scaler.policies.changes import fewest, throughput_rps, why_below
from scaler.policies.oracle_fleets import Fleet, Limits, Schedule, given_times, oracle_table, schedule
from scaler.policies.oracle_shares import LENIENT, Claim, Share, shares
from scaler.policies.static import demand_of, peak_rps

TICK_S = 1.0
"""Time between ticks, s."""

MARGIN_S = 0.25
"""A quota has to be there before the rate: changes take part of a second."""

RESERVE_S = 120.0
"""A new instance is placed where its row has room for the quotas of so long a time, s."""

QUANTILES = (0.5, 0.999)
"""Range of quantiles that are planned for: that of the tables of waiting times."""


@dataclass(frozen=True, slots=True)
class Oracle:
    """Knows the rates to come.

    Args:
        demand: by function, the rate that comes, on the clock of the ticks.
        violations: by function, the share of requests that may be late; a function that is not named may be
            late as its objective's quantile allows.

    Raises:
        ConfigError: a share that is none.
    """

    demand: Mapping[str, RateSteps]
    violations: Mapping[str, float] = field(default_factory=dict)
    _claims: dict[Any, Claim] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, share in self.violations.items():
            if not 0 <= share <= 1:
                raise ConfigError(f"violations of {name}: {share:g} must lie in [0, 1]")

    @property
    def name(self) -> str:
        """`oracle`."""
        return "oracle"

    def start(self) -> Memory:
        """Quotas that rows keep room for, by instance; none yet."""
        return {"reserved": {}}

    def decide(
        self, memory: Memory, now_s: float, cases: Sequence[Case], pool: Pool
    ) -> tuple[Memory, list[Action], Mapping[str, float]]:
        """As `Policy.decide`.

        Raises:
            ConfigError: a function whose demand is not known.
        """
        there = {member.id for case in cases for member in case.members}
        reserved = {id_: pct for id_, pct in memory["reserved"].items() if pool.where(id_) is not None}
        given = self._shares(cases, pool)
        steps = [
            _Step(self, case, now_s, pool, reserved, share) for case, share in zip(cases, given, strict=True)
        ]
        # Room is made before it is used: drains and smaller quotas of all functions come first.
        drains = [action for step in steps for action in step.drains()]
        lower = [action for step in steps for action in step.resizes(up=False)]
        # Large SM partitions first: small ones fit into what these leave.
        order = sorted(steps, key=lambda step: -(step.target.sm_pct if step.target is not None else 0.0))
        more = [action for step in order for action in (*step.resizes(up=True), *step.starts())]
        capacity = {step.case.spec.name: step.capacity_rps() for step in steps}
        gone = {action.id for action in drains} & there
        kept = {id_: pct for id_, pct in reserved.items() if id_ not in gone}
        return {"reserved": kept}, [*drains, *lower, *more], capacity

    def _shares(self, cases: Sequence[Case], pool: Pool) -> tuple[Share, ...]:
        """Shares of the functions, by the times as given: what followed observed ones went to and fro."""
        return shares(tuple(self._claim(case, pool) for case in cases), len(pool.gpus))

    def _claim(self, case: Case, pool: Pool) -> Claim:
        smallest_mib = min((gpu.memory_mib for gpu in pool.gpus.values()), default=0.0)
        key = case.spec, case.slo_ms, case.memory_mib, given_times(case), smallest_mib
        if key not in self._claims:
            given, quantile = replace(case, times=key[3]), self.quantile(case)
            load = demand_of(self.demand, self.name, case.spec.name)
            lenient = tuple(oracle_table(given, min(one, quantile)) for one in LENIENT)
            in_memory = max(int(smallest_mib / case.memory_mib), 1)
            self._claims[key] = Claim(oracle_table(given, quantile), load, in_memory, lenient)
        return self._claims[key]

    def quantile(self, case: Case) -> float:
        """Of the latency, that is planned for."""
        late = self.violations.get(case.spec.name)
        wanted = case.spec.slo_quantile if late is None else 1.0 - late
        return min(max(wanted, QUANTILES[0]), QUANTILES[1])


class _Step:
    """One function at one tick."""

    def __init__(
        self, oracle: Oracle, case: Case, now_s: float, pool: Pool, reserved: dict[str, float], share: Share
    ) -> None:
        self.case, self.now_s, self.pool, self.reserved = case, now_s, pool, reserved
        spec = case.spec
        self.load = demand_of(oracle.demand, oracle.name, spec.name)
        self.table: PlanTable = oracle_table(case, min(oracle.quantile(case), share.quantile))
        self.ahead_s = now_s + spec.cold_start_s + 2 * TICK_S
        limits = Limits(spec.min_instances, share, spec.cold_start_s)
        plan = _schedule(self.table, self.load, limits)
        self.least = fewest(case)
        wanted = self.least > 0 or peak_rps(self.load, now_s, self.ahead_s) > 0
        self.target = _target(plan, case.members, self.ahead_s) if wanted else None
        self.live = {member.id: member for member in case.members}
        self.missing = 0 if self.target is None else self.target.number
        if self.target is not None:
            self.missing -= sum(self._is_new(member) for member in case.members)

    def drains(self) -> list[Action]:
        """What is not needed any more: others than the target's once it suffices, then its spare ones."""
        if self.target is None:
            return self._drain(list(self.case.members), Reason.IDLE)
        own = [member for member in self.case.members if self._is_new(member)]
        others = [member for member in self.case.members if not self._is_new(member)]
        ready = sum(member.phase == Phase.READY for member in own)
        if self._served_rps(min(self.target.number, ready)) < peak_rps(self.load, self.now_s, self.ahead_s):
            # Of those that go, the ones that are not ready are of no use in between.
            return self._drain([one for one in others if one.phase != Phase.READY], Reason.REPACK)
        order = sorted(own, key=lambda one: (one.phase != Phase.READY, one.since_s, one.id))
        spare = order[self.target.number :]
        return self._drain(others, Reason.REPACK) + self._drain(spare, Reason.DEMAND_DOWN)

    def resizes(self, *, up: bool) -> list[Action]:
        """Quotas, larger or smaller ones, and batches for the rate until the next tick."""
        found: list[Action] = []
        wanted = self._wanted()
        for member in self.live.values():
            config, before = wanted[member.config.sm_pct, member.phase == Phase.READY], member.config
            room_pct = before.quota_pct + self.pool.room_to_grow(member.id)
            quota_pct = min(config.quota_pct, room_pct)
            grows = quota_pct > before.quota_pct + TOLERANCE
            after = ResourceConfig(before.sm_pct, quota_pct, config.batch)
            if after == before or grows != up:
                continue
            try:
                self.pool.resize(member.id, self._need(after))
            except PackingError:
                continue
            reason = Reason.DEMAND_UP if grows else Reason.DEMAND_DOWN
            found.append(Resize(member.id, self.case.spec.name, quota_pct, config.batch, reason))
        return found

    def starts(self) -> list[Action]:
        """The instances of the target that are missing, as far as there is room."""
        found: list[Action] = []
        if self.target is None:
            return found
        name = self.case.spec.name
        config = self._plan(self.target.number, self.target.sm_pct, self.ahead_s - TICK_S, self.ahead_s)
        peak = self._plan(self.target.number, self.target.sm_pct, self.now_s, self.now_s + RESERVE_S)
        keep_pct = max(peak.quota_pct, config.quota_pct)
        reason = Reason.DEMAND_UP if self.case.members else why_below(self.case)
        for number in range(self.missing):
            takes = self._need(config)
            place = oracle_room.place(self.pool, takes, keep_pct, self.reserved)
            if place is None:
                break
            id_ = new_id(name, self.now_s, number)
            self.pool.add(id_, *place, takes)
            self.reserved[id_] = keep_pct
            self.live[id_] = Member(id_, *place, config, Phase.STARTING, self.now_s)
            found.append(Start(id_, name, *place, config, reason))
        return found

    def capacity_rps(self) -> float:
        """What the instances serve at the quotas that they could have at most."""
        by_sm: dict[float, int] = {}
        for member in self.live.values():
            by_sm[member.config.sm_pct] = by_sm.get(member.config.sm_pct, 0) + 1
        return sum(
            self.table.resized(number, sm_pct, math.inf).capacity_rps for sm_pct, number in by_sm.items()
        )

    def _is_new(self, member: Member) -> bool:
        return self.target is not None and member.config.sm_pct == self.target.sm_pct

    def _drain(self, members: Sequence[Member], reason: Reason) -> list[Action]:
        for member in members:
            del self.live[member.id]
        return [Drain(member.id, self.case.spec.name, reason) for member in members]

    def _wanted(self) -> dict[tuple[float, bool], ResourceConfig]:
        """By SM partition and whether it is ready: the configuration that serves what comes until then."""
        alike: dict[tuple[float, bool], int] = {}
        for member in self.live.values():
            for ready in {False, member.phase == Phase.READY}:
                key = member.config.sm_pct, ready
                alike[key] = alike.get(key, 0) + 1
        # One that starts is for the time when it is ready.
        begins_s = {True: self.now_s, False: self.ahead_s - 2 * TICK_S}
        return {
            (sm_pct, ready): self._plan(number, sm_pct, begins_s[ready], begins_s[ready] + TICK_S + MARGIN_S)
            for (sm_pct, ready), number in alike.items()
        }

    def _plan(self, number: int, sm_pct: float, from_s: float, to_s: float) -> ResourceConfig:
        """Configuration at which like instances serve what comes in a time, and what waits beyond a batch.

        Where no quota is enough to serve it within the objective, they at least keep up if they can, so that
        what waits does not grow and make all late: the smallest such batch at the whole quota.
        """
        backlog = max(self.case.queue - number * self.case.spec.max_batch, 0) / TICK_S
        demand = peak_rps(self.load, from_s, to_s) + backlog
        plan = self.table.resized(number, sm_pct, demand)
        if plan.capacity_rps >= demand:
            return plan.config
        whole = [ResourceConfig(plan.config.sm_pct, 100.0, batch) for batch in self.table.batches]
        larger = [config for config in whole if config.batch >= plan.config.batch]
        enough = (one for one in larger if number * throughput_rps(self.case, [one]) >= demand)
        return next(enough, max(larger, key=lambda one: throughput_rps(self.case, [one])))

    def _served_rps(self, number: int) -> float:
        if self.target is None or number == 0:
            return 0.0
        return self.table.resized(number, self.target.sm_pct, math.inf).capacity_rps

    def _need(self, config: ResourceConfig) -> Need:
        return instance_need(self.case.spec, self.case.times, self.case.memory_mib, config)


def _target(plan: Schedule, members: Sequence[Member], ready_s: float) -> Fleet:
    """The fleet to have at `ready_s`; what is there is the largest group of like instances."""
    by_sm: dict[float, int] = {}
    for member in members:
        by_sm[member.config.sm_pct] = by_sm.get(member.config.sm_pct, 0) + 1
    now = max((Fleet(number, sm) for sm, number in by_sm.items()), key=lambda one: one.number, default=None)
    # An order that is under way already is kept to, unless the least cost says otherwise by more than it.
    started = [Fleet(by_sm[m.config.sm_pct], m.config.sm_pct) for m in members if m.phase == Phase.STARTING]
    return plan.best(started[0] if started else now, ready_s)


@lru_cache(maxsize=256)
def _schedule(table: PlanTable, load: RateSteps, limits: Limits) -> Schedule:
    """Tables and demands are kept by their makers, so that they are known again by identity."""
    return schedule(table, load, limits)
