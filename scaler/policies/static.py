"""`Static`: provisioned once for the peak, as without any autoscaling.

The peak of each function's demand is known beforehand. Its instances are the cheapest that serve that rate
within the objective, at the objective's quantile (`scaler.capacity.plans`); among plans that do not fit on
the GPUs as they are, the cheapest that does. They are placed at the first tick at which the function is seen
and kept; one that is lost is replaced. Where the whole peak fits nowhere, as many as there is room for.

Each instance has a row of its own as far as all that is to be placed still fits: rates within the objective
are those of instances alone in their rows. Those that take turns in one wait for each other, for a whole
batch, which a short objective does not bear.

Only where observed execution times show that a prediction was too good, so that what was chosen would not
serve the peak, it is chosen anew, as an operator would. It never serves less. Quota and batch change in place
then; only another SM partition takes other instances.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from rapp.errors import ConfigError
from rapp.types import ResourceConfig
from scaler.arrivals import RateSteps
from scaler.capacity.plans import MOST_INSTANCES, NUMBERS, Plan, PlanTable, plan_table
from scaler.core.decision import Action, Reason
from scaler.core.observation import Phase
from scaler.gpu import Need
from scaler.packing import Pool
from scaler.policies.base import Case, Member, Memory
from scaler.policies.changes import Changes, need, throughput_rps
from scaler.sources.service_times import ServiceTimes

SCARCITIES = (0.0, 0.25, 0.5, 1.0)
"""Prices of SMs without quota that plans are made with, until one fits (`PlanTable.cheapest`)."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Static:
    """The cheapest instances for the peak, and no change.

    Args:
        demand: by function, the rate that comes, on the clock of the ticks.
    """

    demand: Mapping[str, RateSteps]

    @property
    def name(self) -> str:
        """`static`."""
        return "static"

    def start(self) -> Memory:
        """By function: the instances chosen, [number, SM %, quota %, batch, rate that they serve]."""
        return {}

    def decide(
        self, memory: Memory, now_s: float, cases: Sequence[Case], pool: Pool
    ) -> tuple[Memory, list[Action], Mapping[str, float]]:
        """As `Policy.decide`.

        Raises:
            ConfigError: a function whose demand is not known.
        """
        chosen: dict[str, Any] = dict(memory)
        actions: list[Action] = []
        capacity: dict[str, float] = {}
        packed, later = pool.copy(), list[Need]()
        for case in cases:
            name = case.spec.name
            peak = peak_rps(demand_of(self.demand, self.name, name))
            if name not in chosen or _is_short(case, chosen[name], peak):
                plan = provision(case, peak, packed)
                serves = min(plan.capacity_rps, peak)
                one = plan.config
                chosen[name] = [plan.number, one.sm_pct, one.quota_pct, one.batch, serves]
            # The next function plans with the room that this one leaves if it takes as few SMs as it can.
            later += _pack(packed, case, *_fleet(chosen[name]))
        for case in cases:
            number, config = _fleet(chosen[case.spec.name])
            changes = Changes(case, now_s, pool)
            own = _keep(changes, number, config, later)
            actions += changes.actions
            capacity[case.spec.name] = _capacity_rps(case, own, config)
        return chosen, actions, capacity


def _fleet(chosen: Sequence[float]) -> tuple[int, ResourceConfig]:
    """Number and configuration of what was chosen."""
    number, sm_pct, quota_pct, batch = chosen[:4]
    return int(number), ResourceConfig(float(sm_pct), float(quota_pct), int(batch))


def _pack(pool: Pool, case: Case, number: int, config: ResourceConfig) -> list[Need]:
    """Put the instances that a function has too few of into a pool, as many as fit; what they take."""
    takes, put = need(case, config), list[Need]()
    for index in range(number - len(case.members)):
        place = pool.find(takes)
        if place is None:
            break
        pool.add(f"\0{case.spec.name} {index}", *place, takes)
        put.append(takes)
    return put


