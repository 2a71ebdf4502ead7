"""`Static`: the contract, and that it provisions for the peak and then leaves it."""

from __future__ import annotations

import numpy as np
import pytest

from rapp.errors import ConfigError
from rapp.types import ResourceConfig
from scaler.arrivals import RateSteps
from scaler.core.corrected import corrected
from scaler.core.decision import Drain, Start
from scaler.policies.base import Policy
from scaler.policies.static import Static, peak_rps, provision
from scaler.testing import PolicyContract
from scaler.testing.policy_loop import Demand, Loop, function


def load(*rps: float, step_s: float = 10.0) -> RateSteps:
    return RateSteps(step_s * np.arange(len(rps) + 1), np.array(rps))


class TestContract(PolicyContract):
    """It neither follows the forecast nor goes to zero."""

    scales_to_zero = False
    follows_demand = False

    @pytest.fixture
    def policy(self) -> Policy:
        return Static({name: load(20, 80, 5) for name in ("f", "f0", "f1", "f2")})


def test_it_serves_the_peak_whatever_the_forecast_says_and_never_changes() -> None:
    loop = Loop(Static({"f": load(5, 200, 5)}), [function()], gpus=8)
    loop.tick({"f": Demand(1.0)})
    assert loop.history[0]
    assert all(isinstance(action, Start) for action in loop.history[0])
    assert loop.capacity["f"] >= 200
    for rate in (0.0, 500.0, 3.0):
        loop.tick({"f": Demand(rate, queue=7)}, 20)
    assert loop.history[1:] == [[]] * 60


def test_a_higher_peak_costs_more() -> None:
    shares = []
    for peak in (20.0, 100.0, 400.0):
        loop = Loop(Static({"f": load(1, peak)}), [function()], gpus=8)
        loop.tick({"f": Demand(1.0)})
        shares.append(sum(one.config.gpu_share for one in loop.fleet.instances.values()))
    assert shares[0] < shares[1] < shares[2]


def test_of_plans_that_do_not_fit_the_cheapest_that_does_is_taken() -> None:
    configs = []
    for held in (None, 90.0):
        loop = Loop(Static({"f": load(30)}), [function(), function("g")], gpus=1)
        if held:
            loop.fleet.add("other", "g", "gpu-0", 0, ResourceConfig(held, 100.0, 1))
        cases, seen = loop.cases({"f": Demand(0.0)})
        plan = provision(cases[0], 150.0, seen.pool)
        assert plan.capacity_rps >= 150 or held
        loop.tick({"f": Demand(0.0)})
        configs.append({one.config for one in loop.fleet.instances.values() if one.function == "f"})
    # Beside a row of 90 % nothing larger than 10 % has room; the plan for an empty GPU is larger.
    assert configs[0] != configs[1]
    assert all(config.sm_pct <= 10 for config in configs[1])


def test_instances_of_another_size_serve_until_its_own_are_ready() -> None:
    loop = Loop(Static({"f": load(50)}), [function()])
    loop.fleet.add("old", "f", "gpu-0", 0, ResourceConfig(100.0, 100.0, 8))
    demand = {"f": Demand(50.0)}
    loop.tick(demand)
    assert "old" in loop.fleet.instances
    loop.tick(demand, 4)
    assert "old" not in loop.fleet.instances
    drains = [action for tick in loop.history for action in tick if isinstance(action, Drain)]
    assert [one.id for one in drains] == ["old"]


def test_where_execution_takes_longer_than_predicted_it_provisions_anew_and_never_less() -> None:
    loop = Loop(Static({"f": load(100)}), [function()], gpus=8)
    loop.tick({"f": Demand(0.0)}, 5)
    plain = loop.times["f"].plain
    before = [one.config.gpu_share for one in loop.fleet.instances.values()]
    loop.times["f"] = corrected(plain, device_factor=1.5, pace_factor=1.5, spread=1.0)
    loop.tick({"f": Demand(0.0)}, 5)
    after = [one.config.gpu_share for one in loop.fleet.instances.values()]
    assert sum(after) > 1.2 * sum(before)
    loop.times["f"] = corrected(plain, device_factor=0.8, pace_factor=0.8, spread=1.0)
    loop.tick({"f": Demand(0.0)}, 5)
    assert [one.config.gpu_share for one in loop.fleet.instances.values()] == after


def test_a_function_whose_demand_is_not_known_is_refused_by_name() -> None:
    loop = Loop(Static({"g": load(50)}), [function()])
    with pytest.raises(ConfigError, match="policy static needs to know the demand of f"):
        loop.tick({"f": Demand(50.0)})


def test_the_peak_of_a_part_of_the_time() -> None:
    steps = load(5, 200, 7)
    assert peak_rps(steps) == 200
    assert peak_rps(steps, 0, 10) == 5
    assert peak_rps(steps, 5, 10.5) == 200
    assert peak_rps(steps, 20) == 7
    assert peak_rps(steps, 30) == 0
