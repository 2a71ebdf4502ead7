"""`Hybrid`: the contract of policies; vertical first, horizontal in time, and what it does without room."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from scaler.core.decision import Action, Drain, Reason, Resize, Start
from scaler.core.observation import Phase
from scaler.functions import FunctionSpec
from scaler.policies.base import Policy
from scaler.policies.hybrid import Hybrid
from scaler.replay.runner import replay
from scaler.replay.setup import Gpus, ReplaySetup
from scaler.sources.constant import ConstantSource
from scaler.testing import PolicyContract
from scaler.testing.policy_loop import Demand, Loop, function


class TestContract(PolicyContract):
    """A constant demand is answered at once; what is ready beyond it is given back as it becomes known."""

    settle_ticks = 700

    @pytest.fixture
    def policy(self) -> Policy:
        return Hybrid()


def kinds(history: Sequence[Sequence[Action]]) -> set[type]:
    return {type(action) for actions in history for action in actions}


def settled(*specs: FunctionSpec, rps: float = 40.0, gpus: int = 8, ticks: int = 400) -> Loop:
    loop = Loop(Hybrid(), specs or [function()], gpus=gpus)
    loop.tick(dict.fromkeys(loop.served, Demand(rps)), ticks)
    return loop


def test_a_rise_that_quota_can_serve_starts_nothing_and_is_served_at_once() -> None:
    loop = settled()
    before = len(loop.history)
    share = loop_share(loop)
    loop.tick({"f": Demand(50.0)})
    assert kinds(loop.history[before:]) == {Resize}
    assert loop_share(loop) > share
    assert loop.capacity["f"] >= 50.0


def test_quota_goes_down_later_than_up() -> None:
    loop = settled()
    loop.tick({"f": Demand(50.0)}, 3)
    share, before = loop_share(loop), len(loop.history)
    loop.tick({"f": Demand(40.0)})
    assert loop.history[before:] == [[]]
    loop.tick({"f": Demand(40.0)}, 10)
    assert loop_share(loop) < share


def test_even_arrivals_get_smaller_quotas_once_they_are_known_to_be_even() -> None:
    loop = settled(function(slo_ms=40.0), ticks=30)
    share, before = loop_share(loop), len(loop.history)
    loop.tick({"f": Demand(40.0)}, 30)
    assert kinds(loop.history[before:]) == {Resize}
    assert loop_share(loop) < 0.9 * share
    # What is left is taken back as soon as requests wait.
    loop.tick({"f": Demand(40.0, queue=20)})
    assert loop_share(loop) >= share


def test_what_the_fleet_cannot_serve_starts_instances_in_the_same_tick() -> None:
    loop = settled()
    before = len(loop.history)
    loop.tick({"f": Demand(10 * loop.capacity["f"])})
    started = [action for action in loop.history[before] if isinstance(action, Start)]
    assert started
    assert {action.reason for action in started} == {Reason.DEMAND_UP}


def test_a_demand_that_swings_is_followed_by_quotas_alone() -> None:
    loop = settled()
    for _ in range(30):
        loop.tick({"f": Demand(40.0)}, 10)
        loop.tick({"f": Demand(50.0)}, 10)
    assert kinds(loop.history[-500:]) <= {Resize}


def test_an_exchange_drains_the_old_only_when_the_new_are_ready() -> None:
    loop = settled(rps=300.0)
    for _ in range(900):
        before = dict(loop.fleet.instances)
        loop.tick({"f": Demand(8.0)})
        for action in loop.history[-1]:
            if isinstance(action, Drain):
                ready = [
                    one
                    for id_, one in before.items()
                    if one.phase == Phase.READY and id_ in loop.fleet.instances
                ]
                assert ready, "nothing that is ready is left"
    assert loop_share(loop) < 0.15


def test_a_lost_instance_is_replaced_in_the_next_tick() -> None:
    loop = settled(function(min_instances=2))
    lost = next(iter(loop.fleet.instances))
    loop.fleet.lose(lost)
    loop.tick({"f": Demand(40.0, lost=1)})
    assert [action.reason for action in loop.history[-1] if isinstance(action, Start)] == [Reason.LOST]


def test_a_backlog_gets_more_than_the_demand_needs() -> None:
    loop = settled()
    share = loop_share(loop)
    loop.tick({"f": Demand(40.0, queue=200)})
    assert loop_share(loop) > 1.5 * share
    assert Reason.BACKLOG in {action.reason for action in loop.history[-1]}


def test_functions_share_too_little_room() -> None:
    specs = [function(name) for name in ("a", "b", "c")]
    loop = Loop(Hybrid(), specs, gpus=1)
    loop.tick({name: Demand(2000.0) for name in loop.served}, 30)
    served = list(loop.capacity.values())
    assert min(served) > 0.3 * max(served)
    assert max(served) < 2000.0


def test_as_gpus_fill_fleets_take_fewer_sms() -> None:
    roomy, full = (settled(*(function(f"f{n}") for n in range(6)), rps=2.0, gpus=g) for g in (16, 1))
    assert min(full.capacity.values()) >= 2.0
    sms = [sum(one.config.sm_pct for one in loop.fleet.instances.values()) for loop in (roomy, full)]
    assert sms[1] <= 100.0
    assert sms[1] <= sms[0]


def test_every_instance_has_a_row_of_its_own() -> None:
    loop = settled(*(function(f"f{n}") for n in range(5)), rps=80.0, gpus=3)
    rows = [(one.gpu, one.row) for one in loop.fleet.instances.values()]
    assert len(rows) == len(set(rows))


def test_memory_is_small_whatever_comes() -> None:
    loop = Loop(Hybrid(), [function()], gpus=4)
    rng = np.random.default_rng(0)
    for rps in rng.gamma(0.3, 100.0, 300):
        loop.tick({"f": Demand(float(rps))})
    state = loop.memory["functions"]["f"]
    assert len(str(state)) < 6_000


@pytest.mark.parametrize("rps", [20.0, 120.0])
def test_in_a_replay_the_objective_is_kept(rps: float) -> None:
    """Requests one by one: at most the share of late ones that p99 allows, once it has started."""
    spec = function(slo_ms=60.0, max_batch=4, memory_mib=1500.0)
    times = np.sort(np.random.default_rng(1).uniform(0, 150, int(150 * rps)))
    source = ConstantSource(8.0, 2.0)
    result = replay(ReplaySetup([spec], {"f": times}, source, source, 150.0, gpus=Gpus(2)), Hybrid())
    late = result.series.column("violations", "f")[20:].sum()
    assert late <= 0.01 * len(times)
    assert result.changes_not_made == 0
    # A whole GPU all the time would be 150 GPU-seconds.
    assert result.total.gpu_seconds < 150.0


def loop_share(loop: Loop) -> float:
    return sum(one.config.gpu_share for one in loop.fleet.instances.values())