def _own_row(pool: Pool, takes: Need, later: Sequence[Need]) -> tuple[str, int] | None:
    """A new row on the GPU with the fewest SMs to spare; None: there is none, or no room for `later` then."""
    rows = [
        (gpu.free_sm_pct, gpu.id, gpu.free_row())
        for gpu in pool.gpus.values()
        if pool.why_not("\0", gpu.id, gpu.free_row(), takes) is None
    ]
    if not rows:
        return None
    place, trial = min(rows)[1:], pool.copy()
    trial.add("\0", *place, takes)
    for index, other in enumerate(later):
        where = trial.find(other)
        if where is None:
            return None
        trial.add(f"\0{index}", *where, other)
    return place


def demand_of(demand: Mapping[str, RateSteps], policy: str, function: str) -> RateSteps:
    """The demand of a function.

    Raises:
        ConfigError: it is not known.
    """
    if function not in demand:
        raise ConfigError(
            f"policy {policy} needs to know the demand of {function} beforehand: it is for replays, not live"
        )
    return demand[function]


def peak_rps(load: RateSteps, from_s: float = -math.inf, to_s: float = math.inf) -> float:
    """The largest rate in [from_s, to_s), rps; 0 where there is none."""
    first = int(np.searchsorted(load.edges_s, from_s, side="right")) - 1
    last = int(np.searchsorted(load.edges_s, to_s, side="left"))
    return float(load.rps[max(first, 0) : max(last, 0)].max(initial=0.0))


def function_table(case: Case, quantile: float | None = None) -> PlanTable:
    """The plans of a function under its objective; what the batching delay may take is taken off."""
    spec = case.spec
    left_ms = case.slo_ms - spec.max_batch_delay_ms
    return _table(case.times, left_ms, quantile or spec.slo_quantile, spec.max_batch)


@lru_cache(maxsize=1024)
def _table(times: ServiceTimes, left_ms: float, quantile: float, max_batch: int) -> PlanTable:
    """The core hands out the same times until their correction changes."""
    return plan_table(times, left_ms, quantile, max_batch)


def provision(case: Case, demand_rps: float, pool: Pool) -> Plan:
    """The cheapest instances for a rate that fit into a pool; where none do, those that serve most."""
    table, least = function_table(case), case.spec.min_instances
    best: tuple[float, Plan] | None = None
    for scarcity in SCARCITIES:
        plan = table.cheapest(demand_rps, scarcity)
        if plan is None:
            break
        plan = Plan(max(plan.number, least), plan.config, plan.capacity_rps)
        room = _room(case, plan, pool)
        if room == plan.number:
            return plan
        served = table.rate_rps(room, plan.config) if room else 0.0
        if best is None or served > best[0]:
            best = served, Plan(plan.number, plan.config, served)
    if best is None:
        _log.warning(
            "%s: no configuration meets %g ms at p%g: static takes the fastest",
            case.spec.name, case.slo_ms, 100 * case.spec.slo_quantile,
        )  # fmt: skip
        config, _ = case.times.fastest()
        one_rps = throughput_rps(case, [config])
        return Plan(max(math.ceil(demand_rps / one_rps), least, 1), config, 0.0)
    rows = _in_rows(case, table, demand_rps, pool)
    if rows[0] >= demand_rps:
        return rows[1]
    _log.warning("%s: a peak of %.0f rps does not fit on the GPUs", case.spec.name, demand_rps)
    return best[1]


def _in_rows(case: Case, table: PlanTable, demand_rps: float, pool: Pool) -> tuple[float, Plan]:
    """The cheapest instances with a row each that serve a rate, of those that serve most; that rate, rps.

    A price of SMs says nothing of how many rows a GPU has: 35 % are two of them, 33 % three.
    """
    found = [(0.0, 0.0, Plan(0, table.resized(1, 100.0, 0.0).config, 0.0))]
    for sm_pct in table.sm_axis:
        whole = ResourceConfig(sm_pct, 100.0, case.spec.max_batch)
        room = _room(case, Plan(MOST_INSTANCES, whole, 0.0), pool)
        for number in {room, *(one for one in NUMBERS if one < room)} - {0}:
            if number >= case.spec.min_instances:
                plan = table.resized(number, sm_pct, demand_rps)
                cost = number * plan.config.gpu_share
                found.append((min(plan.capacity_rps, demand_rps), -cost, plan))
    served, _, plan = max(found, key=lambda one: one[:2])
    return served, plan


