"""`Oracle`: the contract, that it acts ahead of the demand, and that its fleets are the cheapest."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapp.errors import ConfigError
from scaler.arrivals import RateSteps
from scaler.capacity.plans import PlanTable
from scaler.core.corrected import corrected
from scaler.core.decision import Resize, Start
from scaler.gpu import Gpu, Need
from scaler.packing import Pool
from scaler.policies import oracle_room
from scaler.policies.base import Policy
from scaler.policies.oracle import Oracle
from scaler.policies.oracle_fleets import (
    Fleet,
    Limits,
    _switch,
    candidates,
    fleet_cost,
    oracle_table,
    peaks,
    schedule,
)
from scaler.policies.oracle_shares import Share
from scaler.testing import PolicyContract
from scaler.testing.policy_loop import Demand, Loop, function

LIMITS = Limits(least=1, share=Share(gpus=8.0, instances=80), cold_start_s=2.0)


def load(*rps: float, step_s: float = 10.0) -> RateSteps:
    return RateSteps(step_s * np.arange(len(rps) + 1), np.array(rps))


def rising(low: float, high: float) -> RateSteps:
    """Over 120 s."""
    return load(*np.geomspace(low, high, 40), step_s=3.0)


class TestContract(PolicyContract):
    """Under a demand that lasts it does not go to zero, and follows no forecast."""

    scales_to_zero = False
    follows_demand = False

    @pytest.fixture
    def policy(self) -> Policy:
        return Oracle({name: load(60, step_s=1000.0) for name in ("f", "f0", "f1", "f2")})


class TestContractWithoutDemand(PolicyContract):
    """Where nothing comes it waits as long as the function says."""

    follows_demand = False
    test_it_is_pure_and_cannot_overcommit = None  # as above, and takes seconds

    @pytest.fixture
    def policy(self) -> Policy:
        return Oracle({name: load(0, step_s=1000.0) for name in ("f", "f0", "f1", "f2")})


def table() -> PlanTable:
    loop = Loop(Oracle({}), [function()])
    return oracle_table(loop.cases({"f": Demand(0.0)})[0][0], 0.99)


def test_instances_are_ready_before_a_burst_and_quota_is_there_when_it_comes() -> None:
    rates = load(*[10] * 30, *[400] * 30, *[10] * 60, step_s=1.0)
    loop = Loop(Oracle({"f": rates}), [function()], gpus=8)
    for second in range(120):
        demand = {"f": Demand(0.0)}
        loop.tick(demand)
        served = _served_now(loop)
        if second > 6:
            assert served >= 0.999 * rates.rps[second], second
    first = next(n for n, tick in enumerate(loop.history[7:], 7) if any(isinstance(a, Start) for a in tick))
    # The cold start takes 2 s: not later than 2 s before, and not so early that it costs.
    assert 24 <= first <= 28


def test_after_a_burst_it_gives_back() -> None:
    rates = load(*[400] * 20, *[10] * 200, step_s=1.0)
    loop = Loop(Oracle({"f": rates}), [function()], gpus=8)
    shares = []
    for _ in range(60):
        loop.tick({"f": Demand(0.0)})
        shares.append(sum(one.config.gpu_share for one in loop.fleet.instances.values()))
    assert shares[-1] < 0.2 * shares[10]


def test_where_the_peak_is_too_much_instances_still_have_a_row_each() -> None:
    loop = Loop(Oracle({"f": rising(60, 200)}), [function(slo_ms=60)], gpus=1)
    for _ in range(118):
        loop.tick({"f": Demand(0.0)})
        rows = [(one.gpu, one.row) for one in loop.fleet.instances.values()]
        assert len(rows) == len(set(rows))


def test_it_does_not_settle_on_a_fleet_that_leaves_no_room_for_the_one_of_the_peak() -> None:
    loop = Loop(Oracle({"f": rising(60, 200)}), [function(slo_ms=40)], gpus=2)
    loop.tick({"f": Demand(0.0)}, 118)
    plans = oracle_table(loop.cases({"f": Demand(0.0)})[0][0], 0.99)
    # Two rows of 100 % serve more than any others on two GPUs.
    assert loop.capacity["f"] == pytest.approx(float(plans.rates_rps(2).max()))


def test_where_nothing_meets_the_objective_it_gives_the_whole_quota_and_full_batches() -> None:
    loop = Loop(Oracle({"f": load(40, step_s=100.0)}), [function(slo_ms=60)], gpus=1)
    loop.tick({"f": Demand(0.0)}, 8)
    loop.times["f"] = corrected(loop.times["f"].plain, device_factor=20.0, pace_factor=20.0, spread=1.0)
    loop.tick({"f": Demand(0.0)}, 3)
    configs = [one.config for one in loop.fleet.instances.values()]
    assert [(config.quota_pct, config.batch) for config in configs] == [(100.0, 8)]


def test_fleets_within_the_limits_are_found_where_the_cheapest_of_all_needs_more() -> None:
    plans, demand = table(), 200.0
    free = plans.cheapest(demand)
    assert free is not None
    for gpus, instances in ((8.0, 80), (2.0, 80), (8.0, free.number - 1)):
        limits = Limits(1, Share(gpus, instances), 2.0)
        fleets = candidates(plans, np.array([demand]), limits)
        assert all(0 < fleet.number <= limits.most(fleet.sm_pct) for fleet in fleets)
        assert any(plans.resized(one.number, one.sm_pct, demand).capacity_rps >= demand for one in fleets)


def test_fleets_side_by_side() -> None:
    limits = Limits(1, Share(gpus=2.0, instances=5), 2.0)
    assert limits.hold(None, Fleet(4, 50.0))
    assert limits.hold(Fleet(4, 50.0), Fleet(2, 50.0))
    assert limits.hold(Fleet(2, 35.0), Fleet(2, 50.0))
    assert not limits.hold(Fleet(3, 35.0), Fleet(2, 50.0))
    assert not limits.hold(Fleet(5, 10.0), Fleet(1, 50.0))


def test_what_may_be_late_may_cost_less() -> None:
    costs = []
    for late in (0.001, 0.01, 0.1):
        loop = Loop(Oracle({"f": load(100, step_s=500.0)}, {"f": late}), [function()], gpus=8)
        loop.tick({"f": Demand(0.0)}, 20)
        costs.append(sum(one.config.gpu_share for one in loop.fleet.instances.values()))
    assert costs[0] > costs[1] > costs[2]


def test_a_share_of_violations_is_a_share() -> None:
    with pytest.raises(ConfigError, match=r"violations of f: 1.5 must lie in \[0, 1\]"):
        Oracle({}, {"f": 1.5})


def test_a_function_whose_demand_is_not_known_is_refused_by_name() -> None:
    loop = Loop(Oracle({}), [function()])
    with pytest.raises(ConfigError, match="policy oracle needs to know the demand of f"):
        loop.tick({"f": Demand(1.0)})


def test_smaller_quotas_come_before_larger_ones() -> None:
    up, down = load(*[20] * 20, *[200] * 20, step_s=1.0), load(*[200] * 20, *[20] * 20, step_s=1.0)
    loop = Loop(Oracle({"f": up, "g": down}), [function(), function("g")], gpus=1)
    for _ in range(40):
        loop.tick({"f": Demand(0.0), "g": Demand(0.0)})
        kinds = [action for action in loop.history[-1] if isinstance(action, Resize)]
        ups = [action.reason.name == "DEMAND_UP" for action in kinds]
        assert ups == sorted(ups)
    assert loop.dropped == []


@given(rates=st.lists(st.sampled_from([40.0, 90.0]), min_size=1, max_size=4))
@settings(deadline=None, max_examples=10)
def test_no_sequence_of_its_fleets_costs_less_than_the_programme_says(rates: list[float]) -> None:
    plans, demand = table(), load(*rates, step_s=1.0)
    made = schedule(plans, demand, LIMITS)
    paid = _switch(made.fleets, made.fleets) * 2.0
    best = min(
        sum(made.cost[t, f] for t, f in enumerate(path))
        + sum(
            paid[a, b] * made.cost[t + 1, b] + 0.02 * (a != b)
            for t, (a, b) in enumerate(itertools.pairwise(path))
        )
        for path in itertools.product(range(len(made.fleets)), repeat=len(rates))
    )
    assert made.value[0].min() == pytest.approx(best)


def test_a_fleet_costs_what_its_least_quota_says() -> None:
    plans = table()
    for fleet in candidates(plans, np.array([5.0, 80.0, 300.0]), LIMITS):
        for rate in (5.0, 80.0):
            plan = plans.resized(fleet.number, fleet.sm_pct, rate)
            if plan.capacity_rps >= rate:
                cost = fleet_cost(plans, fleet, np.array([rate]))[0]
                assert cost == pytest.approx(plan.gpu_share)
    short = fleet_cost(plans, Fleet(1, 5.0), np.array([1e4]))[0]
    assert short > 100


def test_peaks_are_the_largest_rates_of_their_time() -> None:
    steps = load(5, 200, 7)
    assert peaks(steps, np.arange(0.0, 31.0, 5.0)).tolist() == [5, 5, 200, 200, 7, 7]
    assert peaks(steps, np.array([0.0, 9.0, 11.0, 30.0])).tolist() == [5, 200, 200]


def _served_now(loop: Loop) -> float:
    """What instances that are ready serve within the objective with the quotas that they have."""
    plans = table()
    ready = [one for one in loop.fleet.instances.values() if one.phase.value == "ready"]
    by_sm: dict[float, list[float]] = {}
    for one in ready:
        by_sm.setdefault(one.config.sm_pct, []).append(one.config.quota_pct)
    total = 0.0
    for sm, quotas in by_sm.items():
        rates = plans.rates_rps(len(quotas))[int(np.searchsorted(plans.sm_pct, sm))]
        total += float(rates[:, int(min(quotas)) - 1].max())
    return total


def test_small_rows_take_the_cores_that_large_ones_leave() -> None:
    pool = Pool(Gpu(f"g{number}", 16_000.0, 8.0) for number in range(2))
    large, small = Need(50.0, 100.0, 1000.0, 1.0), Need(5.0, 100.0, 1000.0, 1.0)
    for index, takes in enumerate([large] * 2 + [small] * 10):
        place = oracle_room.place(pool, takes, 100.0, {})
        # With both large ones on one GPU the other had cores for eight small ones.
        assert place is not None
        pool.add(f"{index}", *place, takes)
