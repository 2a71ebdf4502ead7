"""The parts of `rapp live`: its trace, its account, and what it compares."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapp.types import ResourceConfig
from scaler.arrivals import RateSteps
from scaler.core.decision import Action, Decision, Drain, Reason, Resize, Start
from scaler.core.observation import GpuView, InstanceView, Observation, Phase
from scaler.core.settings import Settings
from scaler.functions import FunctionSpec
from scaler.live.foretelling import foretold
from scaler.live.live import Compared
from scaler.live.load_records import LoadRecords
from scaler.live.load_report import LoadFigures, LoadReport
from scaler.live.rehearsal import Rehearsed
from scaler.live.swing import HIGH, swing, write_rates
from scaler.live.tick import Mode, Tick
from scaler.live.trial import Outcome, Trial
from scaler.live.trial_control import Controlled, Sample, Samples, gpu_seconds
from scaler.sources.opening import open_source
from scaler.sources.scaled import Scaled
from scaler.trace import ArrivalProcess, Trace

WHY = Reason.POLICY


def test_the_swing_brings_each_function_to_its_top_and_only_one_at_a_time() -> None:
    unit = {"a": 40.0, "b": 10.0}
    rates = swing(unit).rates(tuple(unit))
    level = {name: rates[name] / unit[name] for name in unit}
    for own in level.values():
        assert own.max() == pytest.approx(HIGH)
        assert own.min() == 0
    # One at a time, and before its turn long enough nothing to go to zero.
    assert np.minimum(level["a"], level["b"]).max() == 0
    assert (level["b"][:100] == 0).all()
    assert level["a"].argmax() < level["b"].argmax()


def test_the_swing_is_written_as_a_trace_that_reads_back(tmp_path: Path) -> None:
    made = swing({"a": 40.0, "b": 10.0})
    write_rates(made, ("a", "b"), tmp_path / "trace.csv")
    again = Trace.read(tmp_path / "trace.csv")
    assert again.duration_s == pytest.approx(made.duration_s, abs=5)
    for name, rates in made.rates(("a", "b")).items():
        read = again.rates(("a", "b"))[name]
        np.testing.assert_allclose(read[: len(rates) - 5], rates[: len(read)][:-5], atol=1e-3)


def sample(at_s: float, share: float) -> Sample:
    return Sample(at_s, share, 1, 0, 0, 0)


def test_cost_is_what_each_tick_set_until_the_next() -> None:
    samples = [sample(0.0, 1.0), sample(2.0, 0.5), sample(3.0, 0.25)]
    assert gpu_seconds(samples, 1.0, 5.0) == pytest.approx(1.0 + 0.5 + 2 * 0.25)
    assert gpu_seconds(samples, 2.5, 2.75) == pytest.approx(0.125)
    assert gpu_seconds([], 0.0, 1.0) == 0.0


@given(
    shares=st.lists(st.floats(0, 2), min_size=1, max_size=8), cut=st.floats(0, 8), end=st.floats(8.0, 20.0)
)
def test_costs_of_two_parts_add_up(shares: list[float], cut: float, end: float) -> None:
    samples = [sample(float(k), share) for k, share in enumerate(shares)]
    whole = gpu_seconds(samples, 0.0, end)
    assert gpu_seconds(samples, 0.0, cut) + gpu_seconds(samples, cut, end) == pytest.approx(whole)


def tick(mode: Mode, *actions: Action, refused: tuple[str, ...] = ()) -> Tick:
    there = InstanceView("a", "f", "g", 0, ResourceConfig(50, 40, 1), Phase.READY, 0.0)
    seen = Observation(1.0, {}, (there,))
    return Tick(0, seen, Decision(actions), mode, tuple((id_, "no") for id_ in refused), 0.0)


def test_a_sample_holds_what_was_changed_and_not_what_was_refused() -> None:
    kept = Samples()
    resize, start = Resize("a", "f", 80.0, 1, WHY), Start("b", "f", "g", 1, ResourceConfig(50, 20, 1), WHY)
    kept.on_tick(tick(Mode.APPLIED, resize, start))
    kept.on_tick(tick(Mode.APPLIED, resize, start, refused=("b",)))
    kept.on_tick(tick(Mode.FAILED, resize, start))
    kept.on_tick(tick(Mode.APPLIED, Drain("a", "f", WHY)))
    assert [one.gpu_share for one in kept.kept] == pytest.approx([0.5, 0.4, 0.2, 0.2])
    assert [(one.starts, one.resizes, one.drains) for one in kept.kept] == [
        (1, 1, 0), (0, 1, 0), (0, 0, 0), (0, 0, 1),
    ]  # fmt: skip


def spec() -> FunctionSpec:
    return FunctionSpec.model_validate({"name": "f", "network": "f", "slo_ms": 200, "max_batch": 2})


def test_what_is_foretold_serves_what_the_policy_can_and_costs_what_it_sets_aside() -> None:
    demand = {"f": RateSteps(np.array([0.0, 60.0]), np.array([10.0]))}
    controlled = Controlled((spec(),), "constant:20", {}, "static", "last-value", Settings(), demand)
    trace = Trace.of({"f": demand["f"]})
    arrivals = trace.arrivals(["f"], ArrivalProcess.POISSON, 0)
    found = foretold(controlled, arrivals, 60.0, GpuView("cpu:0", 8000.0, 2.0), None, seed=0)
    assert 0 < found.gpu_seconds <= 60.0
    assert found.violation_share < 0.05
    assert found.p50_ms >= 20
    assert found == foretold(controlled, arrivals, 60.0, GpuView("cpu:0", 8000.0, 2.0), None, seed=0)


def test_a_comparison_tells_how_far_off_it_was_and_is_json() -> None:
    figures = LoadFigures(
        requests=10, unfinished=0, answered=10, refused=0, errors={}, violations=1, slo_ms=200.0,
        intended_rps=1.0, sent_rps=1.0, answered_rps=1.0, mean_ms=1.0, p50_ms=1.0, p95_ms=1.0, p99_ms=None,
        max_ms=1.0,
    )  # fmt: skip
    nothing = np.empty(0)
    report = LoadReport(
        functions={"f": figures}, total=figures, lag_p50_ms=0.0, lag_p99_ms=0.0, lag_max_ms=0.0, waited=0,
        cpu_s=1.0, wall_s=10.0, interrupted=False,
        records=LoadRecords(("f",), *(nothing for _ in range(5))),
    )  # fmt: skip
    live = Outcome(100.0, 0.10, 1.0, math.nan, 2, 12, 1)
    compared = Compared("hybrid", Trial(live, report, 0.1, 0.2, 0), Outcome(90.0, 0.07, 1.0, 2.0, 2, 9, 1))
    assert compared.cost_off_pct == pytest.approx(-10.0)
    assert compared.violations_off == pytest.approx(-3.0)
    told = compared.to_json()
    assert told["live"]["p99_ms"] is None
    assert told["foretold"]["resizes"] == 9


def test_rehearsed_times_are_those_of_the_plan_times_the_factor_of_the_function() -> None:
    plain = open_source("constant:20,5")
    known, other = spec(), spec().model_copy(update={"name": "g"})
    source = Scaled(plain, {"f": 1.25})
    assert source.times(known).base_ms() == pytest.approx(1.25 * plain.times(known).base_ms())
    assert source.times(other).base_ms() == pytest.approx(plain.times(other).base_ms())


def test_time_outside_of_batches_is_in_the_latencies_that_are_foretold() -> None:
    demand = {"f": RateSteps(np.array([0.0, 20.0]), np.array([5.0]))}
    arrivals = Trace.of({"f": demand["f"]}).arrivals(["f"], ArrivalProcess.POISSON, 0)
    found = []
    for outside_ms in (0.0, 7.0):
        rehearsed = {"f": Rehearsed(1.0, outside_ms, 1.0)}
        controlled = Controlled(
            (spec(),), "constant:20", rehearsed, "static", "last-value", Settings(), demand
        )
        found.append(foretold(controlled, arrivals, 20.0, GpuView("cpu:0", 8000.0, 2.0), None, seed=0))
    assert found[1].p50_ms == pytest.approx(found[0].p50_ms + 7.0)
    assert found[1].gpu_seconds == found[0].gpu_seconds
