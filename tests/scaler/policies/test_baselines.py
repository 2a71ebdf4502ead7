"""What holds of every baseline, whatever comes: nothing is overcommitted, named twice or kept out of JSON."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scaler.core.decision import Drain, Resize, Start
from scaler.core.observation import Phase
from scaler.packing import Pool
from scaler.policies.base import Case, Member, Policy
from scaler.policies.changes import need
from scaler.policies.registry import policy

_ticks = st.lists(
    st.tuples(
        st.none() | st.floats(0, 3000),  # rate
        st.integers(0, 200),  # queue
        st.integers(0, 5),  # which instance is lost, if there is one
        st.sampled_from([1.0, 1.0, 2.0, 10.0, 61.0]),  # seconds to the tick
    ),
    min_size=1,
    max_size=25,
)
_shared = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(params=["has-gpu", "fast-gshare", "fast-gshare-best", "whole-gpu"])
def baseline(request: pytest.FixtureRequest) -> Policy:
    return policy(request.param)


@given(ticks=_ticks, least=st.integers(0, 2), memory_mib=st.sampled_from([1500.0, 4000.0, 16_000.0]))
@_shared
def test_nothing_is_overcommitted_and_each_answer_can_be_repeated(
    baseline: Policy,
    case: Callable[..., Case],
    pool: Callable[..., Pool],
    ticks: Sequence[tuple[float | None, int, int, float]],
    least: int,
    memory_mib: float,
) -> None:
    memory: Any = baseline.start()
    members: dict[str, list[Member]] = {"a": [], "b": []}
    now_s, idle_s = 0.0, 0.0
    for rate, queue, lost, seconds in ticks:
        now_s += seconds
        idle_s = 0.0 if rate or queue else idle_s + seconds
        for name, there in members.items():
            members[name] = [
                replace(one, phase=Phase.READY)
                for number, one in enumerate(there)
                if number != lost or lost == 5
            ]
        cases = [
            case(
                rate if name == "a" else 10.0,
                there,
                name=name,
                queue=queue,
                idle_s=idle_s,
                min_instances=least,
            )
            for name, there in members.items()
        ]
        on = pool(3, memory_mib=memory_mib, cores=2.0)
        by_name = {one.spec.name: one for one in cases}
        for name, there in members.items():
            for one in there:
                on.add(one.id, one.gpu, one.row, need(by_name[name], one.config))
        before = copy.deepcopy(memory)
        answers = [baseline.decide(memory, now_s, cases, on.copy()) for _ in range(2)]
        assert answers[0] == answers[1]
        assert memory == before
        memory, actions, capacity = answers[0]
        assert json.loads(json.dumps(memory, allow_nan=False)) == memory
        assert capacity.keys() == by_name.keys()
        assert min(capacity.values()) >= 0
        assert len({action.id for action in actions}) == len(actions)
        for action in actions:
            there = {one.id: one for one in members[action.function]}
            if isinstance(action, Start):
                # Raises if it does not fit.
                on.add(action.id, action.gpu, action.row, need(by_name[action.function], action.config))
                assert action.config.batch <= by_name[action.function].spec.max_batch
                new = Member(action.id, action.gpu, action.row, action.config, Phase.STARTING, now_s)
                members[action.function].append(new)
                continue
            was = there[action.id]
            members[action.function].remove(was)
            if isinstance(action, Resize):
                config = replace(was.config, quota_pct=action.quota_pct, batch=action.batch)
                on.resize(action.id, need(by_name[action.function], config))
                members[action.function].append(replace(was, config=config))
            else:
                assert isinstance(action, Drain)
        assert on.faults() == []


def test_it_is_the_same_in_whatever_order_the_gpus_are_listed(
    baseline: Policy, case: Callable[..., Case], pool: Callable[..., Pool]
) -> None:
    forward = pool(4)
    backward = Pool(reversed(list(pool(4).gpus.values())))
    given_cases = [case(300.0, name="a"), case(50.0, name="b")]
    answers = [baseline.decide(baseline.start(), 0.0, given_cases, on) for on in (forward, backward)]
    assert answers[0] == answers[1]


def test_a_demand_that_lasts_is_met_and_then_left_alone(
    baseline: Policy, case: Callable[..., Case], pool: Callable[..., Pool]
) -> None:
    memory, members, changes = baseline.start(), [], []
    for second in range(200):
        on = pool(8)
        given_case = case(70.0, members)
        for one in members:
            on.add(one.id, one.gpu, one.row, need(given_case, one.config))
        memory, actions, capacity = baseline.decide(memory, float(second), [given_case], on)
        changes.append(len(actions))
        kept = {one.id: one for one in members}
        for action in actions:
            if isinstance(action, Start):
                where = action.gpu, action.row
                kept[action.id] = Member(action.id, *where, action.config, Phase.READY, float(second))
            elif isinstance(action, Resize):
                config = replace(kept[action.id].config, quota_pct=action.quota_pct)
                kept[action.id] = replace(kept[action.id], config=config)
            else:
                del kept[action.id]
        members = list(kept.values())
    # Within a fifth, what FaST-GShare allows.
    assert capacity["f"] * 1.2 >= 70.0
    assert sum(changes[100:]) == 0
