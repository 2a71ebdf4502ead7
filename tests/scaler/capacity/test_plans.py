"""Plans: what they promise holds by the table itself, and nothing in it is cheaper."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapp.types import ResourceConfig
from scaler.capacity import plans
from scaler.capacity.plans import NUMBERS, QUOTAS_PCT, PlanTable, plan_table
from scaler.capacity.rate import capacity_rps
from scaler.core.corrected import corrected
from scaler.functions import FunctionSpec
from scaler.sources.service_times import ServiceTimes
from scaler.testing.fleet import times_of

SPEC = FunctionSpec(name="f", network="n", slo_ms=60, max_batch=8)
SLO_MS, QUANTILE = 60.0, 0.99


@pytest.fixture(scope="module")
def times() -> ServiceTimes:
    return times_of(SPEC, 5.0)


@pytest.fixture(scope="module")
def table(times: ServiceTimes) -> PlanTable:
    return plan_table(times, SLO_MS, QUANTILE, 8)


@pytest.mark.parametrize("demand_rps", [0.5, 8.0, 60.0, 450.0, 3000.0])
@pytest.mark.parametrize("scarcity", [0.0, 0.4, 1.0])
def test_the_cheapest_serves_the_demand_and_none_is_cheaper(
    table: PlanTable, demand_rps: float, scarcity: float
) -> None:
    plan = table.cheapest(demand_rps, scarcity)
    assert plan is not None
    assert plan.capacity_rps >= demand_rps
    assert plan.capacity_rps == table.rate_rps(plan.number, plan.config)
    sm, quota = table.sm_pct[:, None, None] / 100, QUOTAS_PCT / 100
    price = sm * (quota + scarcity * (1 - quota))
    least = min(
        float(np.where(table.rates_rps(number) >= demand_rps, number * price, np.inf).min())
        for number in NUMBERS[: 2 + NUMBERS.index(plan.number) + plans.PATIENCE]
        if number in NUMBERS
    )
    own = (
        plan.config.sm_pct
        / 100
        * (plan.config.quota_pct / 100 + scarcity * (1 - plan.config.quota_pct / 100))
    )
    # Demands are rounded up, and an instance more has to save something.
    dearest = least * plans.DEMAND_STEP * (1 + plans.PER_INSTANCE * (plan.number + 1)) + 0.002 * plan.number
    assert plan.number * own <= dearest
    assert scarcity > 0 or plan.gpu_share == pytest.approx(plan.number * own)


def test_the_largest_partition_can_be_limited(table: PlanTable) -> None:
    free, limited = table.cheapest(300.0), table.cheapest(300.0, most_sm_pct=25.0)
    assert free is not None
    assert limited is not None
    assert limited.config.sm_pct <= 25.0
    assert limited.capacity_rps >= 300.0
    assert limited.gpu_share >= free.gpu_share / plans.DEMAND_STEP


@given(
    number=st.integers(1, 12),
    sm_pct=st.sampled_from([10.0, 35.0, 62.5, 100.0]),
    demand_rps=st.floats(0.5, 900),
)
@settings(deadline=None, max_examples=60)
def test_resized_is_the_least_quota_that_serves(number: int, sm_pct: float, demand_rps: float) -> None:
    table = plan_table(times_of(SPEC, 5.0), SLO_MS, QUANTILE, 8)
    plan = table.resized(number, sm_pct, demand_rps)
    assert plan.number == number
    assert plan.config.sm_pct <= sm_pct
    assert plan.capacity_rps == table.rate_rps(number, plan.config)
    every = {
        (quota, batch): table.rate_rps(number, ResourceConfig(plan.config.sm_pct, float(quota), batch))
        for quota in QUOTAS_PCT
        for batch in table.batches
    }
    enough = [quota for (quota, _), rate in every.items() if rate >= demand_rps]
    if enough:
        assert plan.capacity_rps >= demand_rps
        assert plan.config.quota_pct == min(enough)
        at_that = [rate for (quota, _), rate in every.items() if quota == min(enough)]
        assert plan.capacity_rps == max(at_that)
    else:
        assert plan.capacity_rps == max(every.values())


def test_resized_within_what_the_row_gives(table: PlanTable) -> None:
    plan = table.resized(2, 30.0, 1e6, most_quota_pct=37.5)
    assert plan.config.quota_pct <= 37.0
    assert plan.capacity_rps < 1e6


def test_rates_between_the_knots_are_those_of_the_model(table: PlanTable, times: ServiceTimes) -> None:
    device, _ = times.device_and_host_ms(table.sm_pct[:, None], np.arange(1, 9))
    pace = times.execution_ms(table.sm_pct[:, None], np.arange(1, 9))
    for number in (1, 4):
        for b, batch in enumerate(table.batches):
            exact = capacity_rps(
                device[:, None, :batch], pace[:, None, :batch], QUOTAS_PCT / 100, number, SLO_MS, QUANTILE
            )
            found = table.rates_rps(number)[:, b]
            # Times were rounded up by at most 2 %, and rates are straight between quotas: little above, most
            # where a rate jumps between two of them, and below where it sets in.
            assert (found <= 1.03 * exact + 0.02 * exact.max()).all()
            usual = exact > 0.2 * exact.max()
            assert np.median((found / np.maximum(exact, 1e-9))[usual]) > 0.93


def test_a_configuration_off_the_axes_counts_as_the_next_smaller_one(table: PlanTable) -> None:
    on = table.rate_rps(3, ResourceConfig(35.0, 40.0, 4))
    assert on > 0
    assert table.rate_rps(3, ResourceConfig(37.5, 40.6, 5)) == table.rate_rps(
        3, ResourceConfig(35.0, 40.0, 4)
    )
    assert table.rate_rps(0, ResourceConfig(35.0, 40.0, 4)) == 0.0
    assert table.rate_rps(3, ResourceConfig(1.0, 40.0, 4)) == 0.0
    assert table.rate_rps(3, ResourceConfig(35.0, 0.5, 4)) == 0.0


def test_more_instances_than_the_table_has_count_as_parts(table: PlanTable) -> None:
    most = NUMBERS[-1]
    np.testing.assert_allclose(table.rates_rps(3 * most), 3 * table.rates_rps(most), rtol=1e-6)
    assert (table.rates_rps(most + 6) >= table.rates_rps(most // 2) * 1.9).all()


def test_what_cannot_be_met_has_no_plan(times: ServiceTimes) -> None:
    assert plan_table(times, 0.8 * times.base_ms(), QUANTILE, 8).cheapest(1.0) is None
    assert plan_table(times, SLO_MS, QUANTILE, 8).cheapest(1e9) is None


def test_small_corrections_share_a_table_and_large_ones_do_not(times: ServiceTimes) -> None:
    def of(factor: float) -> PlanTable:
        slower = corrected(times, device_factor=factor, pace_factor=factor, spread=0.0)
        return plan_table(slower, SLO_MS, QUANTILE, 8)

    assert of(1.0) is of(1.0)
    tables = [of(factor) for factor in (1.0, 1.001, 1.002, 1.003)]
    assert len({id(one) for one in tables}) <= 2
    assert of(1.3) is not of(1.0)
    before, after = of(1.0).cheapest(100.0), of(1.3).cheapest(100.0)
    assert before is not None
    assert after is not None
    assert after.gpu_share > 1.1 * before.gpu_share


def test_half_the_times_and_half_the_objective_serve_twice_as_much() -> None:
    fast, slow = times_of(SPEC, 4.0), times_of(SPEC, 8.0)
    # Host times and the window do not scale along: a network that waits for neither.
    rates = [
        plan_table(of, slo, QUANTILE, 8).rate_rps(2, ResourceConfig(50.0, 100.0, 4))
        for of, slo in ((fast, 60.0), (slow, 120.0))
    ]
    assert rates[0] == pytest.approx(2 * rates[1], rel=0.04)
