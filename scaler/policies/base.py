"""`Policy`: how many instances, of what size, where.

The core (`scaler.core.step`) observes, reconciles, forecasts and corrects, and hands a policy one case per
function and a pool to try placements on. What the policy answers is checked against the same pool: a policy
cannot overcommit a GPU, whatever it says.

`scaler.testing.PolicyContract` is the test that each policy passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rapp.types import ResourceConfig
from scaler.core.decision import Action
from scaler.core.observation import Phase
from scaler.forecast.base import Forecast
from scaler.functions import FunctionSpec
from scaler.packing import Pool
from scaler.sources.service_times import ServiceTimes

Memory = Mapping[str, Any]
"""What a policy remembers from tick to tick: JSON."""


@dataclass(frozen=True, slots=True)
class Member:
    """A live instance of a function: starting or ready, not draining.

    Args:
        id, gpu, row, config, phase: as observed. since_s: when it entered its phase.
    """

    id: str
    gpu: str
    row: int
    config: ResourceConfig
    phase: Phase
    since_s: float


@dataclass(frozen=True, slots=True)
class Case:
    """One function at one tick.

    Args:
        spec: the function. slo_ms: its objective, ms.
        times: predicted execution times at the risk planned for, corrected by what was observed.
        memory_mib: device memory of one instance, MiB.
        members: its live instances.
        rate_rps: arrivals a second since the last tick; None: not observed.
        forecast: rate at the horizon of a cold start. soon: rate at the horizon of one tick.
        queue, in_flight: requests that wait, and that are in a batch.
        latency_ms: observed quantile of latency, ms; None: no answer.
        idle_s: time since the last request; 0 while some wait.
        lost: instances of it that were lost since the last tick.
    """

    spec: FunctionSpec
    slo_ms: float
    times: ServiceTimes
    memory_mib: float
    members: tuple[Member, ...]
    rate_rps: float | None
    forecast: Forecast
    soon: Forecast
    queue: int
    in_flight: int
    latency_ms: float | None
    idle_s: float
    lost: int = 0


class Policy(Protocol):
    """Chooses the changes of one tick. Pure: the same arguments give the same answer."""

    @property
    def name(self) -> str:
        """Name on the command line and in reports."""

    def start(self) -> Memory:
        """What it remembers before the first tick, and after a restart without a state."""

    def decide(
        self, memory: Memory, now_s: float, cases: Sequence[Case], pool: Pool
    ) -> tuple[Memory, list[Action], Mapping[str, float]]:
        """The changes that it wants, in the order in which room is made before it is used.

        Args:
            memory: what it answered the last time.
            now_s: time of the tick, s.
            cases: the functions that were observed; functions that were not are left as they are.
            pool: what is on the GPUs now, all functions included. The policy may change it as it plans.

        Returns:
            What to remember; the changes, where an instance that is started has an id that `new_id` made;
            and the rate within the objective of what each function will have, requests a second.
        """


def new_id(function: str, now_s: float, number: int) -> str:
    """Name of the `number`-th instance that a tick starts for a function: unique without any memory."""
    return f"{function}-{round(now_s * 1000):x}-{number}"
