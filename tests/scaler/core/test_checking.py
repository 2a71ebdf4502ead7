"""Checking: whatever a policy wants, what is left can be made."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapp.types import ResourceConfig
from scaler.core.checking import Checker, check
from scaler.core.decision import Action, Drain, Reason, Resize, Start
from scaler.core.observation import FunctionView, InstanceView, Observation, Phase
from scaler.core.reconcile import Served, reconcile
from scaler.core.settings import Settings
from scaler.core.state import CoreState
from scaler.testing.fleet import gpus, times_of
from scaler.testing.policy_loop import function

SERVED = {name: Served(function(name), times_of(function(name)), 300.0, 1500.0) for name in ("f", "unseen")}
WHY = Reason.POLICY


def checker() -> Checker:
    """Two GPUs; a and b in one row, c drains, d is lost, u serves a function that was not observed."""
    half = ResourceConfig(50.0, 40.0, 4)
    instances = (
        InstanceView("a", "f", "gpu-0", 0, half, Phase.READY, 1.0),
        InstanceView("b", "f", "gpu-0", 0, half, Phase.READY, 2.0),
        InstanceView("c", "f", "gpu-0", 1, half, Phase.DRAINING, 3.0),
        InstanceView("d", "f", "gpu-1", 1, half, Phase.LOST, 3.0),
        InstanceView("u", "unseen", "gpu-1", 0, half, Phase.READY, 3.0),
    )
    seen = Observation(10.0, {"f": FunctionView(0)}, instances, gpus(2))
    return Checker.of(reconcile(CoreState(), seen, SERVED, Settings()), SERVED, {"f"})


def start(id_: str = "new", gpu: str = "gpu-1", row: int = 1, **changes: Any) -> Start:
    config = ResourceConfig(
        changes.get("sm_pct", 50.0), changes.get("quota_pct", 60.0), changes.get("batch", 4)
    )
    return Start(id_, changes.get("function", "f"), gpu, row, config, WHY)


@pytest.mark.parametrize(
    ("action", "says"),
    [
        (start("a"), "an instance of this name"),
        (start("c"), "an instance of this name"),
        (start("d"), "an instance of this name"),
        (start(gpu="gpu-9"), "no such GPU"),
        (start(row=-1), "row -1"),
        (start(row=100), "row 100"),
        (start(gpu="gpu-0", row=0, quota_pct=30.0), "quota 30 %, but 20 % is free"),
        (start(gpu="gpu-0", row=0, sm_pct=20.0, quota_pct=10.0), "the row has SM 50 %"),
        (start(gpu="gpu-0", row=2, sm_pct=10.0), "SM 10 %, but 0 % is free"),
        (start(batch=9), "batches of 1 to 8"),
        (start(function="ghost"), "unknown"),
        (start(function="unseen"), "not observed"),
        (Resize("a", "f", 61.0, 4, WHY), "quota 61 %"),
        (Resize("a", "f", 101.0, 4, WHY), "quota 101 %"),
        (Resize("a", "f", 0.0, 4, WHY), "quota 0 %"),
        (Resize("a", "f", float("nan"), 4, WHY), "quota nan %"),
        (Resize("a", "f", 40.0, 9, WHY), "batches of 1 to 8"),
        (Resize("a", "f", 40.0, 0, WHY), "batches of 1 to 8"),
        (Resize("ghost", "f", 40.0, 4, WHY), "no such instance"),
        (Resize("c", "f", 40.0, 4, WHY), "drains already"),
        (Resize("u", "f", 40.0, 4, WHY), "it serves unseen"),
        (Drain("c", "f", WHY), "drains already"),
        (Drain("d", "f", WHY), "or was lost"),
        (Drain("u", "unseen", WHY), "not observed"),
    ],
)
def test_what_cannot_be_made_is_dropped_and_says_why(action: Action, says: str) -> None:
    kept, dropped = check([action], checker(), 10)
    assert kept == []
    assert [one for one, _ in dropped] == [action]
    assert says in dropped[0][1]


def test_room_is_made_before_it_is_used_and_not_after() -> None:
    shrink, grow = Resize("a", "f", 20.0, 4, WHY), Resize("b", "f", 75.0, 2, WHY)
    assert check([shrink, grow], checker(), 10) == ([shrink, grow], [])
    assert check([grow, shrink], checker(), 10)[0] == [shrink]


def test_what_drains_keeps_its_place() -> None:
    drain, into = Drain("a", "f", WHY), start(gpu="gpu-0", row=0, quota_pct=40.0)
    kept, dropped = check([drain, into, Drain("a", "f", WHY), Resize("a", "f", 10.0, 1, WHY)], checker(), 10)
    assert kept == [drain]
    assert len(dropped) == 3


def test_drains_come_first_where_there_are_too_many() -> None:
    wanted = [start("n1"), start("n2", row=2, sm_pct=10.0), Drain("a", "f", WHY), Drain("b", "f", WHY)]
    # gpu-1 holds u at SM 50 %: the second start does not fit beside the first.
    kept, dropped = check([wanted[0], *wanted[2:]], checker(), 2)
    assert kept == wanted[2:]
    assert "more than 2 changes" in dropped[0][1]


def test_the_drain_of_what_just_starts_is_not_kept_without_its_start() -> None:
    wanted = [start("n1", gpu="gpu-0", row=0, sm_pct=50.0, quota_pct=20.0), Drain("n1", "f", WHY)]
    assert check([Drain("b", "f", WHY), *wanted], checker(), 2)[0] == [Drain("b", "f", WHY), wanted[0]]


ACTIONS = st.lists(
    st.one_of(
        st.builds(
            Start,
            st.sampled_from(["a", "n1", "n2", "n3", "n4", "n5"]),
            st.sampled_from(["f", "unseen", "ghost"]),
            st.sampled_from(["gpu-0", "gpu-1", "gpu-9"]),
            st.integers(-1, 4),
            st.builds(
                ResourceConfig,
                st.sampled_from([10.0, 20.0, 50.0, 100.0]),
                st.sampled_from([20.0, 50.0, 100.0]),
                st.integers(1, 9),
            ),
            st.just(WHY),
        ),
        st.builds(
            Resize,
            st.sampled_from(["a", "b", "c", "n1", "n2", "u"]),
            st.just("f"),
            st.sampled_from([-1.0, 10.0, 40.0, 80.0, 100.0, 120.0]),
            st.integers(0, 9),
            st.just(WHY),
        ),
        st.builds(Drain, st.sampled_from(["a", "b", "c", "n1", "u"]), st.just("f"), st.just(WHY)),
    ),
    max_size=25,
)


@given(wanted=ACTIONS, most=st.integers(0, 12))
@settings(deadline=None, max_examples=200)
def test_nothing_is_overcommitted_and_none_is_lost_on_the_way(wanted: list[Action], most: int) -> None:
    taker = checker()
    kept, dropped = check(wanted, taker, most)
    assert taker.pool.faults() == []
    assert len(kept) <= most
    assert len(kept) + len(dropped) == len(wanted)
    # And what is kept can be made without what was dropped.
    again, none = check(kept, checker(), len(kept))
    assert again == kept
    assert none == []
