"""The fluid lower bound: below every replay that meets its objective, and attained where nothing waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapp.errors import InfeasibleError
from rapp.latency_model import LatencyModel
from rapp.types import ResourceConfig
from scaler.arrivals import ArrivalProcess, RateSteps
from scaler.bound import cheapest_request, fluid_gpu_seconds, tail_gpu_share
from scaler.core.decision import Action, Reason
from scaler.errors import QuotaSemanticsError
from scaler.functions import FunctionSpec
from scaler.packing import Pool
from scaler.policies.base import Case, Memory, Policy
from scaler.policies.changes import Changes
from scaler.replay.physics import Physics
from scaler.replay.result import ReplayResult
from scaler.replay.runner import replay
from scaler.replay.setup import ReplaySetup
from scaler.sources.service_times import Gate, ServiceTimes
from scaler.sources.tabled import TabledModel
from scaler.testing.policy_loop import function
from scaler.trace import Trace

QUIET = Physics(run_noise=0.0, process_noise=0.0, beside=1.0)


@dataclass(frozen=True)
class Source:
    """One table for all functions."""

    table: ServiceTimes
    name: str = "closed form"

    def times(self, function: FunctionSpec) -> ServiceTimes:
        return self.table

    def model(self, function: FunctionSpec) -> LatencyModel:
        return TabledModel(self.table)


@dataclass(frozen=True)
class One:
    """An instance that is started and left alone."""

    config: ResourceConfig
    name: str = "one"

    def start(self) -> Memory:
        return {}

    def decide(
        self, memory: Memory, now_s: float, cases: Sequence[Case], pool: Pool
    ) -> tuple[Memory, list[Action], Mapping[str, float]]:
        changes = Changes(cases[0], now_s, pool)
        if not cases[0].members:
            changes.start(self.config, Reason.MINIMUM)
        return {}, changes.actions, {}


def times(work_ms: float = 6.0, fixed: float = 0.4, host_ms: float = 1.5, gain: float = 0.9) -> ServiceTimes:
    """D = work (fixed + (1 - fixed) n) / share^gain: with a gain below 1 small partitions cost less."""
    sm_pct, batch = np.arange(5.0, 101.0, 5.0), np.array([1.0, 2.0, 4.0, 8.0])
    device = work_ms * (fixed + (1 - fixed) * batch[None]) * (100.0 / sm_pct[:, None]) ** gain
    upper = np.ones_like(device)
    return ServiceTimes("net", "closed form", sm_pct, batch, device, np.full_like(device, host_ms), upper)


def replayed(table: ServiceTimes, rps: float, policy: str | Policy, slo_ms: float) -> ReplayResult:
    spec = function(slo_ms=slo_ms, memory_mib=500.0)
    process = ArrivalProcess.POISSON if isinstance(policy, str) else ArrivalProcess.EVEN
    trace = Trace.of_rates([rps] * 40)
    setup = ReplaySetup(
        [spec], trace.arrivals(["f"], process), Source(table), Source(table), 40.0, physics=QUIET
    )
    return replay(setup, setup.policy(policy) if isinstance(policy, str) else policy)


@given(
    rps=st.floats(20, 800),
    policy=st.sampled_from(["static", "oracle", "fast-gshare-best", "whole-gpu", "has-gpu"]),
    gain=st.floats(0.5, 1.0),
    fixed=st.floats(0.0, 0.8),
    slo_ms=st.sampled_from([30.0, 80.0, 300.0]),
)
@settings(deadline=None, max_examples=8)
def test_no_replay_that_meets_its_objective_costs_less(
    rps: float, policy: str, gain: float, fixed: float, slo_ms: float
) -> None:
    table = times(gain=gain, fixed=fixed)
    total = replayed(table, rps, policy, slo_ms).total
    if total.violation_share <= 0.01:
        # 1 % may be turned away; buckets are full when the account begins: 40 ms of 40 s.
        bound = fluid_gpu_seconds(table, slo_ms, 8, total.arrivals, 0.99)
        assert total.gpu_seconds >= bound * (1 - 0.001)


def test_an_instance_that_never_idles_attains_it() -> None:
    table = times(fixed=0.0)
    best = cheapest_request(table, 100.0, 8)
    assert best.execution_ms <= 100.0
    # Without a gain by batches single requests one after another are the cheapest.
    device_ms, _ = table.device_and_host_ms(best.sm_pct, 1)
    pace_ms = float(table.execution_ms(best.sm_pct, 1))
    one = One(ResourceConfig(best.sm_pct, 100.0 * float(device_ms) / pace_ms, 1))
    total = replayed(table, 1e3 / pace_ms * 0.999, one, 100.0).total
    assert total.violations == 0
    bound = fluid_gpu_seconds(table, 100.0, 8, total.arrivals)
    assert total.gpu_seconds == pytest.approx(bound, rel=0.02)


@given(slo_ms=st.floats(8, 500), more=st.floats(1, 5), gain=st.floats(0.5, 1.0), max_batch=st.integers(1, 8))
@settings(deadline=None, max_examples=50)
def test_a_longer_objective_and_a_larger_batch_never_cost_more(
    slo_ms: float, more: float, gain: float, max_batch: int
) -> None:
    table = times(gain=gain)
    before = cheapest_request(table, slo_ms, max_batch).gpu_s
    assert cheapest_request(table, slo_ms * more, max_batch).gpu_s <= before
    assert cheapest_request(table, slo_ms, max_batch + 1).gpu_s <= before
    slower = replace(table, device_ms=table.device_ms * 1.1)
    assert cheapest_request(slower, slo_ms, max_batch).gpu_s >= before


def test_no_configuration_on_or_between_the_axes_is_cheaper() -> None:
    table, slo_ms = times(gain=0.7), 47.0
    best = cheapest_request(table, slo_ms, 8)
    rng = np.random.default_rng(0)
    for _ in range(300):
        sm_pct, batch = float(rng.integers(1, 101)), int(rng.integers(1, 9))
        if table.execution_ms(sm_pct, batch) <= slo_ms:
            device_ms, _ = table.device_and_host_ms(sm_pct, batch)
            assert sm_pct / 100 * float(device_ms) / batch / 1e3 >= best.gpu_s - 1e-12


def test_it_is_proportional_to_the_requests() -> None:
    assert fluid_gpu_seconds(times(), 50.0, 8, 300) == pytest.approx(
        3 * fluid_gpu_seconds(times(), 50.0, 8, 100)
    )


def test_an_objective_that_nothing_meets_names_the_fastest() -> None:
    with pytest.raises(InfeasibleError, match=r"no batch is executed within 2 ms, the fastest takes 6\."):
        cheapest_request(times(), 2.0, 8)


def test_quotas_that_gate_launches_have_no_bound() -> None:
    gate = Gate(np.array([10.0, 100.0]), np.ones((20, 2, 4)))
    with pytest.raises(QuotaSemanticsError, match="gates launches"):
        cheapest_request(replace(times(), gate=gate), 50.0, 8)


def test_the_tail_costs_more_than_the_bound_and_less_so_at_a_high_rate() -> None:
    table, ratios = times(), []
    for rps in (5.0, 50.0, 500.0):
        load = RateSteps(np.array([0.0, 60.0]), np.array([rps]))
        share = tail_gpu_share(table, 60.0, 0.99, 8, load)
        assert share is not None
        ratios.append(share * 60 / fluid_gpu_seconds(table, 60.0, 8, 60 * rps))
    assert ratios[0] > ratios[1] > ratios[2] > 1
    assert tail_gpu_share(table, 5.0, 0.99, 8, RateSteps(np.array([0.0, 1.0]), np.array([9.0]))) is None
