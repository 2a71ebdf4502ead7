"""Plans for even arrivals: never dearer than for Poisson ones, and what they promise holds when simulated."""

from __future__ import annotations

import numpy as np
import pytest

from scaler.capacity.even import FULL, MOST, even_table
from scaler.capacity.plans import QUOTAS_PCT, PlanTable, plan_table
from scaler.functions import FunctionSpec
from scaler.testing.fleet import times_of

SPEC = FunctionSpec(name="f", network="n", slo_ms=60, max_batch=8)
NUMBERS = (1, 3, 16)


@pytest.fixture(scope="module")
def poisson() -> PlanTable:
    return plan_table(times_of(SPEC, 5.0), 60.0, 0.99, 8)


@pytest.mark.parametrize("number", NUMBERS)
def test_rates_are_at_least_those_of_poisson_arrivals_and_bounded(poisson: PlanTable, number: int) -> None:
    even, other = even_table(poisson).rates_rps(number), poisson.rates_rps(number)
    assert (even >= other).all()
    assert (even <= MOST * other * (1 + 1e-6)).all()
    assert (even > other).any()
    assert (np.diff(even.max(axis=1), axis=-1) >= -1e-3).all()


def test_a_smaller_part_lies_in_between(poisson: PlanTable) -> None:
    whole, part, other = (
        table.rates_rps(2) for table in (even_table(poisson), even_table(poisson, 0.8), poisson)
    )
    assert (part <= whole).all()
    assert (part >= other).all()
    assert even_table(poisson, 0.8) is even_table(poisson, 0.81)


def test_a_single_instance_is_planned_up_to_a_part_of_its_throughput(poisson: PlanTable) -> None:
    s, q = len(poisson.sm_pct) - 1, 49
    service_ms = max(float(poisson._pace_ms[s, 0]), float(poisson._device_ms[s, 0]) * 100 / QUOTAS_PCT[q])
    rates = even_table(poisson).rates_rps(1)[s, :, q], poisson.rates_rps(1)[s, :, q]
    allowed = np.maximum(np.minimum(FULL * 1e3 / service_ms, MOST * rates[1]), rates[1])
    assert rates[0] == pytest.approx(allowed, rel=1e-5)


@pytest.mark.parametrize("demand_rps", [2.0, 20.0, 80.0])
def test_the_same_instances_need_less_quota_or_as_much(poisson: PlanTable, demand_rps: float) -> None:
    even = even_table(poisson)
    for sm_pct in (10.0, 50.0):
        plans = even.resized(2, sm_pct, demand_rps), poisson.resized(2, sm_pct, demand_rps)
        assert plans[0].config.quota_pct <= plans[1].config.quota_pct
    assert even.resized(2, 50.0, 20.0).config.quota_pct < poisson.resized(2, 50.0, 20.0).config.quota_pct
