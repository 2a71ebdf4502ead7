"""The core over the replayed cluster: requests, batches and quotas are simulated, and things go wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rapp.types import ResourceConfig
from scaler.core.decision import Decision, Drain, Reason, Start
from scaler.core.step import Core
from scaler.replay.cluster import Cluster
from scaler.replay.physics import BatchTimes, Physics, ServedFunction
from scaler.testing.fleet import gpus, times_of
from scaler.testing.policy_loop import function

RPS, END_S, AT_S = 60, 70, 30
SPEC = function(min_instances=1)


def cluster(there: int = 3) -> Cluster:
    plain = times_of(SPEC)

    def truth(sm_pct: float) -> BatchTimes:
        batch = np.arange(1, 9)
        device, host = plain.device_and_host_ms(sm_pct, batch)
        return BatchTimes(*(
            np.append(0.0, ms) / 1e3 for ms in (device, plain.execution_ms(sm_pct, batch), host)
        ))  # fmt: skip

    served = ServedFunction("f", 0.3, 0.99, 1000, 0.0, SPEC.cold_start_s, truth)
    arrivals = np.cumsum(np.random.default_rng(1).exponential(1 / RPS, RPS * (END_S + 10)))
    return Cluster([served], {"f": arrivals}, gpus(there), Physics(), seed=0)


class Run:
    """The core and the cluster, tick by tick; `at[AT_S]` happens before that tick's observation."""

    def __init__(self, core: Core, there: Cluster) -> None:
        self.core, self.cluster = core, there
        self.state: dict[str, Any] | None = None
        self.decisions: list[Decision] = []
        self.instances: list[int] = []

    def go(self, until_s: int) -> None:
        while len(self.decisions) < until_s:
            self.cluster.run_until(float(len(self.decisions) + 1))
            self.state, decision = self.core.step(self.state, self.cluster.observe())
            self.state = json.loads(json.dumps(self.state))
            assert self.cluster.apply(decision) == []
            self.decisions.append(decision)
            self.instances.append(len(self.cluster.instances))

    def reasons(self, since_s: int) -> list[Reason]:
        return [action.reason for one in self.decisions[since_s:] for action in one.actions]


@pytest.fixture
def run(core_of: Callable[..., Core]) -> Run:
    made = Run(core_of(SPEC), cluster())
    made.go(AT_S)
    return made


def late_share(there: Cluster, since_s: float) -> float:
    """Share of late requests of those that came after `since_s` and whose outcome is known."""
    latency = there.world.latency[there.world.arrival > since_s]
    latency = latency[np.isfinite(latency)]
    assert len(latency) > 100
    return float(np.mean(latency > 0.3))


def test_undisturbed_it_meets_the_objective(run: Run) -> None:
    run.go(END_S)
    assert late_share(run.cluster, AT_S) < 0.01
    assert all(one.dropped == () for one in run.decisions)


def test_without_its_state_it_converges_within_a_few_ticks(run: Run) -> None:
    before = run.instances[-1]
    run.state = None
    run.go(AT_S + 5)
    # Nothing is taken away for want of knowledge, and little is added.
    assert before <= min(run.instances[AT_S:]) <= max(run.instances[AT_S:]) <= before + 2
    run.go(END_S)
    assert run.instances[-1] == pytest.approx(before, abs=1)
    assert late_share(run.cluster, AT_S) < 0.01


def test_an_instance_added_by_hand_is_counted_and_one_that_is_not_needed_goes(run: Run) -> None:
    before, config = run.instances[-1], ResourceConfig(25.0, 50.0, 4)
    by_hand = Start("by-hand", "f", "gpu-2", 0, config, Reason.POLICY)
    assert run.cluster.apply(Decision((by_hand,))) == []
    run.go(AT_S + 25)
    assert run.instances[-1] == pytest.approx(before, abs=1)
    assert any(isinstance(action, Drain) for one in run.decisions[AT_S:] for action in one.actions)


def test_an_instance_that_dies_is_replaced_at_once(run: Run) -> None:
    before = run.instances[-1]
    run.cluster.crash(next(iter(run.cluster.instances)))
    run.go(AT_S + 1)
    assert run.instances[-1] >= before
    assert Reason.LOST in run.reasons(AT_S)
    run.go(END_S)
    assert late_share(run.cluster, AT_S + 10) < 0.01


def test_of_a_gpu_that_is_lost_all_is_started_elsewhere(run: Run) -> None:
    before = run.instances[-1]
    lost = next(iter(run.cluster.instances.values())).gpu
    run.cluster.lose_gpu(lost)
    run.go(AT_S + 2)
    assert run.instances[-1] >= before
    assert {placed.gpu for placed in run.cluster.instances.values()} <= set(run.cluster.gpus)
    run.go(END_S)
    assert late_share(run.cluster, AT_S + 15) < 0.01


def test_a_gpu_that_comes_is_used_where_there_was_no_room(core_of: Callable[..., Core]) -> None:
    there = cluster(2)
    withheld = [there.gpus.pop(id_) for id_ in ("gpu-0", "gpu-1")]
    run = Run(core_of(SPEC), there)
    run.go(8)
    assert run.instances[-1] == 0
    assert run.decisions[-1].outlook["f"].unmet_rps > 50
    there.gpus[withheld[0].id] = withheld[0]
    run.go(10)
    assert run.instances[-1] > 0
    assert run.decisions[-1].outlook["f"].capacity_rps > RPS
    run.go(40)
    assert late_share(there, 25) < 0.01
