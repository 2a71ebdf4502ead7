"""JSON of observations and decisions; and that a live adapter, which sends it, has the same decided."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapp.errors import RappError
from rapp.types import ResourceConfig
from scaler.core.codec import (
    CodecError,
    decision_from_json,
    decision_to_json,
    observation_from_json,
    observation_to_json,
)
from scaler.core.decision import Decision
from scaler.core.observation import FunctionView, GpuView, InstanceView, Observation, Phase
from scaler.core.step import Core
from scaler.testing.fleet import Fleet, gpus, times_of
from scaler.testing.policy_loop import function

NUMBERS = st.floats(0, 1e12, allow_subnormal=True)
OBSERVATIONS = st.builds(
    Observation,
    NUMBERS,
    st.dictionaries(
        st.text(max_size=5), st.builds(FunctionView, st.none() | st.integers(0), latency_ms=NUMBERS)
    ),
    st.lists(
        st.builds(
            InstanceView,
            st.text(max_size=5),
            config=st.builds(ResourceConfig, st.floats(0.1, 100), st.floats(0.1, 100), st.integers(1, 64)),
            phase=st.sampled_from(list(Phase)),
            since_s=NUMBERS,
            run_ms=st.none() | NUMBERS,
            device_ms=st.none() | NUMBERS,
        ),
        max_size=3,
    ).map(tuple),
    st.lists(st.builds(GpuView, st.text(max_size=5), NUMBERS, NUMBERS), max_size=2).map(tuple),
)


@given(seen=OBSERVATIONS)
@settings(deadline=None, max_examples=60)
def test_an_observation_survives_bit_by_bit(seen: Observation) -> None:
    assert observation_from_json(observation_to_json(seen)) == seen


def test_live_and_replay_decide_alike(core_of: Callable[..., Core]) -> None:
    replay, live = core_of(function("f"), function("g")), core_of(function("f"), function("g"))
    specs = [function("f"), function("g")]
    fleet = Fleet(specs, gpus(3), {spec.name: times_of(spec) for spec in specs}, off=1.3)
    state, sent, decided = None, "null", 0
    for tick in range(50):
        seen = fleet.observe({"f": 10 + tick * 4 % 90, "g": None if tick % 7 == 3 else 30})
        state, decision = replay.step(state, seen)
        other, answer = live.step(json.loads(sent), observation_from_json(observation_to_json(seen)))
        sent = json.dumps(other)
        assert json.loads(sent) == state
        assert answer == decision
        assert decision_from_json(decision_to_json(answer)) == decision
        decided += len(decision.actions)
        if tick == 20:
            fleet.lose(next(iter(fleet.instances)))
        fleet.apply(decision)
        fleet.advance(1.0)
    assert decided > 10


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "no JSON"),
        ("[]", "object is needed"),
        ('{"now_s": 1}', "version None"),
        ('{"version": 1}', "now_s"),
        ('{"version": 1, "now_s": "soon"}', "now_s"),
        ('{"version": 1, "now_s": 1, "gpus": [{"id": "g"}]}', "gpus.0"),
    ],
)
def test_a_text_that_is_none_is_a_typed_error(text: str, says: str) -> None:
    with pytest.raises(CodecError, match=says) as caught:
        observation_from_json(text)
    assert isinstance(caught.value, RappError)


def test_an_empty_decision_too() -> None:
    assert decision_from_json(decision_to_json(Decision())) == Decision()
