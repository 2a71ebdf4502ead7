"""What `hybrid` plans for: surprises, what of them is forgiven, the headroom, and the margin."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scaler.forecast.base import Forecast
from scaler.policies import hybrid_demand, hybrid_evenness
from scaler.policies.base import Case

Cases = Callable[..., Case]


def seen(case: Cases, rates: Iterable[float], memory: Any = None, **keys: Any) -> dict[str, Any]:
    """The memory after ticks of 1 s at these rates, of which the one before was forecast each time."""
    found = hybrid_demand.start() if memory is None else memory
    begin = found["at_s"] or 0.0
    before = None
    for second, rate in enumerate(rates, 1):
        expected = Forecast(rate if before is None else before, rate if before is None else before)
        found = hybrid_demand.updated(found, case(rate, soon=expected, **keys), begin + second)
        before = rate
    return found


def of(case: Cases, memory: Any, mean: float, upper: float, **keys: Any) -> hybrid_demand.Demand:
    forecast = Forecast(mean, upper)
    return hybrid_demand.demand(memory, case(mean, forecast=forecast, soon=forecast, **keys))


def test_a_constant_load_has_no_floor(case: Cases) -> None:
    memory = seen(case, [100.0] * 200)
    assert memory["floor"] == 0.0
    assert of(case, memory, 100.0, 100.0).quick == pytest.approx(100.0)


def test_steps_that_come_again_are_kept_ready_for(case: Cases) -> None:
    memory = seen(case, ([100.0] * 20 + [300.0] * 20) * 4)
    low = of(case, memory, 100.0, 100.0)
    assert 250.0 <= low.quick <= 310.0


def test_a_rare_burst_is_forgiven(case: Cases) -> None:
    memory = seen(case, [100.0] * 200 + [115.0, 200.0] + [100.0] * 90)
    # 200 of 29,000 requests are more than 0.3 % of them; at p95 they are not.
    assert memory["floor"] > 150.0
    lenient = seen(case, [100.0] * 200 + [115.0, 200.0] + [100.0] * 90, slo_quantile=0.95)
    assert lenient["floor"] == 0.0


def test_that_requests_come_at_all_is_no_surprise(case: Cases) -> None:
    assert seen(case, [0.0] * 5 + [500.0] * 60)["floor"] == 0.0


def test_a_surprise_is_forgotten(case: Cases) -> None:
    memory = seen(case, [10.0] * 20 + [300.0] * 5 + [10.0] * 20)
    assert memory["floor"] > 200.0
    memory = seen(case, [10.0] * int(2 * hybrid_demand.PERIOD_S + 30), memory)
    assert memory["floor"] == 0.0


def test_silence_forgets_too(case: Cases) -> None:
    memory = seen(case, [10.0] * 20 + [300.0] * 5 + [0.0] * int(3 * hybrid_demand.PERIOD_S))
    assert memory["peak"] == 0.0
    assert of(case, memory, 0.0, 0.0).most == 0.0


def test_a_forecast_that_is_wide_for_bursts_is_not_believed_and_a_mean_is(case: Cases) -> None:
    memory = seen(case, [100.0] * 50)
    wide = of(case, memory, 100.0, 900.0)
    assert wide.ahead == pytest.approx(100.0 + hybrid_demand.POISSON * 10.0)
    assert of(case, memory, 400.0, 410.0).ahead >= 400.0


def test_headroom_shrinks_as_the_load_becomes_known(case: Cases) -> None:
    young, old = (seen(case, [100.0] * seconds) for seconds in (10, 280))
    first, later = (of(case, memory, 100.0, 100.0).most for memory in (young, old))
    assert 1.7 <= first / 100.0 <= 2.0
    assert 1.0 < later / 100.0 < 1.3


def test_a_quota_is_kept_for_some_seconds(case: Cases) -> None:
    memory = seen(case, [100.0] * 30)
    memory = hybrid_demand.updated(memory, case(50.0, soon=Forecast(50.0, 50.0)), 31.0)
    assert of(case, memory, 50.0, 50.0).quick == pytest.approx(100.0)
    memory = hybrid_demand.updated(memory, case(50.0, soon=Forecast(50.0, 50.0)), 33.0)
    assert of(case, memory, 50.0, 50.0).quick == pytest.approx(50.0)


def test_what_waits_beyond_a_batch_for_each_instance_is_a_backlog(case: Cases, member: Any) -> None:
    there = [member("a", batch=4), member("b", batch=4)]
    assert hybrid_demand.backlog_of(case(1.0, there, queue=8)) == 0.0
    assert hybrid_demand.backlog_of(case(1.0, there, queue=28)) == pytest.approx(20.0)


def test_late_answers_raise_the_margin_once_it_is_calm_and_early_ones_lower_it(case: Cases) -> None:
    calm = [50.0] * 60
    late = seen(case, calm, latency_ms=150.0)["margin"]
    early = seen(case, calm, latency_ms=20.0)["margin"]
    assert late > 1.1
    assert hybrid_demand.MARGINS[0] <= early < 1.0
    assert seen(case, calm, latency_ms=95.0)["margin"] == 1.0
    # With a backlog nobody knows why they are late.
    assert seen(case, calm, latency_ms=150.0, queue=100)["margin"] == 1.0


def test_a_margin_above_1_is_given_back_while_answers_are_in_time(case: Cases) -> None:
    raised = seen(case, [50.0] * 60, latency_ms=150.0)
    kept = seen(case, [50.0] * 100, raised, latency_ms=95.0)
    assert 1.0 < kept["margin"] < 0.99 * raised["margin"]
    assert seen(case, [50.0] * 20, kept, latency_ms=150.0)["margin"] > kept["margin"]


def test_late_answers_end_plans_for_even_arrivals_unless_a_surprise_explains_them(case: Cases) -> None:
    even = seen(case, [50.0] * 60, latency_ms=50.0)
    assert even["evenness"]["even"]
    late = seen(case, [50.0] * 2, even, latency_ms=150.0)
    assert not late["evenness"]["even"]
    assert late["evenness"]["doubted_until_s"] > even["at_s"] + 2 * hybrid_demand.CALM_S
    surprised = seen(case, [50.0, 150.0, 150.0], even, latency_ms=50.0)
    surprised = seen(case, [150.0] * 3, surprised, latency_ms=150.0)
    assert surprised["evenness"]["doubted_until_s"] <= surprised["at_s"] + hybrid_evenness.ROUGH_S


@given(rates=st.lists(st.none() | st.floats(0, 2000), max_size=60), queue=st.integers(0, 500))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_comes_rates_are_in_order(case: Cases, rates: list[float | None], queue: int) -> None:
    memory = hybrid_demand.start()
    for second, rate in enumerate(rates):
        soon = Forecast(rate or 0.0, 2 * (rate or 0.0))
        shown = case(rate, soon=soon, forecast=soon, queue=queue)
        memory = hybrid_demand.updated(memory, shown, float(second))
        demand = hybrid_demand.demand(memory, shown)
        assert 0 <= demand.quick <= demand.ahead <= demand.most
        assert memory["floor"] <= memory["peak"] + 1e-9
        assert len(memory["periods"]) <= 2
        assert len(memory["held"]) <= hybrid_demand.HOLD_S + 1
