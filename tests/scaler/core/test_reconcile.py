"""Reality first: what is lost, stuck, strange, too much, or not to be seen yet."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapp.types import ResourceConfig
from scaler.core.decision import Drain, Reason, Start
from scaler.core.observation import FunctionView, GpuView, InstanceView, Observation, Phase
from scaler.core.reconcile import Fleet, Served, reconcile
from scaler.core.settings import Settings
from scaler.core.state import CoreState, Ordered
from scaler.core.step import Core
from scaler.forecast.last_value import LastValue
from scaler.testing.fleet import gpus, times_of
from scaler.testing.policy_loop import function
from scaler.testing.simple_policy import SimplePolicy

CONFIG = ResourceConfig(50.0, 60.0, 4)
SERVED = {"f": Served(function(), times_of(function()), 300.0, 1500.0)}
TWO_GPUS = gpus(2)
COLD_START_S = SERVED["f"].spec.cold_start_s


def view(id_: str, **changes: Any) -> InstanceView:
    made = InstanceView(id_, "f", "gpu-0", 0, CONFIG, Phase.READY, 50.0)
    return replace(made, **changes)


def look(
    *instances: InstanceView,
    state: CoreState | None = None,
    now_s: float = 100.0,
    gpus: tuple[GpuView, ...] = TWO_GPUS,
) -> Fleet:
    seen = Observation(now_s, {"f": FunctionView(0)}, instances, gpus)
    return reconcile(CoreState() if state is None else state, seen, SERVED, Settings())


def reasons(fleet: Fleet) -> dict[str, Reason]:
    return {drain.id: drain.reason for drain in fleet.drains}


def members(fleet: Fleet) -> list[str]:
    return [member.id for member in fleet.members.get("f", ())]


def test_what_serves_is_a_member_and_what_drains_only_holds_its_place() -> None:
    fleet = look(view("a"), view("b", row=1, phase=Phase.DRAINING))
    assert members(fleet) == ["a"]
    assert fleet.pool.where("b") == ("gpu-0", 1)
    assert fleet.drains == []


def test_an_instance_of_no_known_function_is_drained_and_holds_its_place_until_then() -> None:
    fleet = look(view("a"), view("x", function="ghost", row=1))
    assert reasons(fleet) == {"x": Reason.STRANGER}
    assert fleet.pool.where("x") == ("gpu-0", 1)


@pytest.mark.parametrize(("age_s", "stuck"), [(9.9, False), (10.1, True)])
def test_an_instance_that_does_not_start_is_drained_and_not_counted(age_s: float, stuck: bool) -> None:
    fleet = look(view("a", phase=Phase.STARTING, since_s=100.0 - age_s))
    assert members(fleet) == ([] if stuck else ["a"])
    assert reasons(fleet) == ({"a": Reason.STUCK} if stuck else {})


def test_lost_ones_are_counted_once_and_hold_nothing() -> None:
    state = CoreState()
    look(view("a"), view("b", row=1), view("c", gpu="gpu-1"), state=state)
    gone = (view("a", phase=Phase.LOST), view("c", gpu="gpu-1"))
    # a is reported as lost, b has vanished, the GPU of c has.
    fleet = look(*gone, state=state, gpus=gpus(1))
    assert fleet.lost == {"f": 3}
    assert members(fleet) == []
    assert fleet.pool.gpu_share == 0
    again = look(*gone, state=state, gpus=gpus(1))
    assert again.lost == {}


def test_an_instance_that_ends_after_it_was_told_to_drain_is_not_lost() -> None:
    state = CoreState()
    look(view("a", phase=Phase.DRAINING), state=state)
    assert look(state=state).lost == {}


def test_the_youngest_goes_where_a_row_holds_more_than_it_has() -> None:
    fleet = look(view("old", since_s=10.0), view("young", since_s=90.0))
    assert reasons(fleet) == {"young": Reason.OVERCOMMIT}
    assert members(fleet) == ["old"]
    assert [fault[2] for fault in fleet.pool.faults()] == ["quota"]


@pytest.mark.parametrize(
    "young",
    [
        view("young", since_s=90.0, config=ResourceConfig(30.0, 10.0)),
        view("young", since_s=90.0, row=1, config=ResourceConfig(60.0, 10.0)),
    ],
)
def test_another_partition_in_a_row_and_rows_wider_than_the_gpu_are_too_much(young: InstanceView) -> None:
    assert reasons(look(view("old"), young)) == {"young": Reason.OVERCOMMIT}


def test_memory_that_is_not_there_is_too_much() -> None:
    small = (GpuView("gpu-0", 2000.0, 8.0),)
    fleet = look(view("a", since_s=1.0), view("b", row=1), gpus=small)
    assert reasons(fleet) == {"b": Reason.OVERCOMMIT}


def test_a_stranger_in_a_row_does_not_drive_out_who_was_there() -> None:
    fleet = look(view("x", function="ghost", since_s=1.0), view("a", since_s=90.0))
    assert reasons(fleet) == {"x": Reason.STRANGER}
    assert members(fleet) == ["a"]


def test_what_was_ordered_counts_as_starting_until_it_is_seen_or_is_too_late() -> None:
    state = CoreState(ordered={"a": Ordered("f", "gpu-0", 0, CONFIG, 98.0)})
    fleet = look(state=state)
    assert fleet.members["f"][0].phase == Phase.STARTING
    assert fleet.pool.where("a") == ("gpu-0", 0)
    assert fleet.lost == {}
    late = look(state=state, now_s=98.0 + Settings().stuck_s(COLD_START_S) + 0.1)
    assert members(late) == []
    assert late.lost == {"f": 1}
    assert state.ordered == {}


def test_what_was_told_to_drain_does_not_come_back_while_the_backend_is_slow() -> None:
    state = CoreState(draining={"a": 95.0})
    assert members(look(view("a"), state=state)) == []
    # And what does not drain at all is seen again.
    assert members(look(view("a"), state=state, now_s=106.0)) == ["a"]


def test_a_backend_that_shows_instances_late_has_nothing_started_twice(core_of: Callable[..., Core]) -> None:
    core, state, started = core_of(), None, []
    for tick in range(9):
        shown = tuple(
            InstanceView(one.id, "f", one.gpu, one.row, one.config, Phase.STARTING, 0.0)
            for one in started
            if tick >= 5
        )
        seen = Observation(float(tick), {"f": FunctionView(60)}, shown, gpus(4))
        state, decision = core.step(state, seen)
        started += [action for action in decision.actions if isinstance(action, Start)]
        assert not any(isinstance(action, Drain) for action in decision.actions)
    assert len({one.id for one in started}) == len(started)
    # The forecast after one tick is wider than after two, so that nothing is added later.
    assert all(one.id.split("-")[1] == "0" for one in started)


PHASES = st.sampled_from(list(Phase))
VIEWS = st.lists(
    st.builds(
        InstanceView,
        id=st.sampled_from([f"i{number}" for number in range(8)]),
        function=st.sampled_from(["f", "ghost"]),
        gpu=st.sampled_from(["gpu-0", "gpu-1", "gone"]),
        row=st.integers(0, 2),
        config=st.builds(
            ResourceConfig,
            st.sampled_from([20.0, 50.0, 100.0]),
            st.sampled_from([30.0, 60.0, 100.0]),
            st.integers(1, 8),
        ),
        phase=PHASES,
        since_s=st.floats(0, 100),
        batches=st.integers(0, 9),
        requests=st.integers(0, 40),
        run_ms=st.none() | st.floats(0, 500),
        device_ms=st.none() | st.floats(0, 500),
    ),
    max_size=8,
)


@given(rounds=st.lists(st.tuples(VIEWS, st.integers(0, 2), st.none() | st.integers(0, 900)), max_size=6))
@settings(deadline=None, max_examples=60)
def test_whatever_is_reported_members_fit_and_steps_go_on(rounds: list[tuple[Any, int, int | None]]) -> None:
    spec = function()
    core, state = Core([spec], {"f": times_of(spec)}, LastValue(), SimplePolicy()), None
    for tick, (instances, there, arrivals) in enumerate(rounds):
        seen = Observation(100.0 + tick, {"f": FunctionView(arrivals)}, tuple(instances), gpus(there))
        fleet = reconcile(CoreState.of_json(state), seen, core.served, core.settings)
        for id_ in fleet.going:
            if fleet.pool.where(id_) is not None:
                fleet.pool.remove(id_)
        # Orders that are not seen yet may lie over what was put there by hand.
        if not CoreState.of_json(state).ordered:
            assert fleet.pool.faults() == []
        state, decision = core.step(state, seen)
        state = json.loads(json.dumps(state, allow_nan=False))
        known = {one.id for one in instances}
        for action in decision.actions:
            assert isinstance(action, Start) == (action.id not in known) or isinstance(action, Drain)
