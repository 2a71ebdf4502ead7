"""Which fleets `hybrid` looks for, and when it goes over to another."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.capacity.plans import DEMAND_STEP, NUMBERS, plan_table
from scaler.gpu import Gpu, Need
from scaler.packing import Pool
from scaler.policies import hybrid_fleets as fleets
from scaler.policies.hybrid_fleets import Fleet, Wanted
from scaler.testing.fleet import times_of
from scaler.testing.policy_loop import function

TABLE = plan_table(times_of(function(max_batch=4)), 120.0, 0.99, 4)
COLD_START_S = 5.0


@given(st.floats(0.1, 300), st.floats(1, 3), st.integers(1, 4), st.sampled_from(fleets.SCARCITIES))
@settings(deadline=None, max_examples=40)
def test_the_cheapest_fleet_suits_and_none_that_suits_is_much_cheaper(
    rps: float, headroom: float, least: int, scarcity: float
) -> None:
    wanted = Wanted(rps, headroom * rps, least, scarcity)
    found = fleets.cheapest(TABLE, wanted, scarcity=scarcity)
    assert found is not None
    assert fleets.suits(TABLE, found, wanted)
    # What is rounded up to find answers again, and what fewer instances are worth.
    allowed = DEMAND_STEP**2 * (1 + 0.005 * found.number) * 1.03
    for number in NUMBERS[:8]:
        for sm_pct in TABLE.sm_pct:
            other = Fleet(number, float(sm_pct))
            rounded = Wanted(rps * DEMAND_STEP, headroom * rps * DEMAND_STEP, least, scarcity)
            if fleets.suits(TABLE, other, rounded):
                assert (
                    fleets.cost(TABLE, found, wanted) <= allowed * fleets.cost(TABLE, other, rounded) + 0.01
                )


def test_scarce_sms_make_for_small_partitions_with_high_quotas() -> None:
    rich, poor = (fleets.cheapest(TABLE, Wanted(40.0, 40.0, 1), scarcity=price) for price in (0.0, 1.0))
    assert rich is not None
    assert poor is not None
    assert poor.number * poor.sm_pct <= rich.number * rich.sm_pct


def test_sms_get_dear_as_gpus_fill() -> None:
    prices = []
    for sm_pct in (10.0, 60.0, 90.0):
        pool = Pool([Gpu("g0", 1e5, 8.0)])
        pool.add("a", "g0", 0, Need(sm_pct, 50.0))
        prices.append(fleets.scarcity(pool))
    assert prices == sorted(prices)
    assert prices[0] == 0.0
    assert prices[-1] == 1.0
    assert fleets.scarcity(Pool([])) == 1.0


def test_an_idle_fleet_has_headroom_for_little_more_than_the_least_cost() -> None:
    nothing = Wanted(fleets.IDLE_RPS, fleets.IDLE_RPS, 1)
    found, first = fleets.idle(TABLE, 1, 0.0), fleets.cheapest(TABLE, nothing)
    assert found is not None
    assert first is not None
    assert fleets.cost(TABLE, found, nothing) <= fleets.IDLE_PRICE * fleets.cost(TABLE, first, nothing)
    assert fleets.most_rps(TABLE, found) >= fleets.most_rps(TABLE, first)


def test_where_nothing_meets_the_objective_there_is_no_fleet() -> None:
    hopeless = plan_table(times_of(function(max_batch=4)), 4.0, 0.99, 4)
    assert fleets.cheapest(hopeless, Wanted(5.0, 5.0, 1)) is None
    assert fleets.idle(hopeless, 1, 0.0) is None
    assert list(fleets.needed(hopeless, None, Wanted(5.0, 5.0, 1), COLD_START_S)) == []


def test_an_exchange_waits_until_it_has_paid() -> None:
    wanted = Wanted(20.0, 20.0, 1)
    better = fleets.cheapest(TABLE, wanted)
    assert better is not None
    now = Fleet(4 * better.number, better.sm_pct)
    saving = fleets.cost(TABLE, now, wanted) - fleets.cost(TABLE, better, wanted)
    price = fleets.price(TABLE, now, better, wanted, COLD_START_S)
    assert saving > 0
    savings: dict[str, float] = {}
    for second in range(1, 2 + math.floor(price / saving)):
        assert fleets.exchange(savings, TABLE, now, wanted, COLD_START_S) == []
        savings = fleets.saved(savings, TABLE, now, [better], wanted, 1.0)
        assert savings[better.name] == pytest.approx(second * saving)
    assert fleets.exchange(savings, TABLE, now, wanted, COLD_START_S) == [better]


def test_a_demand_that_swings_earns_no_exchange() -> None:
    low, high = Wanted(5.0, 5.0, 1), Wanted(150.0, 150.0, 1)
    now = fleets.cheapest(TABLE, high)
    small = fleets.cheapest(TABLE, low)
    assert now is not None
    assert small is not None
    assert not fleets.suits(TABLE, small, high)
    savings: dict[str, float] = {}
    for second in range(200):
        wanted = low if second % 4 < 2 else high
        savings = fleets.saved(savings, TABLE, now, [small], wanted, 1.0)
        assert small not in fleets.exchange(savings, TABLE, now, wanted, COLD_START_S)


def test_names_are_read_back() -> None:
    for fleet in (Fleet(3, 25.0), Fleet(1, 12.5)):
        assert Fleet.named(fleet.name) == fleet
