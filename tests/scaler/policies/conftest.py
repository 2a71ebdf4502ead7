"""Functions, instances and GPUs for the tests of policies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from rapp.types import ResourceConfig
from scaler.core.observation import Phase
from scaler.forecast.base import Forecast
from scaler.functions import FunctionSpec
from scaler.gpu import Gpu, Need
from scaler.packing import Pool
from scaler.policies.base import Case, Member
from scaler.sources.constant import ConstantSource

# Device time of every batch at every SM partition, ms: a batch takes 10 ms, under a quota q 10 / q.
DEVICE_MS = 10.0


@pytest.fixture
def member() -> Callable[..., Member]:
    """`member("a", sm, quota, batch)`: an instance, ready for 100 s, in row 0 of the GPU g0."""

    def make(id_: str, sm: float = 30.0, quota: float = 30.0, batch: int = 4, **keys: Any) -> Member:
        given = {"gpu": "g0", "row": 0, "phase": Phase.READY, "since_s": -100.0} | keys
        return Member(id_, config=ResourceConfig(sm, quota, batch), **given)

    return make


@pytest.fixture
def case() -> Callable[..., Case]:
    """`case(rate_rps, members)`: the function `f`; further keys are those of its spec or of the case."""

    def make(rate_rps: float | None = 0.0, members: Sequence[Member] = (), **keys: Any) -> Case:
        own = {key: keys.pop(key) for key in list(keys) if key in FunctionSpec.model_fields}
        spec = FunctionSpec(**{"name": "f", "network": "alpha", "slo_ms": 100.0, "max_batch": 8} | own)
        rest: dict[str, Any] = {
            "slo_ms": spec.slo_ms, "times": ConstantSource(DEVICE_MS).times(spec), "memory_mib": 1000.0,
            "forecast": Forecast(0.0, 0.0), "soon": Forecast(0.0, 0.0), "queue": 0, "in_flight": 0,
            "latency_ms": None, "idle_s": 0.0,
        }  # fmt: skip
        return Case(spec=spec, members=tuple(members), rate_rps=rate_rps, **(rest | keys))

    return make


@pytest.fixture
def pool() -> Callable[..., Pool]:
    """`pool(gpus, members)`: GPUs g0, g1, ... of 16,000 MiB and 8 cores with these instances on them."""

    def make(
        gpus: int = 2, members: Sequence[Member] = (), memory_mib: float = 16_000.0, cores: float = 8.0
    ) -> Pool:
        made = Pool(Gpu(f"g{number}", memory_mib, cores) for number in range(gpus))
        for one in members:
            made.add(one.id, one.gpu, one.row, Need(one.config.sm_pct, one.config.quota_pct, 1000.0, 0.0))
        return made

    return make
