"""HAS-GPU by hand. A batch takes 10 ms at any SM partition and 10 / q under a quota of q, so that an
instance of batch 4 counts with 2.5 / (0.01 / q + 0.07) rps: 24.19 at 30 %, 31.25 at 100 %.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from rapp.types import ResourceConfig
from scaler.core.decision import Drain, Reason, Resize, Start
from scaler.core.observation import Phase
from scaler.packing import Pool
from scaler.policies.base import Case, Member
from scaler.policies.has_gpu import HasGpu, Kalman
from scaler.policies.has_gpu_scaling import capacity_rps


@pytest.fixture
def decide(case: Callable[..., Case], pool: Callable[..., Pool]) -> Callable[..., Any]:
    """One decision from the beginning: the first prediction is 5 rps above the rate."""

    def make(rate: float | None, members: Sequence[Member], gpus: int = 2, **keys: Any) -> Any:
        on = keys.pop("pool", None) or pool(gpus, members)
        return HasGpu().decide(HasGpu().start(), 0.0, [case(rate, members, **keys)], on)

    return make


def shown(action: Any) -> Any:
    """An action without its name and reason."""
    if isinstance(action, Start):
        config = action.config
        return (action.gpu, action.row, config.sm_pct, config.quota_pct, config.batch)
    return (action.id, action.quota_pct) if isinstance(action, Resize) else action.id


def test_the_prediction_ends_six_rps_above_a_steady_rate_of_any_scale() -> None:
    for rate in (0.0, 15.0, 400.0):
        kalman = Kalman()
        for _ in range(200):
            kalman = kalman.after(rate)
        assert kalman.x_rps == pytest.approx(rate + 6.08, abs=0.01)
        assert kalman.p == pytest.approx(2.70, abs=0.01)


def test_the_predictions_are_the_published_ones() -> None:
    kalman, seen = Kalman(), []
    for _ in range(4):
        kalman = kalman.after(0.0)
        seen.append(round(kalman.x_rps, 2))
    assert seen == [5.00, 5.40, 5.66, 5.82]
    for _ in range(200):
        kalman = kalman.after(25.0)
    falling = []
    for _ in range(5):
        kalman = kalman.after(5.0)
        falling.append(kalman.x_rps)
    # A rise is there at once, a fall takes 20 s.
    assert kalman.after(60.0).x_rps >= 65.0
    assert falling == pytest.approx([25.7, 21.7, 18.9, 16.8, 15.2], abs=0.05)


def test_each_function_has_a_filter_of_its_own(case: Callable[..., Case], pool: Callable[..., Pool]) -> None:
    policy, memory = HasGpu(), HasGpu().start()
    both = [case(20.0, name="a"), case(1.0, name="b")]
    for second in range(200):
        memory, _, _ = policy.decide(memory, float(second), both, pool())
        memory = json.loads(json.dumps(memory, allow_nan=False))
    states = {name: state["kalman"][0] for name, state in memory["functions"].items()}
    assert states == {"a": pytest.approx(26.08, abs=0.01), "b": pytest.approx(7.08, abs=0.01)}


def test_it_counts_every_two_seconds(case: Callable[..., Case], pool: Callable[..., Pool]) -> None:
    policy, memory, seen = HasGpu(), HasGpu().start(), []
    for second in range(5):
        memory, _, _ = policy.decide(memory, float(second), [case(0.0)], pool())
        seen.append(memory["functions"]["f"]["kalman"][0])
    assert seen[0] == seen[1] < seen[2] == seen[3] < seen[4]


def test_the_first_instance_is_thirty_thirty_four(decide: Callable[..., Any]) -> None:
    _, actions, capacity = decide(0.0, [])
    assert [shown(action) for action in actions] == [("g0", 0, 30.0, 30.0, 4)]
    assert actions[0].reason == Reason.MINIMUM
    assert capacity["f"] == pytest.approx(24.19, abs=0.01)


def test_the_capacity_is_capped_by_seventy_milliseconds(case: Callable[..., Case]) -> None:
    given = case()
    assert capacity_rps(given, ResourceConfig(100.0, 100.0, 4)) == pytest.approx(2500 / 80, rel=1e-4)
    assert capacity_rps(given, ResourceConfig(30.0, 10.0, 1)) == pytest.approx(1000 / 170, rel=1e-4)


@pytest.mark.parametrize(
    ("keys", "config"),
    [
        ({"max_batch": 2}, (30.0, 30.0, 2)),
        ({"initial": {"sm_pct": 20.0, "quota_pct": 40.0, "batch": 1}}, (20.0, 40.0, 1)),
    ],
)
def test_the_function_may_say_otherwise(
    decide: Callable[..., Any], keys: dict[str, Any], config: tuple[float, ...]
) -> None:
    assert shown(decide(0.0, [], **keys)[1][0])[2:] == config


def test_the_first_instance_goes_onto_a_used_gpu_that_is_not_half_full(
    decide: Callable[..., Any], pool: Callable[..., Pool], member: Callable[..., Member]
) -> None:
    # g0 is 60 % occupied, g1 30 % and in a row of another SM partition; g2 is unused.
    others = [member("x", 60.0, 100.0, gpu="g0"), member("y", 50.0, 60.0, gpu="g1")]
    assert shown(decide(0.0, [], pool=pool(3, others))[1][0])[:3] == ("g1", 1, 30.0)
    # Of the same SM partition: its row is shared.
    alike = [member("x", 60.0, 100.0, gpu="g0"), member("y", 30.0, 60.0, gpu="g1")]
    assert shown(decide(0.0, [], pool=pool(3, alike))[1][0])[:3] == ("g1", 0, 30.0)
    # Both half full: the unused one.
    full = [member("x", 60.0, 100.0, gpu="g0"), member("y", 60.0, 90.0, gpu="g1")]
    assert shown(decide(0.0, [], pool=pool(3, full))[1][0])[:3] == ("g2", 0, 30.0)


def test_with_two_rows_taken_it_takes_the_sm_partition_of_the_row_with_most_quota(
    decide: Callable[..., Any], pool: Callable[..., Pool], member: Callable[..., Member]
) -> None:
    others = [member("x", 20.0, 60.0, row=0), member("y", 40.0, 20.0, row=1)]
    _, actions, _ = decide(0.0, [], pool=pool(1, others))
    assert shown(actions[0]) == ("g0", 1, 40.0, 30.0, 4)


@pytest.mark.parametrize("limits", [{"memory_mib": 900.0}, {"cores": 0.0}])
def test_memory_and_cores_are_checked(
    decide: Callable[..., Any], pool: Callable[..., Pool], limits: dict[str, float]
) -> None:
    _, actions, capacity = decide(50.0, [], pool=pool(2, **limits), host_cores=0.5)
    assert actions == []
    assert capacity == {"f": 0}


def test_quota_is_raised_by_the_steps_that_are_missing(
    decide: Callable[..., Any], member: Callable[..., Member]
) -> None:
    # Predicted 23 rps, 0.9 x 24.19 = 21.77: 1.23 are missing; 40 % gives 26.32, which is 2.13 more.
    _, actions, capacity = decide(18.0, [member("m")])
    assert [shown(action) for action in actions] == [("m", 40.0)]
    assert actions[0].reason == Reason.DEMAND_UP
    assert capacity["f"] == pytest.approx(26.32, abs=0.01)
    assert decide(16.0, [member("m")])[1] == []


def test_quota_comes_before_instances_and_the_largest_sm_partition_first(
    decide: Callable[..., Any], member: Callable[..., Member]
) -> None:
    members = [member("small", 30.0), member("large", 50.0, row=1)]
    # 48.39, of which 0.9 are 43.55; 3 are missing; 50 % gives the large one 27.78, 3.58 more.
    _, actions, _ = decide(41.6, members)
    assert [shown(action) for action in actions] == [("large", 50.0)]


def test_the_second_row_of_the_gpu_comes_before_a_second_gpu(
    decide: Callable[..., Any], member: Callable[..., Member]
) -> None:
    # 8.23 missing: 7.06 by full quota, 1.17 by an instance of the largest capacity in a new row of SM 50.
    _, actions, capacity = decide(25.0, [member("m")])
    assert [shown(action) for action in actions] == [("m", 100.0), ("g0", 1, 50.0, 100.0, 4)]
    assert capacity["f"] == pytest.approx(62.5, rel=1e-3)


def test_a_second_gpu_is_reached(decide: Callable[..., Any], member: Callable[..., Member]) -> None:
    # 83.2 missing: 7.06 by quota, 31.25 in the second row, 24.19 by the default on g1, then 31.25 there.
    _, actions, _ = decide(100.0, [member("m")])
    assert [shown(action) for action in actions] == [
        ("m", 100.0),
        ("g0", 1, 50.0, 100.0, 4),
        ("g1", 0, 30.0, 30.0, 4),
        ("g1", 1, 50.0, 100.0, 4),
    ]


def test_if_no_gpu_is_left_a_small_one_is_the_last_resort(
    decide: Callable[..., Any], member: Callable[..., Member]
) -> None:
    # Both rows are taken. The free half of row 1 is given away; row 0 is full. Nothing is left for more.
    members = [member("m", 30.0, 100.0), member("n", 50.0, 50.0, row=1, phase=Phase.STARTING)]
    _, actions, _ = decide(500.0, members, gpus=1)
    assert [shown(action) for action in actions] == [("n", 100.0)]
    # At 97 % occupancy a GPU takes no further instance but the last resort, of the 3 % that are left.
    members = [member("m", 100.0, 47.0), member("n", 100.0, 50.0)]
    _, actions, _ = decide(500.0, members, gpus=1)
    assert [shown(action) for action in actions] == [("g0", 0, 100.0, 3.0, 4)]


def test_more_quota_is_taken_even_where_it_brings_nothing(
    decide: Callable[..., Any],
    case: Callable[..., Case],
    pool: Callable[..., Pool],
    member: Callable[..., Member],
) -> None:
    from scaler.sources.constant import ConstantSource

    slow = ConstantSource(1.0, host_ms=50.0).times(case().spec)
    _, actions, _ = decide(60.0, [member("m")], times=slow)
    assert shown(actions[0]) == ("m", 100.0)
    # Of quotas of like capacity a new instance gets the least.
    assert shown(actions[1]) == ("g0", 1, 50.0, 10.0, 4)


def test_nothing_is_scaled_while_no_instance_is_ready(
    decide: Callable[..., Any], member: Callable[..., Member]
) -> None:
    assert decide(500.0, [member("m", phase=Phase.STARTING)])[1] == []


def test_a_row_that_does_not_fit_beside_the_other_is_not_made(
    decide: Callable[..., Any], member: Callable[..., Member]
) -> None:
    # SM 60 and 50 were more than there is: the next instance is on the other GPU.
    _, actions, _ = decide(25.0, [member("m", 60.0)])
    assert [shown(action)[:2] for action in actions] == [("m", 100.0), ("g1", 0)]


def test_quota_falls_the_smallest_sm_partition_first_and_not_below_ten(
    decide: Callable[..., Any], member: Callable[..., Member]
) -> None:
    # 3 x 31.25 = 93.75; predicted 5; 79.4 are spare. Quota 10 leaves 14.71 of each: 49.6 less. Then whole
    # instances of SM 50 and less, of which one remains to be spared: 29.8 / 14.7 = 2.
    members = [
        member("c", 70.0, 100.0, gpu="g1"),
        member("a", 30.0, 100.0),
        member("b", 50.0, 100.0, row=1),
    ]
    _, actions, capacity = decide(0.0, members)
    assert sorted(shown(action) for action in actions if isinstance(action, Resize)) == [("c", 10.0)]
    assert [shown(action) for action in actions if isinstance(action, Drain)] == ["a", "b"]
    assert {action.reason for action in actions} == {Reason.DEMAND_DOWN}
    assert capacity["f"] == pytest.approx(14.71, abs=0.01)


def test_quota_falls_as_far_as_is_spare(decide: Callable[..., Any], member: Callable[..., Member]) -> None:
    # 62.5, 0.3 of it 18.75; predicted 18: 38.25 are spare. From a 16.54 by quota 10, from b 16.54 too,
    # and 5.2 are left, less than an instance of 14.7.
    members = [member("a", 30.0, 100.0), member("b", 50.0, 100.0, row=1)]
    _, actions, _ = decide(13.0, members)
    assert [shown(action) for action in actions] == [("a", 10.0), ("b", 10.0)]


def test_one_instance_stays_and_large_ones_do(
    decide: Callable[..., Any], member: Callable[..., Member]
) -> None:
    # 55.6: quota 10 of both; then 50 - 5 - 26 = 19 spare for one of 14.7, and SM 60 is never stopped.
    members = [member("a", 60.0, 50.0), member("b", 40.0, 50.0, row=1)]
    _, actions, _ = decide(0.0, members)
    assert [shown(action) for action in actions if isinstance(action, Drain)] == ["b"]
    both = [member("a", 60.0, 50.0), member("b", 60.0, 50.0, gpu="g1")]
    assert not [a for a in decide(0.0, both)[1] if isinstance(a, Drain)]


def test_it_goes_down_every_ten_seconds_at_most(
    case: Callable[..., Case], pool: Callable[..., Pool], member: Callable[..., Member]
) -> None:
    policy, memory, when = HasGpu(), HasGpu().start(), []
    # As if nothing were carried out: it asks for the same again.
    members = [member("a", 30.0, 100.0), member("b", 50.0, 100.0, row=1)]
    for second in range(25):
        memory, actions, _ = policy.decide(memory, float(second), [case(0.0, members)], pool(2, members))
        memory = json.loads(json.dumps(memory, allow_nan=False))
        when += [second] if actions else []
    assert when == [0, 10, 20]


def test_a_function_goes_to_zero_only_if_it_may(
    decide: Callable[..., Any], member: Callable[..., Member]
) -> None:
    idle = {"min_instances": 0, "idle_to_zero_s": 30.0}
    members = [member("m", 30.0, 10.0)]
    assert decide(0.0, members, idle_s=1e6)[1] == []
    assert [a.reason for a in decide(0.0, members, idle_s=31.0, **idle)[1]] == [Reason.IDLE]
    assert decide(0.0, members, idle_s=29.0, **idle)[1] == []
    assert [a.reason for a in decide(None, [], queue=2, **idle)[1]] == [Reason.WAKE_UP]
    assert decide(0.0, [], idle_s=1e6, **idle)[1] == []


def test_a_function_that_was_not_observed_is_left_as_it_is(
    case: Callable[..., Case], pool: Callable[..., Pool]
) -> None:
    policy = HasGpu()
    memory, _, _ = policy.decide(policy.start(), 0.0, [case(20.0, name="a"), case(1.0, name="b")], pool())
    after, _, _ = policy.decide(memory, 2.0, [case(20.0, name="a")], pool())
    assert after["functions"]["b"] == memory["functions"]["b"]
