"""Instances of unlike configurations: laws, and the rate against a replay of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapp.types import ResourceConfig
from scaler.capacity.fleet import Share, fleet_rate_rps, least_quotas, most_rate_rps
from scaler.capacity.plans import PlanTable, plan_table
from scaler.testing.fleet import times_of
from scaler.testing.policy_loop import function

SPEC = function(max_batch=4)
TABLE: PlanTable = plan_table(times_of(SPEC), 120.0, 0.99, 4)

configs = st.builds(
    ResourceConfig, st.sampled_from([10.0, 25.0, 50.0]), st.sampled_from([20.0, 55.0, 100.0]),
    st.sampled_from([1, 2, 4]),
)  # fmt: skip
shares = st.builds(Share, st.sampled_from([10.0, 25.0, 50.0]), st.sampled_from([7.0, 30.0, 64.5, 100.0]))


@pytest.mark.parametrize("number", [1, 2, 5])
def test_like_instances_have_the_rate_of_the_table(number: int) -> None:
    config = ResourceConfig(25.0, 60.0, 2)
    assert fleet_rate_rps(TABLE, [config] * number) == pytest.approx(TABLE.rate_rps(number, config))


def test_no_instance_serves_nothing() -> None:
    assert fleet_rate_rps(TABLE, []) == 0.0
    assert most_rate_rps(TABLE, []) == 0.0
    assert least_quotas(TABLE, [], 5.0) == ([], 0.0)


@given(st.lists(configs, min_size=1, max_size=6), configs)
@settings(deadline=None, max_examples=60)
def test_one_more_instance_never_serves_less_and_their_order_does_not_matter(
    there: list[ResourceConfig], more: ResourceConfig
) -> None:
    before = fleet_rate_rps(TABLE, there)
    assert fleet_rate_rps(TABLE, there[::-1]) == pytest.approx(before)
    # Within what the table is interpolated over the number of servers.
    assert fleet_rate_rps(TABLE, [*there, more]) >= 0.98 * before


@given(st.lists(shares, min_size=1, max_size=6), st.floats(0.1, 400))
@settings(deadline=None, max_examples=80)
def test_least_quotas_serve_the_demand_and_one_step_less_does_not(
    there: list[Share], demand_rps: float
) -> None:
    found, served_rps = least_quotas(TABLE, there, demand_rps)
    most = most_rate_rps(TABLE, there)
    served = fleet_rate_rps(TABLE, found)
    assert served_rps == pytest.approx(served)
    for share, config in zip(there, found, strict=True):
        assert config.sm_pct == share.sm_pct
        assert config.quota_pct <= share.most_quota_pct
    if demand_rps > most:
        assert served == pytest.approx(most, rel=1e-5)
        return
    assert served >= demand_rps * (1 - 1e-6)
    level = max(config.quota_pct for config in found)
    if level > 1:
        capped = [Share(share.sm_pct, min(share.most_quota_pct, level - 1)) for share in there]
        assert most_rate_rps(TABLE, capped) < demand_rps


def test_an_instance_that_is_too_slow_alone_adds_nothing() -> None:
    fast, slow = ResourceConfig(50.0, 100.0, 1), ResourceConfig(5.0, 1.0, 1)
    two = TABLE.rate_rps(2, fast)
    assert TABLE.rate_rps(2, slow) == 0.0
    assert fleet_rate_rps(TABLE, [fast, slow]) == pytest.approx(two / 2)


@pytest.mark.parametrize("unlike", [(25.0, 50.0), (20.0, 30.0)])
def test_the_rate_of_unlike_instances_keeps_the_objective(unlike: tuple[float, float]) -> None:
    """One queue before servers of two speeds, each request to the idle one that answers first."""
    there = [ResourceConfig(sm_pct, 100.0, 1) for sm_pct in unlike for _ in range(2)]
    rate = fleet_rate_rps(TABLE, there)
    times = times_of(SPEC)
    service = [float(times.execution_ms(config.sm_pct, 1)) for config in there]
    rng = np.random.default_rng(0)
    latency = _queue(np.cumsum(rng.exponential(1e3 / rate, 60_000)), service)
    late = np.mean(latency > 120.0)
    # The table holds noise of execution that is left out here: fewer are late, but not by orders.
    assert late <= 0.012


def _queue(arrivals_ms: np.ndarray, service_ms: list[float]) -> np.ndarray:
    free = np.zeros(len(service_ms))
    order = np.argsort(service_ms)
    latency = np.empty(len(arrivals_ms))
    for number, at in enumerate(arrivals_ms):
        idle = [i for i in order if free[i] <= at]
        server = idle[0] if idle else int(np.argmin(free))
        free[server] = max(free[server], at) + service_ms[server]
        latency[number] = free[server] - at
    return latency


def test_where_nothing_meets_the_objective_all_the_quota_is_given() -> None:
    hopeless = plan_table(times_of(function(max_batch=4)), 4.0, 0.99, 4)
    shares = [Share(20.0, 60.0), Share(20.0)]
    assert most_rate_rps(hopeless, shares) == 0.0
    assert [one.quota_pct for one in least_quotas(hopeless, shares, 5.0).configs] == [60.0, 100.0]
    assert hopeless.resized(2, 20.0, 5.0, most_quota_pct=60.0).config.quota_pct == 60.0
