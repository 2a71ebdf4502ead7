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
   been lower for some seconds. Arrivals at even distances (`scaler.policies.hybrid_evenness`) need less than
   Poisson ones, and get quotas of their own (`scaler.capacity.even`); fleets stay those for Poisson arrivals,
   so that quotas suffice again when they come less evenly.
3. Fleet (`scaler.policies.hybrid_fleets`). A fleet has vertical headroom: at full quota it serves what may
   come within a cold start, which costs little, since a larger SM partition under a smaller quota costs about
   the same. If the fleet could not, another is needed: of more instances, or of a better SM partition; the
   one that costs least for a minute, its cold starts included. If it could, another may still be cheaper: it
   is taken once the GPU-seconds that it would have saved so far exceed what the exchange costs. The same rule
   removes instances that are not needed, and a demand that swings never triggers it.
4. An exchange (`scaler.policies.hybrid_exchange`) starts what is new first. Until that is ready both serve;
   then what is old is drained. Where there is no room for both, and answers are late, what is old makes room.
   What was lost is missing in the fleet and started at once. Without requests for long a function goes to
   zero, where its specification allows it; the first request wakes it up.

Execution times are planned with as they are beside busy neighbours, at the risk the core is set to. What they
and the capacity are off by shows in the latencies observed: a margin on all demands follows these slowly, up
where answers are late although nothing unforeseen happened, down where they are early all the time.

Room (`scaler.policies.hybrid_room`). An instance goes where a row of its own leaves the fewest SMs over, so
that whole GPUs stay free; rows are not shared, since instances that take turns in one slow each other by far
more than neighbours do. Where a fleet does not fit, the next best that fits is taken, down to one of small SM
partitions with high quotas and no headroom; where nothing suffices, what serves most. SMs without quota have
a price as they become few, so that fleets go over to small partitions with high quotas before there is no
room. A function whose demand is not served has a right to its part of all SMs: what it needs, or an equal
part of what those leave who need less. Others grow beyond theirs only while that leaves it, and come back to
theirs if it does not. Instances are started one at a time, always for the function of whose fleet the
smallest part is there. What could not be had shows in the rates that are answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace

from scaler.core.decision import Action
from scaler.core.observation import Phase
from scaler.packing import Pool
from scaler.policies import hybrid_fleets, hybrid_room
from scaler.policies.base import Case, Memory
from scaler.policies.hybrid_function import FunctionStep, is_due
from scaler.policies.hybrid_room import Room

MOST_LOOKS = 20
"""Functions that may look for other fleets at one tick, those first that have waited longest: a tick never
looks for those of all, and a hundred functions have their turn within `LOOK_S`."""


@dataclass(frozen=True, slots=True)
class Hybrid:
    """Vertical, horizontal and repacking, at the least GPU-seconds within the objective."""

    @property
    def name(self) -> str:
        """`hybrid`."""
        return "hybrid"

    def start(self) -> Memory:
        """Nothing known of any function."""
        return {"functions": {}}

    def decide(
        self, memory: Memory, now_s: float, cases: Sequence[Case], pool: Pool
    ) -> tuple[Memory, list[Action], Mapping[str, float]]:
        """As `Policy.decide`."""
        functions = dict(memory["functions"])
        own = {case.spec.name: sum(one.config.sm_pct for one in case.members) for case in cases}
        short = [name for name in own if functions.get(name, {"short": True})["short"]]
        needs = {name: functions[name]["need_pct"] for name in own if name in functions}
        moving = {case.spec.name for case in cases if any(one.phase != Phase.READY for one in case.members)}
        allowed = hybrid_room.allowed_sm_pct(pool, own, short, needs, moving)
        scarcity = hybrid_fleets.scarcity(pool)
        looked_s = {name: functions[name]["looked_s"] for name in own if name in functions}
        # Whoever has nothing to exchange, or is at it, stays due: he comes last, and others have their turn.
        due = sorted(
            (own[name] == 0 or name in moving, at, name) for name, at in looked_s.items() if is_due(at, now_s)
        )
        turn = {name for name in own if name not in looked_s} | {name for *_, name in due[:MOST_LOOKS]}
        steps = [
            FunctionStep(
                functions.get(name), case, now_s, pool, Room(allowed[name], scarcity), may_look=name in turn
            )
            for name, case in zip(own, cases, strict=True)
        ]
        # Room is made before it is used: drains and smaller quotas of all functions come first.
        actions: list[Action] = [action for step in steps for action in step.drains()]
        wanted = [(step, step.quotas()) for step in steps]
        actions += [action for step, configs in wanted for action in step.own.resizes(configs, up=False)]
        actions += [action for step, configs in wanted for action in step.own.resizes(configs, up=True)]
        # One at a time, always for the function of whose fleet the smallest part is there.
        missing = [(step.part(), step.case.spec.name, step) for step in steps if step.part() < 1]
        heapify(missing)
        while missing:
            _, name, step = missing[0]
            started = step.start_one()
            if started is not None:
                actions.append(started)
            if started is None or step.part() >= 1:
                heappop(missing)
            else:
                heapreplace(missing, (step.part(), name, step))
        capacity = {step.case.spec.name: step.capacity_rps() for step in steps}
        scarce = hybrid_fleets.scarcity(pool) > 0
        for name, step in ((step.case.spec.name, step) for step in steps):
            functions[name] = step.memory(capacity[name], step.need_pct() if scarce else None)
        return {"functions": functions}, actions, capacity
