"""`Static`: provisioned once for the peak, as without any autoscaling.

The peak of each function's demand is known beforehand. Its instances are the cheapest that serve that rate
within the objective, at the objective's quantile (`scaler.capacity.plans`); among plans that do not fit on
the GPUs as they are, the cheapest that does. They are placed at the first tick at which the function is seen
and kept; one that is lost is replaced. Where the whole peak fits nowhere, as many as there is room for.

Only where observed execution times show that a prediction was too good, and what was chosen would not serve
the peak by `SHORT`, it is chosen anew, as an operator would. It never becomes less. Quota and batch change
in place then; only another SM partition takes other instances.
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
from scaler.capacity.plans import Plan, PlanTable, plan_table
from scaler.core.decision import Action, Reason
from scaler.core.observation import Phase
from scaler.packing import Pool
from scaler.policies.base import Case, Member, Memory
from scaler.policies.changes import Changes, need, throughput_rps
from scaler.sources.service_times import ServiceTimes

SCARCITIES = (0.0, 0.25, 0.5, 1.0)
"""Prices of SMs without quota that plans are made with, until one fits (`PlanTable.cheapest`)."""

SHORT = 0.05
"""Part of the peak that may be missing by observed times before instances are chosen anew."""

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
        """By function: the instances chosen, [number, SM %, quota %, batch]; none yet."""
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
        for case in cases:
            name = case.spec.name
            peak = peak_rps(demand_of(self.demand, self.name, name))
            if name not in chosen or _is_short(case, chosen[name], peak):
                plan = provision(case, peak, pool)
                chosen[name] = [plan.number, plan.config.sm_pct, plan.config.quota_pct, plan.config.batch]
            number, sm_pct, quota_pct, batch = chosen[name]
            config = ResourceConfig(float(sm_pct), float(quota_pct), int(batch))
            changes = Changes(case, now_s, pool)
            own = _keep(changes, int(number), config)
            actions += changes.actions
            capacity[name] = _capacity_rps(case, own, config)
        return chosen, actions, capacity


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
            best = served, plan
    if best is None:
        _log.warning(
            "%s: no configuration meets %g ms at p%g: static takes the fastest",
            case.spec.name, case.slo_ms, 100 * case.spec.slo_quantile,
        )  # fmt: skip
        config, _ = case.times.fastest()
        one_rps = throughput_rps(case, [config])
        return Plan(max(math.ceil(demand_rps / one_rps), least, 1), config, 0.0)
    _log.warning("%s: a peak of %.0f rps does not fit on the GPUs", case.spec.name, demand_rps)
    return best[1]


def _is_short(case: Case, chosen: Sequence[float], peak: float) -> bool:
    """Whether what was chosen does not serve the peak by what is known now, and something else might."""
    number, sm_pct, quota_pct, batch = chosen
    table, config = function_table(case), ResourceConfig(float(sm_pct), float(quota_pct), int(batch))
    if table.rate_rps(int(number), config) >= (1 - SHORT) * peak:
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


def _keep(changes: Changes, number: int, config: ResourceConfig) -> int:
    """Have `number` instances of the configuration and, once they are ready, no others; how many it has.

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
    while have < number and not missing:
        missing = not changes.start(config, reason)
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
