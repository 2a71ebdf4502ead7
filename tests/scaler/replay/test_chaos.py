"""What goes wrong, when, and how long it is felt."""

from __future__ import annotations

import numpy as np
import pytest

from rapp.errors import ConfigError
from scaler.core.decision import Decision
from scaler.core.observation import Observation
from scaler.replay.chaos import Chaos, Disturbance, Fault
from scaler.replay.recovery import recoveries
from scaler.replay.runner import replay

CAME = np.full(120, 10.0)
AT_S = np.arange(1.0, 121.0)


def one_recovery(bad: dict[int, float], disturbance: Disturbance, allowed: float = 0.01):
    violations = np.zeros(120)
    for second, count in bad.items():
        violations[second] = count
    (found,) = recoveries([disturbance], AT_S, CAME, violations, allowed)
    return found


def test_disturbances_come_in_the_order_of_time_and_before_the_end():
    chaos = Chaos(30.0, (45.0, 500.0), ((70.0, "gpu-1"),), ((40.0, 60.0),))
    listed = chaos.disturbances(100.0)
    assert [(one.at_s, one.fault) for one in listed] == [
        (30.0, Fault.CRASH), (40.0, Fault.BLIND), (45.0, Fault.CRASH), (60.0, Fault.CRASH),
        (70.0, Fault.GPU_LOST), (90.0, Fault.CRASH),
    ]  # fmt: skip
    assert [chaos.is_blind(at) for at in (40.0, 40.5, 60.0, 60.5)] == [False, True, True, False]


@pytest.mark.parametrize(
    "given",
    [
        {"crash_every_s": 0.0},
        {"model_factor": 0.0},
        {"blind": ((20.0, 20.0),)},
        {"crash_at_s": (-1.0,)},
        {"lost_gpus": ((float("inf"), "gpu-0"),)},
    ],
)
def test_chaos_out_of_its_range_is_refused(given):
    with pytest.raises(ConfigError):
        Chaos(**given)


def test_recovered_is_when_violations_of_a_window_are_back_to_what_they_were():
    crash = Disturbance(60.0, Fault.CRASH)
    # Seconds 60 to 64 are bad; the windows that begin after them are not.
    found = one_recovery(dict.fromkeys(range(60, 65), 5.0), crash)
    assert (found.before, found.recovery_s) == (0.0, 5.0)
    assert found.worst == pytest.approx(0.25)


def test_what_was_usual_before_counts_as_recovered_and_an_earlier_disturbance_is_not_usual():
    crash = Disturbance(60.0, Fault.CRASH)
    usual = dict.fromkeys(range(120), 1.0)
    assert one_recovery(usual, crash).recovery_s == 0.0
    assert one_recovery(usual, crash).before == pytest.approx(0.1)
    earlier = dict.fromkeys(range(5, 10), 9.0) | dict.fromkeys(range(60, 63), 9.0)
    found = one_recovery(earlier, crash)
    assert (found.before, found.recovery_s) == (0.0, 3.0)


def test_what_the_objective_allows_is_not_felt():
    # One of a hundred requests within a window.
    assert one_recovery({61: 1.0}, Disturbance(60.0, Fault.CRASH)).recovery_s == 0.0
    assert one_recovery({61: 1.0}, Disturbance(60.0, Fault.CRASH), allowed=0.001).recovery_s == 2.0


def test_nothing_has_recovered_while_it_lasts_nor_where_it_never_ends():
    gap = Disturbance(50.0, Fault.BLIND, to_s=70.0)
    assert one_recovery({52: 8.0, 71: 8.0}, gap).recovery_s == 22.0
    never = one_recovery(dict.fromkeys(range(50, 120), 5.0), Disturbance(50.0, Fault.CRASH))
    assert never.recovery_s is None
    assert never.worst == pytest.approx(0.5)


def test_each_crash_is_felt_and_its_instance_replaced(setup_of):
    setup = setup_of((30.0,), 100.0, chaos=Chaos(crash_every_s=30.0))
    result = replay(setup, setup.policy("whole-gpu"))
    assert [had.disturbance.at_s for had in result.recoveries] == [30.0, 60.0, 90.0]
    assert all(had.disturbance.target for had in result.recoveries)
    assert result.account.lost_instances == 3
    assert result.account.starts >= 3
    # The only instance is away for its cold start of 2 s and the tick before.
    first = result.recoveries[0]
    assert first.worst > 0.1
    assert 1.0 <= first.recovery_s <= 6.0


def test_after_a_gpu_is_lost_nothing_is_placed_on_it(setup_of):
    setup = setup_of((30.0,), 40.0, chaos=Chaos(lost_gpus=((10.0, "gpu-0"), (10.0, "gpu-0"))))
    result = replay(setup, setup.policy("has-gpu"))
    assert all(one.to_s <= 10.0 for one in result.account.allotments if one.gpu == "gpu-0")
    assert any(one.gpu == "gpu-1" for one in result.account.allotments)


def test_while_observations_are_missing_nothing_of_a_function_is_seen_or_changed(setup_of):
    seen: dict[float, tuple[Observation, Decision]] = {}
    setup = setup_of((30.0, 10.0), 30.0, chaos=Chaos(blind=((10.0, 20.0),)))
    result = replay(
        setup, setup.policy("has-gpu"), watch=lambda one, decided: seen.update({one.now_s: (one, decided)})
    )
    for second in range(11, 21):
        observation, decision = seen[float(second)]
        assert observation.functions == {}
        assert observation.instances
        assert all(one.batches == 0 and one.run_ms is None for one in observation.instances)
        assert decision.actions == ()
    # What came meanwhile is not a burst of the first tick after it.
    assert seen[21.0][0].functions["f0"].arrivals < 60
    assert np.isnan(result.series.column("arrivals", "f0")[12])
    assert result.total.arrivals == result.total.served + result.total.unfinished + result.total.refused
