"""A policy and a fleet that obeys it, tick by tick: what `PolicyContract` is built on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scaler.core.checking import Checker, check
from scaler.core.corrected import CorrectedTimes, corrected
from scaler.core.decision import Action, Decision
from scaler.core.reconcile import Fleet as Reconciled
from scaler.core.reconcile import Served, reconcile
from scaler.core.settings import Settings
from scaler.core.state import CoreState
from scaler.forecast.base import Forecast
from scaler.functions import FunctionSpec
from scaler.policies.base import Case, Memory, Policy
from scaler.testing.fleet import Fleet, gpus, times_of

SETTINGS = Settings()


@dataclass(frozen=True, slots=True)
class Demand:
    """What a policy is told of one function.

    Args:
        mean_rps: forecast. upper_rps: its quantile; None: the mean. queue: requests that wait.
        idle_s: time since the last request, s. lost: instances lost.
    """

    mean_rps: float
    upper_rps: float | None = None
    queue: int = 0
    idle_s: float = 0.0
    lost: int = 0

    @property
    def forecast(self) -> Forecast:
        """As a forecaster would say it."""
        return Forecast(self.mean_rps, self.mean_rps if self.upper_rps is None else self.upper_rps)


@dataclass(slots=True)
class Loop:
    """A policy and a fleet that obeys it.

    Args:
        policy: the one under test. functions: served. gpus: how many there are.
        memory: of the policy. history: the changes of each tick. dropped: those that could not be made.
        capacity: what the policy answered last.
    """

    policy: Policy
    functions: Sequence[FunctionSpec]
    gpus: int = 4
    fleet: Fleet = field(init=False)
    served: dict[str, Served] = field(init=False)
    times: dict[str, CorrectedTimes] = field(init=False)
    memory: Memory = field(init=False)
    history: list[list[Action]] = field(default_factory=list)
    dropped: list[tuple[Action, str]] = field(default_factory=list)
    capacity: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        times = {spec.name: times_of(spec) for spec in self.functions}
        self.served = {
            spec.name: Served(spec, times[spec.name], spec.objective_ms(times[spec.name].base_ms()), 1500.0)
            for spec in self.functions
        }
        self.fleet = Fleet(self.functions, gpus(self.gpus), times)
        self.memory = self.policy.start()
        self.times = {
            name: corrected(one, device_factor=1.0, pace_factor=1.0, spread=1.0)
            for name, one in times.items()
        }

    def cases(self, demand: Mapping[str, Demand]) -> tuple[list[Case], Reconciled]:
        """What the policy is shown, and the pool beside it."""
        seen = self.fleet.observe(dict.fromkeys(self.served, 0))
        there = reconcile(CoreState(), seen, self.served, SETTINGS)
        return [
            Case(
                spec=self.served[name].spec,
                slo_ms=self.served[name].slo_ms,
                times=self.times[name],
                memory_mib=1500.0,
                members=tuple(there.members.get(name, ())),
                rate_rps=one.mean_rps,
                forecast=one.forecast,
                soon=one.forecast,
                queue=one.queue,
                in_flight=0,
                latency_ms=None,
                idle_s=one.idle_s,
                lost=one.lost,
            )
            for name, one in demand.items()
        ], there

    def tick(self, demand: Mapping[str, Demand], count: int = 1) -> None:
        """Ticks of 1 s under the same demand."""
        for _ in range(count):
            cases, there = self.cases(demand)
            checker = Checker.of(there, self.served, set(demand))
            answer = self.policy.decide(self.memory, self.fleet.now_s, cases, there.pool.copy())
            self.memory, wanted, self.capacity = answer
            kept, dropped = check(wanted, checker, SETTINGS.most_actions)
            self.history.append(kept)
            self.dropped += dropped
            self.fleet.apply(Decision(tuple(kept)))
            self.fleet.advance(1.0)

    def instances(self, function: str) -> int:
        """How many instances the function has."""
        return sum(one.function == function for one in self.fleet.instances.values())


def function(name: str = "f", **changes: object) -> FunctionSpec:
    """A function whose single requests take 8 ms at best, under an objective of 300 ms."""
    given: dict[str, object] = {"name": name, "network": name, "slo_ms": 300.0, "cold_start_s": 2.0}
    return FunctionSpec.model_validate(given | changes)
