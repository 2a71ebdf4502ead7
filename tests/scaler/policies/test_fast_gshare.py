"""FaST-GShare by hand: a batch takes 10 ms, under a quota of 50 % 20 ms: an instance serves 50 rps."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from rapp.errors import ConfigError
from rapp.types import ResourceConfig
from scaler.core.decision import Drain, Reason, Start
from scaler.core.observation import Phase
from scaler.policies.base import Case, Member
from scaler.policies.fast_gshare import PUBLISHED, FastGshare, best_config
from scaler.sources.service_times import ServiceTimes


@pytest.fixture
def replicas(member: Callable[..., Member]) -> Callable[..., list[Member]]:
    def make(count: int, **keys: Any) -> list[Member]:
        places = [(gpu, row, n) for gpu in ("g0", "g1") for row in range(3) for n in range(2)]
        return [
            member(f"m{n}", 30.0, 50.0, 1, **({"gpu": gpu, "row": row} | keys))
            for n, (gpu, row, _) in enumerate(places[:count])
        ]

    return make


@pytest.fixture
def decide(case: Callable[..., Case], pool: Callable[..., Any]) -> Callable[..., Any]:
    def make(
        rate: float | None, members: Sequence[Member], policy: FastGshare | None = None, **keys: Any
    ) -> Any:
        policy = policy or FastGshare()
        return policy.decide(policy.start(), 0.0, [case(rate, members, **keys)], pool(2, members))

    return make


def test_the_first_instance_is_the_published_one(decide: Callable[..., Any]) -> None:
    _, actions, capacity = decide(0.0, [])
    assert [action.config for action in actions] == [PUBLISHED] == [ResourceConfig(30.0, 50.0, 1)]
    assert actions[0].reason == Reason.MINIMUM
    assert capacity == {"f": pytest.approx(50.0)}


@pytest.mark.parametrize(
    ("rate", "count"),
    [
        (59.9, 0),  # a fifth above 50 is 60
        (60.1, 1),
        (99.0, 1),
        (101.0, 2),  # ceil(51 / 50)
        (201.0, 4),
    ],
)
def test_more_than_a_fifth_above_the_capacity_starts_what_is_missing(
    decide: Callable[..., Any], replicas: Callable[..., list[Member]], rate: float, count: int
) -> None:
    _, actions, capacity = decide(rate, replicas(1))
    assert [type(action) for action in actions] == [Start] * count
    assert {action.reason for action in actions} <= {Reason.DEMAND_UP}
    assert capacity["f"] == pytest.approx(50.0 * (count + 1))


@pytest.mark.parametrize(
    ("rate", "gone"),
    [
        (161.0, 0),  # a fifth below 200 is 160
        (159.0, 0),  # floor(41 / 50)
        (149.0, 1),
        (99.0, 2),
        (0.0, 3),  # the minimum of one stays
    ],
)
def test_more_than_a_fifth_below_stops_the_whole_instances_too_many(
    decide: Callable[..., Any], replicas: Callable[..., list[Member]], rate: float, gone: int
) -> None:
    _, actions, _ = decide(rate, replicas(4))
    assert [type(action) for action in actions] == [Drain] * gone


def test_what_is_not_ready_goes_first_and_then_the_youngest(
    decide: Callable[..., Any], member: Callable[..., Member]
) -> None:
    members = [
        member("old", 30.0, 50.0, 1, since_s=-50.0),
        member("young", 30.0, 50.0, 1, since_s=-5.0),
        member("starting", 30.0, 50.0, 1, row=1, phase=Phase.STARTING, since_s=-9.0),
    ]
    _, actions, _ = decide(0.0, members)
    assert [action.id for action in actions] == ["starting", "young"]


def test_it_decides_every_ten_seconds_by_the_rate_of_the_last_ten(
    case: Callable[..., Case], pool: Callable[..., Any], replicas: Callable[..., list[Member]]
) -> None:
    policy, members = FastGshare(), replicas(1)
    memory, started = policy.start(), []
    for second in range(21):
        rate = 40.0 if second <= 5 else 140.0
        memory, actions, _ = policy.decide(memory, float(second), [case(rate, members)], pool(2, members))
        started.append(len(actions))
        memory = json.loads(json.dumps(memory, allow_nan=False))
    # At 10 s five ticks at 40 and five at 140: 90 rps, one more. At 20 s 140 rps: ceil(90 / 50).
    assert {second: count for second, count in enumerate(started) if count} == {10: 1, 20: 2}


def test_it_starts_no_more_than_there_is_room_for(
    decide: Callable[..., Any], replicas: Callable[..., list[Member]]
) -> None:
    # 3 rows of 2 halves on each of two GPUs.
    _, actions, capacity = decide(10_000.0, replicas(1))
    assert len(actions) == 11
    assert capacity["f"] == pytest.approx(600.0)


def test_memory_limits_what_is_started(
    case: Callable[..., Case], pool: Callable[..., Any], replicas: Callable[..., list[Member]]
) -> None:
    policy, members = FastGshare(), replicas(1)
    _, actions, _ = policy.decide(
        policy.start(), 0.0, [case(10_000.0, members)], pool(1, members, memory_mib=2500.0)
    )
    assert len(actions) == 1


def test_without_an_observation_nothing_is_scaled(
    decide: Callable[..., Any], replicas: Callable[..., list[Member]]
) -> None:
    assert decide(None, replicas(4))[1] == []


def test_an_idle_function_goes_to_zero_and_comes_back_with_the_first_request(
    decide: Callable[..., Any], replicas: Callable[..., list[Member]]
) -> None:
    idle = {"min_instances": 0, "idle_to_zero_s": 30.0}
    assert [a.reason for a in decide(0.0, replicas(2), idle_s=30.0, **idle)[1]] == [Reason.IDLE] * 2
    assert len(decide(0.0, replicas(1), idle_s=29.0, **idle)[1]) == 0
    assert decide(0.0, [], idle_s=500.0, **idle)[1] == []
    assert [a.reason for a in decide(0.0, [], queue=1, **idle)[1]] == [Reason.WAKE_UP]
    assert [a.reason for a in decide(1.0, [], lost=1, **idle)[1]] == [Reason.LOST]


def times(device_ms: Callable[[float, float], float], host_ms: float) -> ServiceTimes:
    sm, batch = np.array([10.0, 30.0, 60.0, 100.0]), np.array([1.0, 2.0, 4.0, 8.0])
    device = np.array([[device_ms(s, b) for b in batch] for s in sm])
    return ServiceTimes(
        "alpha", "by hand", sm, batch, device, np.full_like(device, host_ms), np.ones_like(device)
    )


def test_the_best_configuration_is_the_cheapest_that_leaves_the_reserve(case: Callable[..., Case]) -> None:
    given = case(times=times(lambda s, b: 6.0 * b**0.8 * (100 / s) ** 0.9, 1.0))
    best = best_config(given, 0.2)
    latency = float(given.times.latency_ms(best.sm_pct, best.quota_pct, best.batch))
    assert latency <= 80.0
    cost = best.gpu_share * latency / best.batch
    for sm in given.times.sm_pct:
        for quota in range(10, 101, 10):
            for batch in (1, 2, 4, 8):
                other = float(given.times.latency_ms(sm, quota, batch))
                if other <= 80.0:
                    assert sm * quota / 1e4 * other / batch >= cost * (1 - 1e-8)
    # A tighter objective allows less of the cheap and slow.
    assert float(given.times.latency_ms(*_axes(best_config(given, 0.8)))) <= 20.0


def test_of_like_cheap_configurations_the_smallest_is_best(case: Callable[..., Case]) -> None:
    # Device time does not depend on SM, host time is nothing: SM 10, batch 8, and any quota costs the same.
    given = case(times=times(lambda s, b: 10.0, 1e-3))
    assert best_config(given, 0.2) == ResourceConfig(10.0, 20.0, 8)  # 50 ms; at 10 % it would be 100


def test_if_nothing_leaves_the_reserve_the_fastest_is_taken(case: Callable[..., Case]) -> None:
    given = case(times=times(lambda s, b: 6.0 * b * 100 / s, 1e-3), slo_ms=6.5)
    assert best_config(given, 0.2) == ResourceConfig(100.0, 100.0, 1)


def test_the_best_configuration_is_chosen_once(case: Callable[..., Case], pool: Callable[..., Any]) -> None:
    policy = FastGshare(None)
    memory, first, _ = policy.decide(policy.start(), 0.0, [case(5.0)], pool())
    slower = case(5.0, times=times(lambda s, b: 40.0, 1e-3))
    assert best_config(slower, policy.reserve) != first[0].config
    _, again, _ = policy.decide(json.loads(json.dumps(memory)), 1.0, [slower], pool())
    assert again[0].config == first[0].config


@pytest.mark.parametrize("reserve", [-0.1, 1.0, float("nan")])
def test_a_reserve_out_of_its_range_is_an_error(reserve: float) -> None:
    with pytest.raises(ConfigError, match="reserve"):
        FastGshare(None, reserve)


def _axes(config: ResourceConfig) -> tuple[float, float, int]:
    return config.sm_pct, config.quota_pct, config.batch
