"""Setups of replays whose execution times are in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from rapp.latency_model import LatencyModel
from scaler.functions import FunctionSpec
from scaler.replay.setup import Gpus, ReplaySetup
from scaler.sources.service_times import ServiceTimes
from scaler.sources.tabled import TabledModel
from scaler.testing.fleet import times_of
from scaler.testing.policy_loop import function


@dataclass(frozen=True, slots=True)
class ClosedForm:
    """D = 8 ms x (0.4 + 0.6 n) / SM share and H = 1.5 ms for every network."""

    name: str = "closed form"

    def model(self, function: FunctionSpec) -> LatencyModel:
        return TabledModel(self.times(function))

    def times(self, function: FunctionSpec) -> ServiceTimes:
        return times_of(function)


@pytest.fixture
def setup_of() -> Callable[..., ReplaySetup]:
    """`setup_of(rates, end_s=..., specs=..., **changes)`: Poisson arrivals at a rate for each function."""

    def made(
        rates: Sequence[float] = (40.0,),
        end_s: float = 40.0,
        specs: Sequence[FunctionSpec] | None = None,
        arrivals_seed: int = 5,
        **changes: Any,
    ) -> ReplaySetup:
        listed = specs or [function(f"f{k}", slo_ms=120.0) for k in range(len(rates))]
        rng = np.random.default_rng(arrivals_seed)
        arrivals = {
            spec.name: np.sort(rng.uniform(0, end_s, rng.poisson(rate * end_s)))
            for spec, rate in zip(listed, rates, strict=True)
        }
        given: dict[str, Any] = {"truth": ClosedForm(), "plan": ClosedForm(), "gpus": Gpus(2)} | changes
        return ReplaySetup(functions=listed, arrivals=arrivals, end_s=end_s, **given)

    return made
