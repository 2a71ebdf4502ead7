"""`Core.step`: pure, of JSON, function by function; and what it is told reaches the policy."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from rapp.errors import ConfigError, InfeasibleError
from rapp.recommend import Risk
from rapp.types import ResourceConfig
from scaler.core.decision import Action, Decision, Drain, Reason, Start
from scaler.core.settings import Settings
from scaler.core.state import VERSION, StateError
from scaler.core.step import Core
from scaler.errors import NoLatencySourceError
from scaler.forecast.last_value import LastValue
from scaler.functions import FunctionSpec
from scaler.packing import Pool
from scaler.policies.base import Case, Memory
from scaler.testing.fleet import Fleet, gpus, times_of
from scaler.testing.policy_loop import function
from scaler.testing.simple_policy import SimplePolicy

CoreOf = Callable[..., Core]


class Watch:
    """A policy that notes what it is shown, and wants what it is told to want."""

    name = "watch"

    def __init__(self, *wanted: Action) -> None:
        self.cases: list[dict[str, Case]] = []
        self.wanted = list(wanted)

    def start(self) -> Memory:
        return {}

    def decide(
        self, memory: Memory, now_s: float, cases: Sequence[Case], pool: Pool
    ) -> tuple[Memory, list[Action], Mapping[str, float]]:
        self.cases.append({case.spec.name: case for case in cases})
        return memory, list(self.wanted), {}


def fleet_of(core: Core, there: int = 4, off: float | None = None) -> Fleet:
    specs = [served.spec for served in core.served.values()]
    return Fleet(specs, gpus(there), {name: served.times for name, served in core.served.items()}, off)


def run(core: Core, fleet: Fleet, arrivals: Mapping[str, int | None], ticks: int, state: Any = None) -> Any:
    """State and decisions after ticks of 1 s."""
    decisions = []
    for _ in range(ticks):
        state, decision = core.step(state, fleet.observe(arrivals))
        state = json.loads(json.dumps(state, allow_nan=False))
        fleet.apply(decision)
        fleet.advance(1.0)
        decisions.append(decision)
    return state, decisions


def test_a_step_is_pure_and_its_state_is_json(core_of: CoreOf) -> None:
    core, other = core_of(), core_of()
    fleet, state = fleet_of(core, off=1.3), None
    for tick in range(30):
        seen, before = fleet.observe({"f": 20 + 7 * (tick % 3)}), copy.deepcopy(state)
        once, twice, elsewhere = core.step(state, seen), core.step(state, seen), other.step(state, seen)
        assert once == twice == elsewhere
        assert state == before
        state = json.loads(json.dumps(once[0], allow_nan=False))
        assert state == once[0]
        fleet.apply(once[1])
        fleet.advance(1.0)
    assert state is not None
    assert state["version"] == VERSION


def test_demand_is_met_and_then_all_is_still(core_of: CoreOf) -> None:
    core = core_of()
    fleet = fleet_of(core)
    _, decisions = run(core, fleet, {"f": 60}, 40)
    assert decisions[0].actions
    assert decisions[0].outlook["f"].capacity_rps >= 60
    assert decisions[0].outlook["f"].unmet_rps == 0
    assert [len(one.actions) for one in decisions[20:]] == [0] * 20
    assert all(one.dropped == () for one in decisions)


def test_without_state_amid_a_fleet_that_suffices_all_is_still_soon(core_of: CoreOf) -> None:
    core = core_of()
    fleet = fleet_of(core)
    run(core, fleet, {"f": 60}, 40)
    least = len(fleet.instances)
    for restart in (None, {}):
        state = restart
        for _ in range(5):
            state, _ = run(core, fleet, {"f": 60}, 1, state)
            assert len(fleet.instances) >= least
        # The first tick says little of the rate; what was added for that goes once it was calm for long.
        state, _ = run(core, fleet, {"f": 60}, 15, state)
        _, decisions = run(core, fleet, {"f": 60}, 10, state)
        assert [one.actions for one in decisions] == [()] * 10
        assert len(fleet.instances) == least


@pytest.mark.parametrize(
    "state", [{"version": 99}, {"version": VERSION}, {"version": VERSION, "functions": 3, "now_s": 0}]
)
def test_a_state_that_cannot_be_read_is_an_error_that_says_what_to_do(core_of: CoreOf, state: Any) -> None:
    with pytest.raises(StateError, match="start without it"):
        core_of().step(state, fleet_of(core_of()).observe({"f": 0}))


def test_the_state_of_another_policy_or_clock_starts_afresh(
    core_of: CoreOf, caplog: pytest.LogCaptureFixture
) -> None:
    core = core_of()
    fleet = fleet_of(core)
    state, _ = run(core, fleet, {"f": 60}, 10)
    watch = Watch()
    core_of(policy=watch).step(state, fleet.observe({"f": 60}))
    assert "memory starts afresh: it was of simple" in caplog.text
    fleet.now_s = 1.0
    later, _ = core.step(state, fleet.observe({"f": 60}))
    assert "clock went back" in caplog.text
    assert later["now_s"] == 1.0


def test_one_function_never_touches_the_forecast_of_another(core_of: CoreOf) -> None:
    rng, states = np.random.default_rng(0), []
    mine = rng.poisson(20, 30).tolist()
    for theirs in (rng.poisson(1, 30).tolist(), rng.poisson(500, 30).tolist(), [None] * 30):
        core = core_of(function("a"), function("b"), policy=Watch())
        fleet, state = fleet_of(core), None
        for a, b in zip(mine, theirs, strict=True):
            state, decision = core.step(state, fleet.observe({"a": a, "b": b}))
            fleet.advance(1.0)
        assert state is not None
        states.append((state["functions"]["a"], decision.outlook["a"]))
    assert states[0] == states[1] == states[2]
    assert states[0][1].forecast_rps == mine[-1]


def test_the_rate_is_over_the_time_that_passed(core_of: CoreOf) -> None:
    watch = Watch()
    core = core_of(policy=watch, tick_s=2.0)
    fleet = fleet_of(core)
    state, _ = core.step(None, fleet.observe({"f": 30}))
    fleet.advance(5.0)
    state, _ = core.step(state, fleet.observe({"f": 30}))
    # The same moment again: there is no rate in no time, and the forecast stays.
    state, _ = core.step(state, fleet.observe({"f": 30}))
    assert [one["f"].rate_rps for one in watch.cases] == [15.0, 6.0, None]
    assert watch.cases[-1]["f"].forecast.mean_rps == 6.0


def test_a_function_that_is_not_observed_is_left_as_it_is_and_comes_back(core_of: CoreOf) -> None:
    core = core_of(function("a"), function("b"))
    fleet = fleet_of(core, 8)
    state, _ = run(core, fleet, {"a": 50, "b": 50}, 20)
    before = {id_ for id_, one in fleet.instances.items() if one.function == "a"}
    for absent in ({"b": 50}, {"a": None, "b": 50}):
        state, decisions = run(core, fleet, absent, 20, state)
        assert all("a" not in one.outlook for one in decisions)
        assert {id_ for id_, one in fleet.instances.items() if one.function == "a"} == before
    state, decisions = run(core, fleet, {"a": 50, "b": 50}, 5, state)
    assert decisions[0].outlook["a"].forecast_rps == pytest.approx(50)
    assert all(one.actions == () for one in decisions)


def test_idle_time_counts_from_the_last_request_that_was_or_may_have_been(core_of: CoreOf) -> None:
    watch = Watch()
    core = core_of(policy=watch)
    fleet, state = fleet_of(core), None
    counts: list[int | None] = [3, 0, 0, None, 0, 0, 0]
    for count in counts:
        state, _ = core.step(state, fleet.observe({"f": count}))
        fleet.advance(1.0)
    state, _ = core.step(state, fleet.observe({"f": 0}, queue=2))
    assert [one["f"].idle_s for one in watch.cases if one] == [0, 1, 2, 1, 2, 3, 0]


def test_the_times_a_policy_sees_are_those_at_the_risk(core_of: CoreOf) -> None:
    for risk, factor in ((Risk.UPPER, 1.2), (Risk.MEAN, 1.0)):
        watch = Watch()
        core = core_of(policy=watch, risk=risk)
        core.step(None, fleet_of(core).observe({"f": 1}))
        seen, plain = watch.cases[0]["f"].times, core.served["f"].times
        assert float(seen.execution_ms(50, 4)) == pytest.approx(factor * float(plain.execution_ms(50, 4)))


def test_what_the_policy_wants_and_cannot_have_is_dropped_and_said(core_of: CoreOf) -> None:
    config = ResourceConfig(50.0, 50.0, 4)
    good = Start("f-1", "f", "gpu-0", 0, config, Reason.POLICY)
    watch = Watch(good, good, Drain("ghost", "f", Reason.IDLE))
    core = core_of(policy=watch)
    _, decision = core.step(None, fleet_of(core).observe({"f": 1}))
    assert decision.actions == (good,)
    assert [why for _, why in decision.dropped] == [
        "there is an instance of this name", "there is no such instance",
    ]  # fmt: skip


def test_changes_of_one_tick_are_bounded_and_the_rest_follows(core_of: CoreOf) -> None:
    core = core_of(function(min_instances=9), most_actions=4)
    fleet = fleet_of(core)
    _, decisions = run(core, fleet, {"f": 0}, 4)
    assert [len(one.actions) for one in decisions] == [4, 4, 1, 0]
    assert "more than 4 changes" in decisions[0].dropped[0][1]


def test_no_more_gpus_are_used_than_allowed(core_of: CoreOf) -> None:
    core = core_of(most_gpus=2)
    fleet = fleet_of(core, 5)
    state, decisions = run(core, fleet, {"f": 4000}, 10)
    assert len({one.gpu for one in fleet.instances.values()}) == 2
    assert decisions[-1].outlook["f"].unmet_rps > 0
    fewer = core_of(most_gpus=1)
    run(fewer, fleet, {"f": 4000}, 10, state)
    assert len({one.gpu for one in fleet.instances.values()}) == 1


def test_nothing_to_serve_is_fine() -> None:
    core = Core((), {}, LastValue(), SimplePolicy())
    _, decision = core.step(None, Fleet((), gpus(1), {}).observe({}))
    assert decision == Decision()


def test_what_cannot_be_planned_for_is_a_typed_error() -> None:
    spec = function()
    times = {"f": times_of(spec)}
    with pytest.raises(NoLatencySourceError, match="function f"):
        Core([spec], {}, LastValue(), SimplePolicy())
    with pytest.raises(ConfigError, match="two functions"):
        Core([spec, spec], times, LastValue(), SimplePolicy())
    with pytest.raises(InfeasibleError, match="function f"):
        Core([spec], times, LastValue(), SimplePolicy(), objectives_ms={"f": 1.0})
    hasty = FunctionSpec(name="f", network="f", slo_multiplier=2.0)
    assert Core([hasty], times, LastValue(), SimplePolicy()).served["f"].slo_ms == pytest.approx(16.0)
    with pytest.raises(ConfigError, match="quantile"):
        Settings(quantile=1.0)
