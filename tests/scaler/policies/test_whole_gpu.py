"""Knative's autoscaler by hand. A batch of any size takes 10 ms: in service are rate / 100 requests."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rapp.errors import ConfigError
from rapp.types import ResourceConfig
from scaler.core.decision import Drain, Reason, Start
from scaler.core.observation import Phase
from scaler.packing import Pool
from scaler.policies.base import Case, Member
from scaler.policies.whole_gpu import WholeGpu, concurrency, largest_batch


@pytest.fixture
def whole(member: Callable[..., Member]) -> Callable[..., list[Member]]:
    def make(count: int, **keys: Any) -> list[Member]:
        return [member(f"m{n}", 100.0, 100.0, 1, **({"gpu": f"g{n}"} | keys)) for n in range(count)]

    return make


class Run:
    """A function of batch 1, so that the target is 0.7 a GPU, whose orders are carried out at once."""

    def __init__(
        self, case: Callable[..., Case], pool: Callable[..., Pool], members: Sequence[Member]
    ) -> None:
        self.case, self.pool, self.members = case, pool, list(members)
        self.policy = WholeGpu()
        self.memory: Any = self.policy.start()
        self.now_s = 0.0

    def tick(self, seconds: int, queue: int, rate: float | None = 0.0) -> list[int]:
        """Ticks of 1 s with so many that wait; the number of instances after each."""
        counts = []
        for _ in range(seconds):
            case = self.case(rate, self.members, queue=queue, max_batch=1)
            self.memory, actions, _ = self.policy.decide(
                self.memory, self.now_s, [case], self.pool(40, self.members)
            )
            self.memory = json.loads(json.dumps(self.memory, allow_nan=False))
            gone = {action.id for action in actions if isinstance(action, Drain)}
            self.members = [one for one in self.members if one.id not in gone] + [
                Member(a.id, a.gpu, a.row, a.config, Phase.READY, self.now_s)
                for a in actions
                if isinstance(a, Start)
            ]
            counts.append(len(self.members))
            self.now_s += 1
        return counts

    @property
    def panics(self) -> bool:
        return self.memory["functions"]["f"]["panic_s"] is not None


@pytest.fixture
def run(case: Callable[..., Case], pool: Callable[..., Pool], whole: Callable[..., list[Member]]) -> Run:
    return Run(case, pool, whole(1))


def test_an_instance_has_a_whole_gpu_and_the_largest_batch_that_meets_the_objective(
    case: Callable[..., Case], pool: Callable[..., Pool]
) -> None:
    batch, times = np.array([1.0, 8.0]), case().times
    device = np.array([[10.0, 80.0]] * 2)
    # 10 ms a request: 5 of them in 55 ms, not 6.
    given = case(slo_ms=55.0, times=replace(times, batch=batch, device_ms=device))
    assert largest_batch(given) == 5
    assert largest_batch(replace(given, slo_ms=5.0)) == 1
    _, actions, capacity = WholeGpu().decide(WholeGpu().start(), 0.0, [given], pool())
    assert [action.config for action in actions] == [ResourceConfig(100.0, 100.0, 5)]
    assert capacity["f"] == pytest.approx(100.0, rel=1e-3)


def test_concurrency_is_that_of_littles_law_and_what_waits(
    case: Callable[..., Case], whole: Callable[..., list[Member]]
) -> None:
    assert concurrency(case(None, whole(1)), 1) is None
    assert concurrency(case(40.0, whole(1)), 1) == pytest.approx(0.4)
    assert concurrency(case(40.0, whole(1), queue=3), 1) == pytest.approx(3.4)
    # No more in service than instances take, starting ones take none.
    assert concurrency(case(900.0, whole(1)), 1) == pytest.approx(1.0)
    assert concurrency(case(900.0, whole(3)), 1) == pytest.approx(3.0)
    assert concurrency(case(900.0, whole(3, phase=Phase.STARTING)), 1) == pytest.approx(1.0)
    assert concurrency(case(900.0, whole(1)), 8) == pytest.approx(8.0)
    assert concurrency(case(350.0, whole(1)), 8) == pytest.approx(3.5)


def test_in_service_is_the_mean_batch_that_keeps_up(
    case: Callable[..., Case], whole: Callable[..., list[Member]]
) -> None:
    # From 10 ms for one to 65 ms for 8: 95 rps need a batch n with 95 x latency(n) <= n, of which the least.
    times = case().times
    device = np.array([[10.0, 65.0]] * 2)
    given = case(95.0, whole(1), times=replace(times, batch=np.array([1.0, 8.0]), device_ms=device))
    latency = given.times.latency_ms(100.0, 100.0, np.arange(1, 9))
    least = next(n for n in range(1, 9) if 0.095 * latency[n - 1] <= n)
    assert concurrency(given, 8) == pytest.approx(0.095 * float(latency[least - 1]))


def test_a_steady_concurrency_gets_the_instances_of_the_target(run: Run) -> None:
    # 1.3 = ceil to 2 of 0.7 each; panic needs 2 x 1 = 2 wanted, so it is entered too.
    assert run.tick(3, queue=1)[-1] == 2
    # 1 / 0.7 is 2 of 2 that are ready: no further panic, and it stays.
    assert set(run.tick(90, queue=1)) == {2}
    assert not run.panics


def test_it_panics_by_the_last_six_seconds_and_stable_window_alone_would_wait(run: Run) -> None:
    run.tick(60, queue=0)
    assert not run.panics
    counts = run.tick(6, queue=7)
    assert run.panics
    # After 6 s the panic window is full: 7 / 0.7 = 10. The stable one would say 6 x 7 / 60 / 0.7 = 1.
    assert counts[-1] == pytest.approx(10, abs=1)
    assert run.tick(2, queue=7)[-1] == 10


def test_in_panic_it_does_not_shrink_until_a_stable_window_has_passed(run: Run) -> None:
    run.tick(10, queue=7)
    assert len(run.members) == 10
    entered = run.memory["functions"]["f"]["panic_s"]
    counts = run.tick(int(entered + 60 - run.now_s) + 1, queue=0)
    assert set(counts) == {10}
    assert run.panics
    # Out of panic it halves at most each tick of 2 s, down to the minimum.
    after = run.tick(12, queue=0)
    assert not run.panics
    assert [count for count, before in zip(after, [10, *after], strict=False) if count != before] == [5, 2, 1]


def test_a_wave_in_panic_extends_it(run: Run) -> None:
    run.tick(10, queue=7)
    run.tick(30, queue=0)
    run.tick(6, queue=40)
    again = run.memory["functions"]["f"]["panic_s"]
    assert again >= 40
    assert len(run.members) == 40
    assert set(run.tick(50, queue=0)) == {40}


def test_after_a_restart_with_several_instances_it_begins_in_panic_with_them(
    case: Callable[..., Case], pool: Callable[..., Pool], whole: Callable[..., list[Member]]
) -> None:
    run = Run(case, pool, whole(4))
    assert set(run.tick(60, queue=0)) == {4}
    assert run.tick(10, queue=0)[-1] == 1


def test_the_most_that_it_starts_is_what_there_are_gpus(
    case: Callable[..., Case], pool: Callable[..., Pool], whole: Callable[..., list[Member]]
) -> None:
    policy, members = WholeGpu(), whole(1)
    given = case(0.0, members, queue=1000, max_batch=1)
    _, actions, _ = policy.decide(policy.start(), 0.0, [given], pool(3, members))
    assert [(action.gpu, action.config.sm_pct) for action in actions] == [("g1", 100.0), ("g2", 100.0)]
    assert {action.reason for action in actions} == {Reason.DEMAND_UP}


@pytest.mark.parametrize(("container_concurrency", "count"), [(None, 12), (1, 93), (100.0, 1)])
def test_the_target_is_seventy_percent_of_the_container_concurrency(
    case: Callable[..., Case],
    pool: Callable[..., Pool],
    whole: Callable[..., list[Member]],
    container_concurrency: float | None,
    count: int,
) -> None:
    policy, members = WholeGpu(container_concurrency), whole(1)
    # 65 wait: 65 / 5.6 with the batch of 8, 65 / 0.7 = 93, 65 / 70.
    given = case(0.0, members, queue=65)
    _, actions, _ = policy.decide(policy.start(), 0.0, [given], pool(120, members))
    assert len(actions) + 1 == count


def test_an_idle_function_goes_to_zero_and_wakes_up(
    case: Callable[..., Case], pool: Callable[..., Pool], whole: Callable[..., list[Member]]
) -> None:
    policy, members = WholeGpu(), whole(1)

    def reasons(given: Case) -> list[Reason]:
        return [a.reason for a in policy.decide(policy.start(), 0.0, [given], pool(2, given.members))[1]]

    assert reasons(case(0.0, members, min_instances=0, idle_s=60.0)) == [Reason.IDLE]
    assert reasons(case(0.0, members, min_instances=0, idle_s=59.0)) == []
    assert reasons(case(0.0, [], min_instances=0, idle_s=600.0)) == []
    assert reasons(case(1.0, [], min_instances=0)) == [Reason.WAKE_UP]
    assert reasons(case(0.0, [], min_instances=2)) == [Reason.MINIMUM] * 2


def test_without_an_observation_nothing_changes(run: Run) -> None:
    run.tick(90, queue=1)
    assert set(run.tick(20, queue=50, rate=None)) == {2}


@pytest.mark.parametrize(
    "keys", [{"container_concurrency": 0.5}, {"target_share": 0.0}, {"target_share": 1.1}]
)
def test_a_value_out_of_its_range_is_an_error(keys: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(keys))):
        WholeGpu(**keys)
