"""`ReplaySetup`: everything that a replay depends on besides its policy.

setup = ReplaySetup(functions, arrivals, truth, plan, end_s=3600.0)
result = replay(setup, setup.policy("hybrid"))              # scaler.replay.runner
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from rapp.errors import ConfigError
from rapp.profiles import PairTable
from rapp.types import FloatArray
from scaler.arrivals import RateSteps
from scaler.core.observation import GpuView
from scaler.core.settings import Settings
from scaler.forecast.base import Forecaster
from scaler.forecast.kalman import Kalman
from scaler.functions import FunctionSpec
from scaler.policies import registry
from scaler.policies.base import Policy
from scaler.replay.chaos import Chaos
from scaler.replay.physics import Physics
from scaler.sources.base import LatencySource, check_objective, memory_mib
from scaler.sources.scaled import Scaled
from scaler.sources.service_times import ServiceTimes

KNOW_DEMAND = ("static", "oracle")
"""Policies that are told the demand beforehand."""


@dataclass(frozen=True, slots=True)
class Gpus:
    """GPUs of one kind.

    Args:
        count: how many. memory_mib: memory of each for instances, MiB; default a V100 of 16 GiB.
        host_cores: cores that launching on each may keep busy; default 8, a machine of 64 cores and 8 GPUs.
        sm_step_pct: SM partitions are multiples of it, %; 0: any can be had.

    Raises:
        ConfigError: a value out of its range.
    """

    count: int = 4
    memory_mib: float = 16_384.0
    host_cores: float = 8.0
    sm_step_pct: float = 0.0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"{self.count} GPUs: there must be 1 or more")
        for name in ("memory_mib", "host_cores"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} of a GPU is {getattr(self, name):g}: it must be above 0")

    def views(self) -> tuple[GpuView, ...]:
        """They, as gpu-0, gpu-1, ..."""
        return tuple(
            GpuView(f"gpu-{k}", self.memory_mib, self.host_cores, self.sm_step_pct) for k in range(self.count)
        )


@dataclass(frozen=True)
class ReplaySetup:
    """What is replayed. The trace begins at 0 s; before it, the minimum of instances is started.

    Args:
        functions: those served, each name once.
        arrivals: by function: when requests come, s from the begin of the trace, ascending, (A,).
        truth: what execution times are. plan: what the planner believes them to be.
        end_s: length of the trace, s.
        gpus: what there is to run on.
        seed: of the noise, and of which instances crash.
        physics: how the hardware behaves; its `most_batch` is taken from the functions.
        settings: of the core. forecaster: of rates.
        chaos: what goes wrong.
        pairs: how much networks on one GPU slow each other, as measured; pairs without a measurement, and all
            without a table, do by `physics.beside`.
        slo_multipliers: further objectives whose violations are counted, as multiples of the truth's mean
            latency at SM 100 %, quota 100 %, batch 1. The run is steered by each function's own objective.

    Raises:
        ConfigError: arrivals that are not ascending, a value out of its range.
        NoLatencySourceError: a function of which a source knows nothing.
        InfeasibleError: an objective below the function's fastest configuration.
    """

    functions: Sequence[FunctionSpec]
    arrivals: Mapping[str, FloatArray]
    truth: LatencySource
    plan: LatencySource
    end_s: float
    gpus: Gpus = field(default_factory=Gpus)
    seed: int = 0
    physics: Physics = field(default_factory=Physics)
    settings: Settings = field(default_factory=Settings)
    forecaster: Forecaster = field(default_factory=Kalman)
    chaos: Chaos = field(default_factory=Chaos)
    pairs: PairTable | None = None
    slo_multipliers: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.end_s < math.inf:
            raise ConfigError(f"the trace lasts {self.end_s:g} s: it must be above 0")
        names = [spec.name for spec in self.functions]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"functions {', '.join(names) or 'none'}: each name is needed once")
        for one in self.slo_multipliers:
            if not 1 <= one < math.inf:
                raise ConfigError(f"an SLO multiplier is {one:g}: it must be 1 or more")
        for name in names:
            _check_arrivals(name, self.arrivals_of(name), self.end_s)
        self.chaos.check_gpus([gpu.id for gpu in self.gpus.views()])

    def arrivals_of(self, function: str) -> FloatArray:
        """When the requests of a function come, s; it may have none."""
        return self.arrivals.get(function, np.empty(0))

    @cached_property
    def truth_times(self) -> dict[str, ServiceTimes]:
        """By function: execution times as they are."""
        return {spec.name: self.truth.times(spec) for spec in self.functions}

    @cached_property
    def plan_times(self) -> dict[str, ServiceTimes]:
        """By function: execution times as the planner believes them, wrong by the factor of `chaos`."""
        factor = self.chaos.model_factor
        source = self.plan if factor == 1 else Scaled(self.plan, factor)
        if source is self.truth:
            return self.truth_times
        return {spec.name: source.times(spec) for spec in self.functions}

    @cached_property
    def base_ms(self) -> dict[str, float]:
        """By function: true mean latency at SM 100 %, quota 100 %, batch 1, ms."""
        return {name: times.base_ms() for name, times in self.truth_times.items()}

    @cached_property
    def objectives_ms(self) -> dict[str, float]:
        """By function: its own objective, ms, which the truth can meet."""
        own = {}
        for spec in self.functions:
            own[spec.name] = spec.objective_ms(self.base_ms[spec.name])
            check_objective(spec, own[spec.name], self.truth_times[spec.name])
        return own

    @cached_property
    def memory_mib(self) -> dict[str, float]:
        """By function: device memory of one instance, MiB."""
        return {spec.name: memory_mib(spec, self.truth_times[spec.name]) for spec in self.functions}

    def beside(self) -> FloatArray:
        """Factor on the times of a batch of one function beside a busy row of another, (F, F)."""
        networks = [spec.network_name for spec in self.functions]
        table = np.full((len(networks), len(networks)), self.physics.beside)
        if self.pairs is not None:
            for f, network in enumerate(networks):
                for g, other in enumerate(networks):
                    measured = self.pairs.lookup(network, other)
                    table[f, g] = self.physics.beside if measured is None else max(measured, 1.0)
        return table

    @cached_property
    def specs(self) -> tuple[FunctionSpec, ...]:
        """The functions with the memory that they really need, which an operator knows."""
        return tuple(
            spec.model_copy(update={"memory_mib": self.memory_mib[spec.name]}) for spec in self.functions
        )

    @cached_property
    def demand(self) -> dict[str, RateSteps]:
        """By function: the rate that really comes, in steps of 1 s; for policies that know it beforehand."""
        edges_s = np.append(np.arange(math.ceil(self.end_s)), self.end_s).astype(np.float64)
        counts = {spec.name: np.histogram(self.arrivals_of(spec.name), edges_s)[0] for spec in self.functions}
        return {name: RateSteps(edges_s, count / np.diff(edges_s)) for name, count in counts.items()}

    def policy(self, name: str, **options: Any) -> Policy:
        """The policy of this name; one that has to know the demand beforehand is told it.

        Raises:
            ConfigError: there is none, or it has no such option.
        """
        if name in KNOW_DEMAND:
            options = {"demand": self.demand} | options
        return registry.policy(name, **options)

    def check(self) -> None:
        """Work out what `replay` would, so that what cannot be is told before anything runs.

        Raises:
            NoLatencySourceError, InfeasibleError, RappError: as above.
        """
        for spec in self.specs:
            check_objective(spec, self.objectives_ms[spec.name], self.plan_times[spec.name])

    def with_seed(self, seed: int, arrivals: Mapping[str, FloatArray]) -> ReplaySetup:
        """The same with other arrivals and noise; execution times are not worked out again."""
        made = replace(self, seed=seed, arrivals=arrivals)
        for known in ("truth_times", "plan_times", "base_ms", "objectives_ms", "memory_mib", "specs"):
            if known in self.__dict__:
                made.__dict__[known] = self.__dict__[known]
        return made


def _check_arrivals(name: str, arrivals: FloatArray, end_s: float) -> None:
    if len(arrivals) and not (np.isfinite(arrivals).all() and arrivals[0] >= 0 and arrivals[-1] <= end_s):
        raise ConfigError(f"function {name}: arrivals must be times from 0 s to the trace's end, {end_s:g} s")
    if (np.diff(arrivals) < 0).any():
        raise ConfigError(f"function {name}: arrivals are not in the order of time")
