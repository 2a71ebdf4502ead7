"""`Changes`: what a policy changes of one function at one tick, tried out on the pool as it goes.

A change that the pool cannot hold is not made, so that a list of changes is one that can be carried out. A
drained instance keeps its room: it is there until its last request is answered.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from rapp.types import FloatArray, ResourceConfig
from scaler.core.decision import Action, Drain, Reason, Resize, Start
from scaler.core.needs import instance_need
from scaler.core.observation import Phase
from scaler.packing import Need, PackingError, Pool
from scaler.policies.base import Case, new_id


class Changes:
    """The changes of one function.

    Args:
        case: the function. now_s: time of the tick, s. pool: what is on the GPUs; it is changed.

    Attributes:
        actions: the changes so far. live: configurations that the function has with them, by instance.
    """

    def __init__(self, case: Case, now_s: float, pool: Pool) -> None:
        self.case, self.pool, self._now_s = case, pool, now_s
        self.actions: list[Action] = []
        self.live: dict[str, ResourceConfig] = {member.id: member.config for member in case.members}
        self._started = 0

    def start(self, config: ResourceConfig, reason: Reason, place: tuple[str, int] | None = None) -> bool:
        """Start an instance at (GPU, row), or where it fragments least; False: there is no room."""
        takes = need(self.case, config)
        where = self.pool.find(takes) if place is None else place
        id_ = new_id(self.case.spec.name, self._now_s, self._started)
        if where is None or self.pool.why_not(id_, *where, takes) is not None:
            return False
        self.pool.add(id_, *where, takes)
        self.actions.append(Start(id_, self.case.spec.name, *where, config, reason))
        self.live[id_] = config
        self._started += 1
        return True

    def resize(self, id_: str, quota_pct: float, reason: Reason) -> bool:
        """Change an instance's quota; False: its row or its machine does not hold that, or it is new."""
        before = self.live[id_]
        config = ResourceConfig(before.sm_pct, quota_pct, before.batch)
        if self.pool.where(id_) is None or not self.is_old(id_):
            return False
        try:
            self.pool.resize(id_, need(self.case, config))
        except PackingError:
            return False
        self.actions.append(Resize(id_, self.case.spec.name, quota_pct, before.batch, reason))
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

    def _dispensable(self) -> list[str]:
        """Instances in the order in which Kubernetes takes them: not ready first, then the youngest."""
        order = sorted(
            self.case.members, key=lambda member: (member.phase == Phase.READY, -member.since_s, member.id)
        )
        return [member.id for member in order if member.id in self.live]


def latencies_ms(case: Case, configs: Collection[ResourceConfig]) -> FloatArray:
    """Latency of one full batch of each instance, ms, in one look-up: a policy asks at each tick."""
    sm, quota, batch = (
        np.array([getattr(config, axis) for config in configs], np.float64)
        for axis in ("sm_pct", "quota_pct", "batch")
    )
    return case.times.latency_ms(sm, quota, batch) if len(configs) else sm


def throughput_rps(case: Case, configs: Collection[ResourceConfig]) -> float:
    """What instances serve if they never wait for a request, rps: the sum of batch / latency."""
    batches = np.array([config.batch for config in configs], np.float64)
    return float(np.sum(1e3 * batches / latencies_ms(case, configs)))


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