def _is_short(case: Case, chosen: Sequence[float], peak: float) -> bool:
    """Whether what was chosen serves less by what is known now than when it was chosen."""
    table, (number, config) = function_table(case), _fleet(chosen)
    if table.rate_rps(number, config) >= (chosen[4] or peak):
        return False
    settled = sum(one.config == config and one.phase == Phase.READY for one in case.members) >= number
    return settled and table.cheapest(peak) is not None


def _room(case: Case, plan: Plan, pool: Pool) -> int:
    """How many of the plan's instances fit; those that the function has now make room."""
    trial, takes = pool.copy(), need(case, plan.config)
    for member in case.members:
        if trial.where(member.id) is not None:
            trial.remove(member.id)
    for number in range(plan.number):
        place = trial.find(takes)
        if place is None:
            return number
        trial.add(f"\0{number}", *place, takes)
    return plan.number


def _keep(changes: Changes, number: int, config: ResourceConfig, later: list[Need]) -> int:
    """Have `number` instances of the configuration and, once they are ready, no others; how many it has.

    `later` is what this function and those after it will place; what is placed is taken out.

    Those of its SM partition are resized, which is at once. One that its row has no room for is exchanged as
    those of other SM partitions are: a new one is started, and it serves until that is ready.
    """
    # Of those to be resized the largest quotas come first: what they give back others may take.
    alike = sorted(
        (one for one in changes.case.members if one.config.sm_pct == config.sm_pct),
        key=lambda one: (
            one.config != config, one.phase != Phase.READY, -one.config.quota_pct, one.since_s, one.id
        ),
    )  # fmt: skip
    settled: list[Member] = []
    for one in alike:
        if len(settled) < number and (
            one.config == config
            or changes.resize(one.id, config.quota_pct, Reason.POLICY, batch=config.batch)
        ):
            settled.append(one)
        elif one.config == config:
            changes.drain(one.id, Reason.POLICY)
    rest = [one for one in alike if one not in settled and one.id in changes.live]
    waiting = _make_room(changes, rest, number - len(settled))
    have = len(settled) + len(waiting)
    reason = Reason.LOST if changes.case.lost else Reason.POLICY
    missing = False
    takes = need(changes.case, config)
    while have < number and not missing:
        if takes in later:
            later.remove(takes)
        missing = not changes.start(config, reason, _own_row(changes.pool, takes, later))
        have += not missing
    ready = sum(one.phase == Phase.READY for one in settled)
    if missing or ready >= number:
        # What others hold is needed, or they are not needed any more.
        for one in changes.case.members:
            if one not in settled and one not in waiting and one.id in changes.live:
                changes.drain(one.id, Reason.POLICY)
    return have


def _make_room(changes: Changes, full: Sequence[Member], number: int) -> list[Member]:
    """Of instances whose rows are full, up to `number` that can be resized once others of them, which are
    drained, have left their rows."""
    waiting: list[Member] = []
    for one in full:
        mates = [
            mate for mate in full
            if (mate.gpu, mate.row) == (one.gpu, one.row) and mate != one and mate.id in changes.live
        ]  # fmt: skip
        there = sum(other.id in changes.live for other in full)
        if len(waiting) < number and one.id in changes.live and mates and there - len(mates) >= number:
            for mate in mates:
                changes.drain(mate.id, Reason.POLICY)
            waiting.append(one)
    return waiting


def _capacity_rps(case: Case, number: int, config: ResourceConfig) -> float:
    table = function_table(case)
    return table.rate_rps(number, config)
