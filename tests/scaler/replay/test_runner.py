"""Replays as wholes: what they count, that they repeat, and that they decide as a live controller would."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rapp.errors import ConfigError, InfeasibleError
from scaler.core.codec import decision_to_json, observation_from_json, observation_to_json
from scaler.core.step import Core
from scaler.policies import registry
from scaler.replay.chaos import Chaos
from scaler.replay.runner import Run, replay
from scaler.replay.setup import Gpus, ReplaySetup
from scaler.sources.constant import ConstantSource
from scaler.testing.policy_loop import function

AUTOSCALERS = ("has-gpu", "fast-gshare-best", "whole-gpu")


def accounted(run: Run) -> None:
    """Arrived = served + queued + executing + refused + dropped, for each function."""
    w = run.cluster.world
    carried = np.zeros(len(w.arrived), dtype=np.int64)
    for placed in run.cluster.instances.values():
        carried[w.function[placed.slot]] += w.carried_count[placed.slot]
    assert (w.arrived == w.served + w.queue_length + carried + w.refused + w.lost).all()
    assert w.arrived.sum() == w.next_request[0] == np.count_nonzero(w.arrival <= run.cluster.now_s)


def not_overcommitted(run: Run) -> None:
    """No row has more than its time, no GPU more than its SMs and memory; what is placed is there."""
    for gpu in {placed.gpu for placed in run.cluster.instances.values()}:
        assert gpu in run.cluster.gpus
        own = [placed for placed in run.cluster.instances.values() if placed.gpu == gpu]
        rows = {placed.row: placed.config.sm_pct for placed in own}
        assert all(placed.config.sm_pct == rows[placed.row] for placed in own)
        assert sum(rows.values()) <= 100 + 1e-6
        for row in rows:
            assert sum(placed.config.quota_pct for placed in own if placed.row == row) <= 100 + 1e-6
        memory = sum(run.setup.memory_mib[placed.function] for placed in own)
        assert memory <= run.cluster.gpus[gpu].memory_mib


@pytest.mark.parametrize("policy", AUTOSCALERS)
def test_every_request_is_accounted_for_at_every_tick_whatever_goes_wrong(setup_of, policy):
    chaos = Chaos(crash_every_s=7.0, lost_gpus=((15.0, "gpu-0"),), blind=((20.0, 25.0),), model_factor=0.7)
    specs = [function("a", slo_ms=120.0, queue_limit=20), function("b", slo_ms=60.0)]
    setup = setup_of((60.0, 20.0), specs=specs, chaos=chaos)
    run = Run(setup, setup.policy(policy))
    for _ in run.ticks():
        accounted(run)
        not_overcommitted(run)
    result = run.result()
    for one in result.functions.values():
        assert one.arrivals == one.served + one.refused + one.lost + one.unfinished
        assert one.violations == one.late + one.refused + one.lost + one.unfinished
        assert one.arrivals == len(setup.arrivals[one.function])
        assert result.series.column("violations", one.function).sum() == one.violations
    assert result.total.arrivals == sum(map(len, setup.arrivals.values()))
    assert [had.disturbance.fault.name for had in result.recoveries].count("GPU_LOST") == 1


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rate=st.floats(1.0, 200.0),
    slo_ms=st.floats(30.0, 300.0),
    max_batch=st.integers(1, 8),
    seed=st.integers(0, 1000),
    crash=st.sampled_from((None, 3.0)),
)
def test_the_device_of_a_row_is_never_busy_for_longer_than_the_time_that_passed(
    setup_of, rate, slo_ms, max_batch, seed, crash
):
    specs = [function("a", slo_ms=slo_ms, max_batch=max_batch), function("b", slo_ms=slo_ms)]
    setup = setup_of((rate, rate / 3), 12.0, specs, seed=seed, chaos=Chaos(crash_every_s=crash))
    run = Run(setup, setup.policy("has-gpu"))
    w = run.cluster.world
    busy, seen_s = w.row_busy.copy(), w.row_seen_at.copy()
    for now_s in run.ticks():
        # A row is brought up to a moment when a batch comes to its device or leaves it.
        assert (w.row_seen_at <= now_s).all()
        assert (w.row_busy - busy <= w.row_seen_at - seen_s + 1e-9).all()
        busy, seen_s = w.row_busy.copy(), w.row_seen_at.copy()
        # What instances used of a row is what the row was busy with, less what is under way.
        there = [placed.slot for placed in run.cluster.instances.values()]
        for row in {int(w.row[slot]) for slot in there}:
            used = sum(w.device_used[slot] for slot in there if w.row[slot] == row)
            assert used <= w.row_busy[row] + 1e-9


def test_the_same_seed_gives_the_same_result_and_another_seed_another(setup_of):
    setup = setup_of(seed=3, chaos=Chaos(crash_every_s=10.0))
    first, again = (replay(setup, setup.policy("has-gpu")) for _ in range(2))
    assert first.functions == again.functions
    assert first.series.changes == again.series.changes
    assert first.account.allotments == again.account.allotments
    other = replay(setup.with_seed(4, setup.arrivals), setup.policy("has-gpu"))
    assert other.total.p99_ms != first.total.p99_ms


@pytest.mark.parametrize("policy", AUTOSCALERS)
def test_a_live_adapter_with_the_same_observations_decides_alike(setup_of, policy):
    # What a live controller logs and keeps is texts: observations in, decisions out, the state between.
    setup: ReplaySetup = setup_of((30.0, 60.0), chaos=Chaos(crash_every_s=9.0, blind=((12.0, 15.0),)))
    log: list[tuple[str, str]] = []
    replay(
        setup,
        setup.policy(policy),
        watch=lambda seen, decided: log.append((observation_to_json(seen), decision_to_json(decided))),
    )
    live = Core(
        setup.specs, setup.plan_times, setup.forecaster, registry.policy(policy), setup.settings,
        setup.objectives_ms,
    )  # fmt: skip
    state: dict[str, Any] | None = None
    for seen, decided in log:
        state, decision = live.step(state, observation_from_json(seen))
        assert decision_to_json(decision) == decided
        state = json.loads(json.dumps(state))
    assert any(json.loads(decided)["actions"] for _, decided in log)


def test_an_instance_that_is_there_throughout_costs_its_share_of_the_trace(setup_of):
    setup = setup_of((5.0,), 30.0)
    result = replay(setup, setup.policy("whole-gpu"))
    assert result.account.starts == result.changes == 0
    assert result.total.gpu_seconds == pytest.approx(30.0)
    assert result.whole_gpu_hours == pytest.approx(30.0 / 3600)
    assert result.total.mean_instances == pytest.approx(1.0)
    assert result.total.gpu_seconds_per_1000 == pytest.approx(3e4 / result.total.arrivals)
    assert sum(one.gpu_seconds for one in result.account.allotments) == pytest.approx(30.0)
    # H = 1.5 ms a batch, and batches of one where requests are rare.
    assert result.total.host_core_seconds == pytest.approx(1.5e-3 * result.total.arrivals, rel=0.1)


def test_violations_are_counted_under_other_objectives_of_the_same_run(setup_of):
    spec = function("f0", slo_ms=None, slo_multiplier=3.0)
    setup = setup_of((80.0,), specs=[spec], slo_multipliers=(1.0, 3.0, 1e6))
    result = replay(setup, setup.policy("whole-gpu"))
    one = result.functions["f0"]
    assert one.slo_ms == pytest.approx(3 * one.base_ms)
    assert one.violations_at[3.0] == one.violations
    assert one.violations_at[1.0] > one.violations_at[3.0] >= one.violations_at[1e6]
    assert one.violations_at[1e6] == one.refused + one.lost + one.unfinished
    assert one.violation_share_at(1.0) == one.violations_at[1.0] / one.arrivals


def test_what_waits_at_the_end_has_its_objective_s_time_and_is_unfinished_then(setup_of):
    # One request at the very end is answered; a flood is not, and costs nothing after the end.
    setup = setup_of((1.0,), 20.0, gpus=Gpus(1))
    flood = np.sort(np.append(setup.arrivals["f0"], np.full(900, 19.9)))
    flooded = setup.with_seed(0, {"f0": flood})
    result = replay(flooded, flooded.policy("whole-gpu"))
    assert result.total.unfinished > 100
    assert result.total.gpu_seconds == pytest.approx(20.0)
    late = setup.with_seed(0, {"f0": np.array([19.999])})
    assert replay(late, late.policy("whole-gpu")).total.unfinished == 0


def test_the_minimum_of_instances_is_ready_when_the_trace_begins(setup_of):
    setup = setup_of((5.0,), 20.0)
    result = replay(setup, setup.policy("whole-gpu"))
    assert result.series.column("ready", "f0")[0] == 1
    assert result.total.violations == 0


def test_policies_that_know_the_demand_are_told_what_comes(setup_of):
    setup = setup_of((30.0,), 10.5)
    demand = setup.demand["f0"]
    assert demand.edges_s[-1] == 10.5
    assert (demand.rps * np.diff(demand.edges_s)).sum() == pytest.approx(len(setup.arrivals["f0"]))
    assert setup.policy("static").name == "static"


def test_a_plan_that_is_wrong_by_a_factor_is_corrected(setup_of):
    setup = setup_of((60.0,), chaos=Chaos(model_factor=0.7))
    assert setup.plan_times["f0"].base_ms() == pytest.approx(0.7 * setup.truth_times["f0"].base_ms())
    result = replay(setup, setup.policy("has-gpu"))
    assert result.series.column("correction", "f0")[-1] > 1.1
    (had,) = result.recoveries
    assert (had.disturbance.at_s, had.disturbance.fault.name) == (0.0, "MODEL")


def test_without_requests_there_is_nothing_to_tell(setup_of):
    result = replay(setup_of((0.0,), 10.0), registry.policy("has-gpu"))
    assert result.total.arrivals == result.total.violations == 0
    assert math.isnan(result.total.p99_ms)
    assert math.isnan(result.total.gpu_seconds_per_1000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arrivals": {"f0": np.array([2.0, 1.0])}}, "not in the order of time"),
        ({"arrivals": {"f0": np.array([-1.0, 1.0])}}, "from 0 s"),
        ({"arrivals": {"f0": np.array([1.0, 99.0])}}, "trace's end, 40 s"),
        ({"end_s": 0.0}, "lasts 0 s"),
        ({"slo_multipliers": (0.5,)}, "multiplier is 0.5"),
        ({"chaos": Chaos(lost_gpus=((1.0, "gpu-7"),))}, "no GPU 'gpu-7' to lose: there are gpu-0 to gpu-1"),
    ],
)
def test_a_setup_that_cannot_be_is_told_in_one_line(setup_of, changes, message):
    from dataclasses import replace

    with pytest.raises(ConfigError, match=message):
        replace(setup_of(), **changes)


def test_an_objective_below_the_fastest_configuration_is_told_before_anything_runs(setup_of):
    setup = setup_of((1.0,), specs=[function("f0", slo_ms=2.0)], truth=ConstantSource(8.0))
    with pytest.raises(InfeasibleError, match="objective of 2 ms"):
        setup.check()


def test_a_violation_is_in_the_tick_that_saw_its_arrival(setup_of):
    # Two at once at the end of every other tick: the second waits for the first.
    arrivals = np.repeat(np.arange(2.0, 20.0, 2.0), 2)
    setup = setup_of((1.0,), 20.0, specs=[function("f0", slo_ms=9.5, max_batch=1)], gpus=Gpus(1))
    result = replay(setup.with_seed(0, {"f0": arrivals}), setup.policy("whole-gpu"))
    seen, bad = (result.series.column(name, "f0") for name in ("arrivals", "violations"))
    assert seen.tolist() == [0, 2] * 9 + [0, 0]
    assert result.total.violations >= 9
    assert (bad <= seen).all()
