"""`Changes`: what a policy changes of one function at one tick, tried out on the pool as it goes.

`decide_each` is the frame of the policies that decide function by function, all but what they decide.

A change that the pool cannot hold is not made, so that a list of changes is one that can be carried out. A
drained instance keeps its room: it is there until its last request is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rapp.types import ResourceConfig
from scaler.core.decision import Action, Drain, Reason, Resize, Start
from scaler.core.needs import instance_need, latency_ms
from scaler.core.observation import Phase
from scaler.gpu import Need
from scaler.packing import PackingError, Pool
from scaler.policies import windows
from scaler.policies.base import Case, Memory, new_id


class Changes:
    """The changes of one function.

    Args:
        case: the function. now_s: time of the tick, s. pool: what is on the GPUs; it is changed.

    Attributes:
        actions: the changes so far. live: configurations that the function has with them, by instance.
    """

    def __init__(self, case: Case, now_s: float, pool: Pool) -> None:
        self.case, self.pool, self.now_s = case, pool, now_s
        self.actions: list[Action] = []
        self.live: dict[str, ResourceConfig] = {member.id: member.config for member in case.members}
        self._started = 0

    def start(self, config: ResourceConfig, reason: Reason, place: tuple[str, int] | None = None) -> bool:
        """Start an instance at (GPU, row), or where it fragments least; False: there is no room."""
        takes = need(self.case, config)
        where = self.pool.find(takes) if place is None else place
        id_ = new_id(self.case.spec.name, self.now_s, self._started)
        if where is None or self.pool.why_not(id_, *where, takes) is not None:
            return False
        self.pool.add(id_, *where, takes)
        self.actions.append(Start(id_, self.case.spec.name, *where, config, reason))
        self.live[id_] = config
        self._started += 1
        return True

    def resize(self, id_: str, quota_pct: float, reason: Reason, batch: int | None = None) -> bool:
        """Change an instance's quota, and its batch unless None; False: its row or its machine does not hold
        that, or it is new."""
        before = self.live[id_]
        config = ResourceConfig(before.sm_pct, quota_pct, before.batch if batch is None else batch)
        if self.pool.where(id_) is None or not self.is_old(id_):
            return False
        try:
            self.pool.resize(id_, need(self.case, config))
        except PackingError:
            return False
        self.actions.append(Resize(id_, self.case.spec.name, quota_pct, config.batch, reason))
        self.live[id_] = config
        return True

    def is_old(self, id_: str) -> bool:
        """Whether an instance was there before this tick."""
        return any(member.id == id_ for member in self.case.members)

    def drain(self, id_: str, reason: Reason) -> None:
        """Stop an instance once it is empty; until then it keeps the quota that it had before."""
        if any(isinstance(action, Resize) and action.id == id_ for action in self.actions):
            before = next(member.config for member in self.case.members if member.id == id_)
            self.actions = [action for action in self.actions if action.id != id_]
            self.pool.resize(id_, need(self.case, before))
        self.actions.append(Drain(id_, self.case.spec.name, reason))
        del self.live[id_]

    def drain_all(self, reason: Reason) -> None:
        """Stop them all."""
        for id_ in list(self.live):
            self.drain(id_, reason)

    def scale_to(self, count: int, config: ResourceConfig, up: Reason, down: Reason) -> None:
        """Have `count` instances: start as many as there is room for, or drain the least useful ones."""
        while len(self.live) < count and self.start(config, up):
            pass
        for id_ in self._dispensable()[: max(len(self.live) - count, 0)]:
            self.drain(id_, down)

    def keep_fewest(self, start: Callable[[Reason], bool]) -> int:
        """Have the fewest instances that are allowed, none if that is 0; how many these are.

        Args:
            start: starts one more, for a reason; False: there is no room.
        """
        least = fewest(self.case)
        if least == 0:
            self.drain_all(Reason.IDLE)
        while len(self.live) < least and start(why_below(self.case)):
            pass
        return least

    def _dispensable(self) -> list[str]:
        """Instances in the order in which Kubernetes takes them: not ready first, then the youngest."""
        order = sorted(
            self.case.members, key=lambda member: (member.phase == Phase.READY, -member.since_s, member.id)
        )
        return [member.id for member in order if member.id in self.live]


Remembered = dict[str, Any]
"""What a policy remembers of one function: JSON."""


def nothing_decided() -> Memory:
    """The memory of `decide_each` before the first tick."""
    return {"decided_s": None, "functions": {}}


def decide_each(
    memory: Memory,
    now_s: float,
    period_s: float,
    cases: Sequence[Case],
    pool: Pool,
    decide: Callable[[Changes, Remembered | None, bool], tuple[Remembered, float]],
) -> tuple[Memory, list[Action], Mapping[str, float]]:
    """An answer of `Policy.decide`, function by function in the order given.

    Args:
        memory: as `nothing_decided`, or what was answered the last time.
        period_s: least time between decisions, s.
        decide: makes the changes of one function, given what is remembered of it, None at first, and whether
            a decision is due; answers what to remember and the rate that it counts on, rps.
    """
    due = windows.due(memory["decided_s"], now_s, period_s)
    functions, actions, rates = dict(memory["functions"]), list[Action](), dict[str, float]()
    for case in cases:
        name, changes = case.spec.name, Changes(case, now_s, pool)
        functions[name], rates[name] = decide(changes, functions.get(name), due)
        actions += changes.actions
    return {"decided_s": now_s if due else memory["decided_s"], "functions": functions}, actions, rates


def throughput_rps(case: Case, configs: Iterable[ResourceConfig]) -> float:
    """What instances serve if they never wait for a request, rps: the sum of batch / latency."""
    most = case.spec.max_batch
    return sum(1e3 * config.batch / latency_ms(case.times, config, most) for config in configs)


def need(case: Case, config: ResourceConfig) -> Need:
    """What an instance takes, as the core's check counts it."""
    return instance_need(case.spec, case.times, case.memory_mib, config)


def fewest(case: Case) -> int:
    """Instances that the function has to have: its minimum; without one, 1 until it was idle for long."""
    zero_after_s = case.spec.zero_after_s
    if zero_after_s is None:
        return case.spec.min_instances
    called = case.queue > 0 or case.in_flight > 0 or (case.rate_rps or 0.0) > 0
    awake = bool(case.members) or case.lost > 0
    return int(called or (awake and case.idle_s < zero_after_s))


def why_below(case: Case) -> Reason:
    """Why a function has fewer instances than `fewest`."""
    if case.lost > 0:
        return Reason.LOST
    return Reason.MINIMUM if case.spec.min_instances > 0 else Reason.WAKE_UP
