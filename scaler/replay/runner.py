"""`replay`: a policy under a trace, request by request, through the same core as a live controller.

The core sees only what `Cluster.observe` shows, and acts only through `Cluster.apply`, as a live backend
would have it. After the trace's end nothing more is decided; what still waits is given the time of the
objectives that are counted, and is unfinished then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from scaler.core.decision import Decision
from scaler.core.observation import Observation
from scaler.core.step import Core
from scaler.policies.base import Policy
from scaler.replay.chaos import Disturbance, Fault
from scaler.replay.cluster import Cluster
from scaler.replay.outcome import result_of
from scaler.replay.physics import served_function
from scaler.replay.result import ReplayResult
from scaler.replay.series import Series
from scaler.replay.setup import ReplaySetup

Watch = Callable[[Observation, Decision], None]


def replay(
    setup: ReplaySetup,
    policy: Policy,
    *,
    progress: Callable[[float], None] | None = None,
    watch: Watch | None = None,
) -> ReplayResult:
    """Run the trace under a policy.

    Args:
        setup: what is replayed. policy: what decides; `setup.policy(name)` makes one by its name.
        progress: called after each tick with the time of the trace, s.
        watch: called at each tick with what the core saw and decided, before it is applied.

    Raises:
        RappError: as `ReplaySetup` and `Core`; checked before anything runs.
    """
    begun = time.perf_counter()
    run = Run(setup, policy, watch)
    for now_s in run.ticks():
        if progress is not None:
            progress(now_s)
    return run.result(time.perf_counter() - begun)


class Run:
    """One replay, tick by tick.

    Args:
        setup, policy, watch: as `replay`.
    """

    def __init__(self, setup: ReplaySetup, policy: Policy, watch: Watch | None = None) -> None:
        self.setup, self.policy, self.watch = setup, policy, watch
        specs, tick_s = setup.specs, setup.settings.tick_s
        self.core = Core(
            specs, setup.plan_times, setup.forecaster, policy, setup.settings, setup.objectives_ms
        )
        most_batch = max(spec.max_batch for spec in specs)
        served = [
            served_function(
                spec,
                setup.objectives_ms[spec.name],
                setup.truth_times[spec.name],
                setup.memory_mib[spec.name],
                most_batch,
            )
            for spec in specs
        ]
        self._lead = math.ceil(max(spec.cold_start_s for spec in specs) / tick_s) + 1
        self.cluster = Cluster(
            served,
            {spec.name: setup.arrivals_of(spec.name) for spec in specs},
            setup.gpus.views(),
            replace(setup.physics, most_batch=most_batch),
            setup.seed,
            start_s=-self._lead * tick_s,
            beside=setup.beside(),
        )
        self._ticks = math.ceil(setup.end_s / tick_s - 1e-9)
        self.series = Series([spec.name for spec in specs], self._ticks)
        self.happened: list[Disturbance] = []
        self._coming = setup.chaos.disturbances(setup.end_s)
        # Crashes have numbers of their own, so that they do not depend on the noise that was used up.
        self._which = np.random.default_rng([setup.seed, 1])
        self._state: dict[str, Any] | None = None

    def ticks(self) -> Iterator[float]:
        """Run to the end, and pause after each tick of the trace: its time, s."""
        tick_s = self.setup.settings.tick_s
        for tick in range(-self._lead, 0):
            self.cluster.run_until(tick * tick_s)
            self._decide()
        self.cluster.run_until(0.0)
        self.cluster.open_account()
        for tick in range(self._ticks):
            end_s = min((tick + 1) * tick_s, self.setup.end_s)
            self._run_until(end_s)
            seen, decision, refused = self._decide()
            self.series.record(tick, seen, decision, refused)
            yield end_s

    def result(self, took_s: float = math.nan) -> ReplayResult:
        """What it came to, once it has run to the end."""
        account = self.cluster.settle()
        slowest_ms = max(
            max([self.setup.objectives_ms[name], *(m * base for m in self.setup.slo_multipliers)])
            for name, base in self.setup.base_ms.items()
        )
        # Costs are those of the trace; what waits gets its time without adding to them.
        self.cluster.account = type(account)()
        self.cluster.run_until(self.setup.end_s + slowest_ms / 1e3)
        return result_of(
            self.setup, self.policy.name, self.cluster.world, account, self.series, self.happened, took_s
        )

    def _decide(self) -> tuple[Observation, Decision, list[tuple[str, str]]]:
        seen = self.cluster.observe()
        if self.setup.chaos.is_blind(seen.now_s):
            seen = _blinded(seen)
        self._state, decision = self.core.step(self._state, seen)
        if self.watch is not None:
            self.watch(seen, decision)
        return seen, decision, self.cluster.apply(decision)

    def _run_until(self, end_s: float) -> None:
        while self._coming and self._coming[0].at_s <= end_s:
            one = self._coming.pop(0)
            self.cluster.run_until(one.at_s)
            self._disturb(one)
        self.cluster.run_until(end_s)

    def _disturb(self, one: Disturbance) -> None:
        if one.fault == Fault.CRASH:
            there = sorted(self.cluster.instances)
            if not there:
                return
            one = replace(one, target=there[int(self._which.integers(len(there)))])
            self.cluster.crash(str(one.target))
        elif one.fault == Fault.GPU_LOST and one.target in self.cluster.gpus:
            self.cluster.lose_gpu(one.target)
        self.happened.append(one)


def _blinded(seen: Observation) -> Observation:
    """What is left when the gateway cannot be asked: the backend's list of instances."""
    instances = tuple(
        replace(one, batches=0, requests=0, run_ms=None, device_ms=None) for one in seen.instances
    )
    return replace(seen, functions={}, instances=instances)
