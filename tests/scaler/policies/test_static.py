"""`Static`: the contract, and that it provisions for the peak and then leaves it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from rapp.errors import ConfigError
from rapp.types import ResourceConfig
from scaler.arrivals import RateSteps
from scaler.core.corrected import corrected
from scaler.core.decision import Action, Drain, Resize, Start
from scaler.core.observation import Phase
from scaler.packing import Pool
from scaler.policies.base import Case, Member, Policy
from scaler.policies.changes import Changes
from scaler.policies.static import Static, _keep, function_table, peak_rps, provision
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
        plan = provision(cases[0], 130.0, seen.pool)
        assert plan.capacity_rps >= 130 or held
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


@pytest.fixture
def keep(
    case: Callable[..., Case], pool: Callable[..., Pool]
) -> Callable[..., tuple[int, list[Action], Pool]]:
    """`keep(number, config, members)`: what `static` does of a tick, and the pool after it."""

    def tick(
        number: int, config: ResourceConfig, members: Sequence[Member], gpus: int = 2
    ) -> tuple[int, list[Action], Pool]:
        there = pool(gpus, members)
        changes = Changes(case(0.0, members), 0.0, there)
        return _keep(changes, number, config, []), changes.actions, there

    return tick


Keep = Callable[..., tuple[int, list[Action], Pool]]
Make = Callable[..., Member]


def kinds(actions: Sequence[Action]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for action in actions:
        found.setdefault(action.kind, []).append(action.id)
    return found


@pytest.mark.parametrize("after", [(30.0, 60.0, 4), (30.0, 20.0, 4), (30.0, 30.0, 8), (30.0, 70.0, 1)])
def test_another_quota_or_batch_is_a_resize(
    keep: Keep, member: Make, after: tuple[float, float, int]
) -> None:
    config = ResourceConfig(*after)
    have, actions, there = keep(2, config, [member("a"), member("b", row=1)])
    assert have == 2
    assert {(one.id, one.quota_pct, one.batch) for one in actions if isinstance(one, Resize)} == {
        ("a", *after[1:]), ("b", *after[1:])
    }  # fmt: skip
    assert len(actions) == 2
    assert there.need("a").quota_pct == config.quota_pct


def test_another_sm_partition_is_an_exchange(keep: Keep, member: Make) -> None:
    have, actions, _ = keep(1, ResourceConfig(40.0, 30.0, 4), [member("a")])
    assert have == 1
    assert list(kinds(actions)) == ["start"]
    ready = member("new", sm=40.0, row=1)
    assert kinds(keep(1, ready.config, [member("a"), ready])[1]) == {"drain": ["a"]}


def test_where_more_are_wanted_those_that_stay_are_resized_and_the_rest_started(
    keep: Keep, member: Make
) -> None:
    have, actions, _ = keep(3, ResourceConfig(30.0, 60.0, 4), [member("a")])
    found = kinds(actions)
    assert have == 3
    assert found["resize"] == ["a"]
    assert len(found["start"]) == 2
    assert "drain" not in found


def test_where_fewer_are_wanted_the_rest_is_drained_once_those_that_stay_suffice(
    keep: Keep, member: Make
) -> None:
    members = [member("a"), member("b", row=1), member("c", row=2)]
    _, actions, _ = keep(2, ResourceConfig(30.0, 60.0, 4), members)
    assert {kind: len(ids) for kind, ids in kinds(actions).items()} == {"resize": 2, "drain": 1}
    starting = [member("a"), member("b", row=1, phase=Phase.STARTING), member("c", row=2, quota=20.0)]
    assert "drain" not in kinds(keep(2, starting[0].config, starting)[1])


def test_one_whose_row_has_no_room_is_exchanged_and_serves_until_the_new_one_is_ready(
    keep: Keep, member: Make
) -> None:
    full = [member("a", quota=50.0), member("b", quota=50.0)]
    config = ResourceConfig(30.0, 60.0, 4)
    have, actions, there = keep(2, config, full)
    found = kinds(actions)
    assert have == 2
    assert "drain" not in found
    assert len(found["start"]) == 2
    assert there.need("a").quota_pct == 50
    new = [replace(member(id_), config=config, gpu="g1", row=row) for row, id_ in enumerate(("c", "d"))]
    assert kinds(keep(2, config, [*full, *new])[1]) == {"drain": ["a", "b"]}


def test_of_two_in_a_row_with_room_for_one_the_other_goes_and_nothing_is_started(
    keep: Keep, member: Make
) -> None:
    full = [member("a", quota=50.0), member("b", quota=50.0)]
    config = ResourceConfig(30.0, 100.0, 4)
    have, actions, _ = keep(1, config, full)
    assert have == 1
    assert kinds(actions) == {"drain": ["b"]}
    assert kinds(keep(1, config, full[:1])[1]) == {"resize": ["a"]}


def test_quota_is_given_back_before_it_is_taken(keep: Keep, member: Make) -> None:
    members = [member("a", quota=20.0), member("b", quota=80.0)]
    assert kinds(keep(2, ResourceConfig(30.0, 50.0, 4), members)[1]) == {"resize": ["b", "a"]}


def test_a_plan_that_differs_in_quota_alone_is_followed_without_a_start() -> None:
    loop = Loop(Static({"f": load(100)}), [function()], gpus=8)
    loop.tick({"f": Demand(0.0)}, 5)
    before = dict(loop.fleet.instances)
    sm_pct = {one.config.sm_pct for one in before.values()}
    plan = [len(before), *sm_pct, 100.0, 8, 100.0]
    loop.memory = {"f": plan}
    loop.tick({"f": Demand(0.0)})
    assert loop.fleet.instances.keys() == before.keys()
    assert {one.config.quota_pct for one in loop.fleet.instances.values()} == {100.0}


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


def rows_of(loop: Loop, function: str) -> list[tuple[str, int]]:
    return [(one.gpu, one.row) for one in loop.fleet.instances.values() if one.function == function]


def test_instances_have_a_row_each_as_far_as_all_functions_fit() -> None:
    functions = [function("f"), function("g")]
    for sm_pct, rows in ((30.0, 3), (50.0, 2)):
        loop = Loop(Static({"f": load(50), "g": load(50)}), functions, gpus=1)
        loop.memory = {"f": [2, sm_pct, 40.0, 1, 1.0], "g": [1, sm_pct, 40.0, 1, 1.0]}
        loop.tick({"f": Demand(0.0), "g": Demand(0.0)})
        # Three rows of 50 % are more than a GPU has: two of f take turns, so that g has room.
        assert len({*rows_of(loop, "f"), *rows_of(loop, "g")}) == rows
        assert len(rows_of(loop, "f")) == 2
        assert len(rows_of(loop, "g")) == 1


def test_what_serves_a_little_less_than_the_peak_is_not_enough() -> None:
    loop = Loop(Static({"f": load(200)}), [function()], gpus=8)
    loop.tick({"f": Demand(0.0)}, 5)
    for factor in (1.02, 1.04, 1.06, 1.08):
        loop.times["f"] = corrected(
            loop.times["f"].plain, device_factor=factor, pace_factor=factor, spread=1.0
        )
        loop.tick({"f": Demand(0.0)}, 6)
        assert loop.capacity["f"] >= 200


def test_where_the_peak_fits_nowhere_it_is_not_chosen_anew_tick_by_tick() -> None:
    loop = Loop(Static({"f": load(5000)}), [function()], gpus=1)
    loop.tick({"f": Demand(0.0)}, 8)
    assert loop.history[0]
    assert loop.history[1:] == [[]] * 7
    assert loop.capacity["f"] == pytest.approx(loop.memory["f"][4])


def test_an_sm_partition_that_fills_gpus_is_found_where_the_cheapest_needs_more_rows() -> None:
    for gpus in (1, 2, 3):
        loop = Loop(Static({"f": load(1)}), [function()], gpus=gpus)
        cases, seen = loop.cases({"f": Demand(0.0)})
        table = function_table(cases[0])
        most = max(
            float(table.rates_rps(int(gpus * (100 // sm_pct)))[s].max())
            for s, sm_pct in enumerate(table.sm_axis)
        )
        assert provision(cases[0], 0.99 * most, seen.pool).capacity_rps >= 0.99 * most
