"""`SimplePolicy`: the least that a policy can be, to try the core with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rapp.types import ResourceConfig
from scaler.core.decision import Action, Drain, Reason, Start
from scaler.core.needs import instance_need
from scaler.packing import Pool
from scaler.policies.base import Case, Memory, new_id
from scaler.sources.service_times import ServiceTimes

CONFIG = ResourceConfig(25.0, 50.0, 4)
"""Small enough that eight fit on a GPU."""


@dataclass(frozen=True, slots=True)
class SimplePolicy:
    """Instances of one configuration for all, as many as the forecast needs at a utilisation.

    Args:
        config: of each instance; a function with a smaller `max_batch` has that.
        utilisation: share of its closed-loop rate that an instance is counted with.
        calm_s: time for which fewer have to suffice before one is drained, s.
    """

    config: ResourceConfig = CONFIG
    utilisation: float = 0.7
    calm_s: float = 10.0

    @property
    def name(self) -> str:
        """Name in reports."""
        return "simple"

    def start(self) -> Memory:
        """By function: since when fewer instances would do."""
        return {}

    def decide(
        self, memory: Memory, now_s: float, cases: Sequence[Case], pool: Pool
    ) -> tuple[Memory, list[Action], Mapping[str, float]]:
        """Start what is missing where it fits; drain the last when it was too much for `calm_s`."""
        actions: list[Action] = []
        calm_since, capacity = dict(memory), {}
        for case in cases:
            name, spec = case.spec.name, case.spec
            batch = min(self.config.batch, spec.max_batch)
            config = ResourceConfig(self.config.sm_pct, self.config.quota_pct, batch)
            rate = self.utilisation * 1e3 * batch / _latency_ms(case.times, config)
            wanted, reason = self._wanted(case, rate)
            have = len(case.members)
            for number in range(wanted - have):
                need = instance_need(spec, case.times, case.memory_mib, config)
                place = pool.find(need)
                if place is None:
                    break
                id_ = new_id(name, now_s, number)
                pool.add(id_, *place, need)
                actions.append(Start(id_, name, *place, config, reason))
                have += 1
            if wanted < have:
                since = calm_since.setdefault(name, now_s)
                if now_s - since >= self.calm_s or wanted == 0:
                    newest = sorted(case.members, key=lambda one: (one.since_s, one.id))[wanted:]
                    actions += [Drain(one.id, name, Reason.DEMAND_DOWN) for one in newest]
                    have = wanted
            else:
                calm_since.pop(name, None)
            capacity[name] = have * rate
        return calm_since, actions, capacity

    def _wanted(self, case: Case, rate_rps: float) -> tuple[int, Reason]:
        spec = case.spec
        if spec.zero_after_s is not None and case.idle_s >= spec.zero_after_s:
            return 0, Reason.IDLE
        # A share of an instance that a forecast's last digit asks for is none.
        load = max(case.forecast.upper_rps, case.soon.upper_rps) / rate_rps
        wanted = max(math.ceil(load - 0.01), spec.min_instances)
        if wanted == 0 and case.members:
            # The last one waits until the time without requests is over.
            return 1, Reason.DEMAND_UP
        if case.queue > 0 and wanted == 0:
            return 1, Reason.WAKE_UP
        if case.lost:
            return wanted, Reason.LOST
        return wanted, Reason.MINIMUM if wanted == spec.min_instances else Reason.DEMAND_UP


@lru_cache(maxsize=4096)
def _latency_ms(times: ServiceTimes, config: ResourceConfig) -> float:
    """The core hands out the same table until its correction changes."""
    return float(times.latency_ms(config.sm_pct, config.quota_pct, config.batch))
