"""`WholeGpu`: a whole GPU for each instance, scaled as Knative scales a model server of KServe.

The autoscaler is Knative's (KPA; `pkg/autoscaler/scaling/autoscaler.go`, method Scale), with the defaults of
its ConfigMap config-autoscaler. Every `tick-interval`, from the concurrency C of a function, requests that
are served or wait, averaged over a window:

    target = container concurrency x container-concurrency-target-percentage
    wanted = ceil(C / target)
    within [floor(ready / max-scale-down-rate), ceil(max-scale-up-rate x ready)]

C is that of `stable-window`. If the panic window asks for `panic-threshold-percentage` of what is ready, the
function panics: it takes the larger of both windows and never shrinks, until the threshold has not been
reached for a whole stable window. After a restart with more than one instance it begins in panic with what is
ready, as Knative does.

Container concurrency. Knative's default for a revision without a limit, container-concurrency-target-default,
is 100, which for a GPU means a hundred requests waiting on each: seconds of queueing. A model server of
KServe is given what it can work on at once instead, and that is its batch. So the default here is the
function's batch on a whole GPU, the largest that meets the objective alone; `container_concurrency=100` is
Knative's.

Concurrency over a tick is not observed but follows from Little's law: arrival rate x execution time in
service, with the mean batch at which the instances keep up, and the requests that wait, as seen at the tick.
To count those in service at the tick would be wrong by much if requests come in step with it.

Apart from Knative: the least number of instances, and when a function goes to none, are the function's
(`min_instances`, `idle_to_zero_s`), and instances drain. `initial` of a function is not used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rapp.errors import ConfigError
from rapp.types import FloatArray, ResourceConfig
from scaler.core.decision import Action, Reason
from scaler.core.observation import Phase
from scaler.packing import Pool
from scaler.policies import windows
from scaler.policies.base import Case, Memory
from scaler.policies.changes import Changes, Remembered, decide_each, nothing_decided, throughput_rps
from scaler.sources.service_times import ServiceTimes

TICK_S = 2.0
"""`tick-interval`, s."""

STABLE_WINDOW_S = 60.0
"""`stable-window`, s."""

PANIC_WINDOW_S = STABLE_WINDOW_S * 0.10
"""`panic-window-percentage` 10 % of the stable window, s."""

PANIC_THRESHOLD = 2.0
"""`panic-threshold-percentage` 200 %, as a factor on what is ready."""

MAX_SCALE_UP_RATE = 1000.0
"""`max-scale-up-rate`: most instances wanted for each one that is ready."""

MAX_SCALE_DOWN_RATE = 2.0
"""`max-scale-down-rate`: most instances that are ready for each one wanted."""

TARGET_SHARE = 0.70
"""`container-concurrency-target-percentage` 70 %, as a factor on the container concurrency."""


@dataclass(frozen=True, slots=True)
class WholeGpu:
    """Whole GPUs, as many as Knative's autoscaler wants.

    Args:
        container_concurrency: requests that an instance works on at once; None: the function's batch.
        target_share: part of them that is aimed at, in (0, 1].

    Raises:
        ConfigError: a value out of its range.
    """

    container_concurrency: float | None = None
    target_share: float = TARGET_SHARE

    def __post_init__(self) -> None:
        if self.container_concurrency is not None and not self.container_concurrency >= 1:
            raise ConfigError(f"container_concurrency {self.container_concurrency:g} must be 1 or more")
        if not 0 < self.target_share <= 1:
            raise ConfigError(f"target_share {self.target_share:g} must lie in (0, 1]")

    @property
    def name(self) -> str:
        """`whole-gpu`."""
        return "whole-gpu"

    def start(self) -> Memory:
        """No decision yet, nothing counted."""
        return nothing_decided()

    def decide(
        self, memory: Memory, now_s: float, cases: Sequence[Case], pool: Pool
    ) -> tuple[Memory, list[Action], Mapping[str, float]]:
        """As `Policy.decide`. The rates answered are batch / latency of the instances: Knative knows none."""
        return decide_each(memory, now_s, TICK_S, cases, pool, self._decide)

    def _decide(self, changes: Changes, known: Remembered | None, due: bool) -> tuple[Remembered, float]:
        case, now_s = changes.case, changes.now_s
        state = _first_seen(case, now_s) if known is None else dict(known)
        config = ResourceConfig(100.0, 100.0, state["batch"])
        state["concurrency"] = windows.added(
            state["concurrency"], now_s, concurrency(case, config.batch), STABLE_WINDOW_S
        )
        least = changes.keep_fewest(lambda reason: changes.start(config, reason))
        if least > 0 and due:
            target = self.target_share * (self.container_concurrency or config.batch)
            wanted = _wanted(state, now_s, _ready(case), target)
            if wanted is not None:
                changes.scale_to(max(wanted, least), config, Reason.DEMAND_UP, Reason.DEMAND_DOWN)
        return state, throughput_rps(case, changes.live.values())


def largest_batch(case: Case) -> int:
    """The largest batch that meets the objective on a whole GPU with nothing waiting; 1 if none does."""
    latency_ms = _whole_ms(case, case.spec.max_batch)
    meeting = np.flatnonzero(latency_ms <= case.slo_ms)
    return int(meeting[-1]) + 1 if len(meeting) else 1


def concurrency(case: Case, batch: int) -> float | None:
    """Mean requests in service over the last tick, by Little's law, and those that wait; None: not observed.

    In service are at most `batch` on each instance that is ready; with fewer the mean batch n is the least at
    which the instances keep up, rate x latency(n) <= n on each.
    """
    if case.rate_rps is None:
        return None
    room = max(_ready(case), 1) * np.arange(1, batch + 1)
    in_service = case.rate_rps * _whole_ms(case, batch) / 1e3
    keeping_up = np.flatnonzero(in_service <= room)
    served = float(in_service[keeping_up[0]]) if len(keeping_up) else float(room[-1])
    return served + case.queue


def _wanted(state: Remembered, now_s: float, ready: int, target: float) -> int | None:
    """Instances that Knative wants; whether it panics is kept in `state`. None: nothing was observed."""
    stable = windows.mean(state["concurrency"], now_s, STABLE_WINDOW_S)
    if stable is None:
        return None
    panic = windows.mean(state["concurrency"], now_s, PANIC_WINDOW_S)
    # Knative has no metric without recent samples; the last that is known is the better guess.
    by_stable, by_panic = (math.ceil(c / target) for c in (stable, stable if panic is None else panic))
    counted = max(ready, 1)
    most, least = math.ceil(MAX_SCALE_UP_RATE * counted), math.floor(counted / MAX_SCALE_DOWN_RATE)
    wanted, wanted_in_panic = (min(max(count, least), most) for count in (by_stable, by_panic))
    if by_panic / counted >= PANIC_THRESHOLD:
        state["panic_s"] = now_s
    elif state["panic_s"] is not None and now_s > state["panic_s"] + STABLE_WINDOW_S:
        state["panic_s"], state["panic_count"] = None, 0
    if state["panic_s"] is None:
        return wanted
    state["panic_count"] = max(state["panic_count"], wanted, wanted_in_panic)
    return int(state["panic_count"])


def _first_seen(case: Case, now_s: float) -> Remembered:
    ready = _ready(case)
    return {
        "batch": largest_batch(case),
        "concurrency": [],
        "panic_s": now_s if ready > 1 else None,
        "panic_count": ready if ready > 1 else 0,
    }


def _ready(case: Case) -> int:
    return sum(member.phase == Phase.READY for member in case.members)


def _whole_ms(case: Case, batch: int) -> FloatArray:
    """Latency of batches of 1 to `batch` on a whole GPU, (batch,), ms."""
    return _whole_gpu_ms(case.times, case.spec.max_batch)[:batch]


@lru_cache(maxsize=4096)
def _whole_gpu_ms(times: ServiceTimes, most: int) -> FloatArray:
    """Kept, since each tick asks."""
    return times.latency_ms(100.0, 100.0, np.arange(1, most + 1))
