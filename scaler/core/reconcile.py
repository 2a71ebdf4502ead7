"""Reality first: from what is reported and what was ordered to what can be counted on.

    reported ──┬─ lost, or on a GPU that is gone ──────────── counted as lost, holds nothing
               ├─ draining, or told to drain just now ─────── holds its place, serves nothing
               ├─ of no known function ── drain: STRANGER ─── the same
               ├─ starting for too long ─ drain: STUCK ────── the same
               ├─ beyond what its place has, or beyond
               │  the GPU limit ──────── drain: OVERCOMMIT ── the same
               └─ else ────────────────────────────────────── member
    ordered but not reported yet ──────────────────────────── member, starting; forgotten once it were stuck

An instance keeps its place until it is gone: what drains may work on a last batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rapp.types import ResourceConfig
from scaler.core.decision import Drain, Reason
from scaler.core.needs import instance_need
from scaler.core.observation import GpuView, InstanceView, Observation, Phase
from scaler.core.settings import Settings
from scaler.core.state import CoreState
from scaler.functions import FunctionSpec
from scaler.gpu import Gpu, Need
from scaler.packing import Pool
from scaler.policies.base import Member
from scaler.sources.base import HAS_GPU_MEMORY_MIB
from scaler.sources.service_times import ServiceTimes


@dataclass(frozen=True, slots=True)
class Served:
    """One function as it was given to the core.

    Args:
        spec: the function. times: predicted ones. slo_ms: objective, ms. memory_mib: of an instance, MiB.
    """

    spec: FunctionSpec
    times: ServiceTimes
    slo_ms: float
    memory_mib: float

    def need(self, config: ResourceConfig) -> Need:
        """What an instance takes."""
        return instance_need(self.spec, self.times, self.memory_mib, config)


@dataclass(slots=True)
class Fleet:
    """What there is.

    Args:
        pool: the GPUs that may be used and everything on them.
        members: by function: instances that serve or will.
        reported: by function: the reports of those members that were reported.
        going: ids of instances that hold a place but serve nothing.
        gone: ids of lost instances that are reported.
        drains: what has to go.
        lost: by function: instances lost since the last tick.
    """

    pool: Pool
    members: dict[str, list[Member]] = field(default_factory=dict)
    reported: dict[str, list[InstanceView]] = field(default_factory=dict)
    going: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    drains: list[Drain] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)

    def is_starting(self, function: str) -> bool:
        """Whether an instance of the function starts."""
        return any(member.phase == Phase.STARTING for member in self.members.get(function, ()))


def reconcile(
    state: CoreState, observation: Observation, served: Mapping[str, Served], settings: Settings
) -> Fleet:
    """What there is; `state` is brought up to it.

    An id that is reported twice counts once, as first reported.
    """
    now_s = observation.now_s
    there = {gpu.id for gpu in observation.gpus}
    reported = {one.id: one for one in reversed(observation.instances)}
    lost = {id_ for id_, one in reported.items() if one.phase == Phase.LOST or one.gpu not in there}
    # Oldest first: what came last has to go where there is too much.
    present = sorted(
        (one for id_, one in reported.items() if id_ not in lost),
        key=lambda one: (one.phase != Phase.READY, one.since_s, one.id),
    )
    reasons = {one.id: _why_going(one, state, served, settings, now_s) for one in present}
    usable = _usable(observation.gpus, present, reasons, settings.most_gpus)
    # Lost ones that stay reported were counted when they were first seen.
    functions_of_lost = {id_: reported[id_].function for id_ in lost if id_ not in state.lost}
    functions_of_lost |= {id_: f for id_, f in state.alive.items() if id_ not in reported}
    fleet = Fleet(Pool(Gpu(gpu.id, gpu.memory_mib, gpu.host_cores) for gpu in usable), gone=lost)
    for function in functions_of_lost.values():
        fleet.lost[function] = fleet.lost.get(function, 0) + 1
    leaving = _place(fleet, present, reasons, served)
    # What leaves comes after what stays, so that a stranger in a row does not drive out who was there.
    for one in leaving:
        known = served.get(one.function)
        need = _stranger_need(one.config) if known is None else known.need(one.config)
        fleet.pool.force(one.id, one.gpu, one.row, need)
        fleet.going.add(one.id)
    _keep_orders(fleet, state, reported, served, settings, now_s)
    state.lost = sorted(lost)
    state.draining = {id_: at for id_, at in state.draining.items() if now_s - at <= settings.drain_grace_s}
    state.alive = {member.id: f for f, members in fleet.members.items() for member in members}
    for id_ in state.ordered:
        state.alive.pop(id_, None)
    return fleet


STAYS, GOES = "stays", "goes"


def _why_going(
    one: InstanceView,
    state: CoreState,
    served: Mapping[str, Served],
    settings: Settings,
    now_s: float,
) -> Reason | str:
    """STAYS; GOES by itself; or why it is to be drained."""
    if one.phase == Phase.DRAINING:
        return GOES
    if now_s - state.draining.get(one.id, -float("inf")) <= settings.drain_grace_s:
        return GOES
    known = served.get(one.function)
    if known is None:
        return Reason.STRANGER
    if one.phase == Phase.STARTING and now_s - one.since_s > settings.stuck_s(known.spec.cold_start_s):
        return Reason.STUCK
    return STAYS


def _usable(
    gpus: tuple[GpuView, ...],
    present: list[InstanceView],
    reasons: Mapping[str, Reason | str],
    most: int | None,
) -> list[GpuView]:
    """The GPUs within the limit: those in use by what stays, the longest used first; then the others."""
    if most is None or most >= len(gpus):
        return list(gpus)
    order: dict[str, int] = {}
    for stays in (True, False):
        for one in present:
            if (reasons[one.id] == STAYS) == stays:
                order.setdefault(one.gpu, len(order))
    kept = sorted(gpus, key=lambda gpu: order.get(gpu.id, len(order)))[:most]
    return [gpu for gpu in gpus if gpu in kept]


def _place(
    fleet: Fleet,
    present: list[InstanceView],
    reasons: Mapping[str, Reason | str],
    served: Mapping[str, Served],
) -> list[InstanceView]:
    """Put what stays where it is, if that has room; what does not stay."""
    pool, staying = fleet.pool, [one for one in present if reasons[one.id] == STAYS]
    for one in staying:
        pool.force(one.id, one.gpu, one.row, served[one.function].need(one.config))
    # Only GPUs where something is wrong are filled once more, one by one: mostly there is none.
    wrong = {gpu for gpu, _, _ in pool.faults()}
    wrong |= {
        one.gpu
        for one in staying
        if one.gpu in pool.gpus and pool.gpus[one.gpu].rows[one.row].sm_pct != one.config.sm_pct
    }
    again = [one for one in staying if one.gpu in wrong]
    for one in again:
        pool.remove(one.id)
    for one in again:
        need = served[one.function].need(one.config)
        if pool.why_not(one.id, one.gpu, one.row, need) is None:
            pool.force(one.id, one.gpu, one.row, need)
    leaving = []
    for one in present:
        reason = reasons[one.id]
        if reason == STAYS and pool.where(one.id) is not None:
            fleet.reported.setdefault(one.function, []).append(one)
            member = Member(one.id, one.gpu, one.row, one.config, one.phase, one.since_s)
            fleet.members.setdefault(one.function, []).append(member)
            continue
        leaving.append(one)
        if reason == STAYS:
            reason = Reason.OVERCOMMIT
        if isinstance(reason, Reason):
            fleet.drains.append(Drain(one.id, one.function, reason))
    return leaving


def _stranger_need(config: ResourceConfig) -> Need:
    """Nothing is known of its network: the memory is what is assumed where it is not known."""
    return Need(config.sm_pct, config.quota_pct, HAS_GPU_MEMORY_MIB)


def _keep_orders(
    fleet: Fleet,
    state: CoreState,
    reported: Mapping[str, InstanceView],
    served: Mapping[str, Served],
    settings: Settings,
    now_s: float,
) -> None:
    """Orders that nothing is seen of yet count as starting, so that nothing is started twice."""
    kept = {}
    for id_, order in state.ordered.items():
        known = served.get(order.function)
        if id_ in reported or known is None or order.gpu not in fleet.pool.gpus:
            continue
        if now_s - order.at_s > settings.stuck_s(known.spec.cold_start_s):
            fleet.lost[order.function] = fleet.lost.get(order.function, 0) + 1
            continue
        kept[id_] = order
        fleet.pool.force(id_, order.gpu, order.row, known.need(order.config))
        member = Member(id_, order.gpu, order.row, order.config, Phase.STARTING, order.at_s)
        fleet.members.setdefault(order.function, []).append(member)
    state.ordered = kept
