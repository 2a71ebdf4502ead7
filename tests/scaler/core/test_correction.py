"""Correction: what it learns, how fast, within which bounds, and when it holds still."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapp.errors import ConfigError
from rapp.recommend import Risk
from rapp.types import ResourceConfig
from scaler.core.corrected import bearable_spread, corrected
from scaler.core.correction import LEAST, MOST, Correction, Factor
from scaler.core.decision import Start
from scaler.core.needs import batch_times, instance_need
from scaler.core.observation import InstanceView, Phase
from scaler.core.step import Core
from scaler.sources.service_times import Gate
from scaler.testing.fleet import Fleet, gpus, times_of
from scaler.testing.policy_loop import function

SPEC = function()
PLAIN = times_of(SPEC)


def reported(device: float = 1.0, pace: float = 1.0, batches: int = 40, **changes: Any) -> InstanceView:
    """An instance whose times are off by these factors; its mean batch is 2.5, between two of the table."""
    config = changes.pop("config", ResourceConfig(50.0, 50.0, 4))
    at = batch_times(PLAIN, config.sm_pct, 8)
    device_ms, pace_ms = ((ms[1] + ms[2]) / 2 for ms in (at.device_ms, at.pace_ms))
    return InstanceView(
        "a", "f", "gpu-0", 0, config, Phase.READY, 0.0, batches, int(2.5 * batches),
        pace * pace_ms, device * device_ms, **changes,
    )  # fmt: skip


def after(ticks: int, *instances: InstanceView) -> Correction:
    correction = Correction("tag")
    for _ in range(ticks):
        correction = correction.updated(PLAIN, 8, instances)
    return correction


@pytest.mark.parametrize(("device", "pace"), [(1.0, 1.0), (0.7, 0.7), (1.5, 1.5), (1.0, 1.1), (1.3, 1.0)])
def test_factors_of_device_time_and_pace_are_learned_apart(device: float, pace: float) -> None:
    correction = after(40, reported(device, pace))
    assert correction.device.value == pytest.approx(device, rel=0.03)
    assert correction.pace.value == pytest.approx(pace, rel=0.03)


def test_a_model_that_is_off_by_half_is_learned_within_ten_ticks_but_not_in_one() -> None:
    assert after(1, reported(1.5, 1.5)).pace.value < 1.25
    assert after(10, reported(1.5, 1.5)).pace.value == pytest.approx(1.5, rel=0.05)


@given(
    ticks=st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 100), st.integers(0, 5000)), max_size=30)
)
@settings(deadline=None, max_examples=60)
def test_factors_stay_within_their_bounds_and_survive_json(ticks: list[tuple[float, float, int]]) -> None:
    correction = Correction("tag")
    for device, pace, batches in ticks:
        correction = correction.updated(PLAIN, 8, [reported(device, pace, batches)])
        assert LEAST <= correction.device.value <= MOST
        assert LEAST <= correction.pace.value <= MOST
        assert 0 <= correction.spread <= 1
    assert Correction.of_state(correction.to_state()) == correction


def test_one_wild_tick_moves_a_factor_little() -> None:
    settled = after(30, reported())
    assert settled.updated(PLAIN, 8, [reported(20.0, 20.0)]).pace.value < 1.05


def test_batches_weigh() -> None:
    correction = after(30, reported(pace=1.0, batches=90), reported(pace=1.5, batches=10))
    assert math.log(correction.pace.value) == pytest.approx(0.1 * math.log(1.5), abs=0.03)


def test_who_reports_no_batch_or_no_time_says_nothing() -> None:
    silent = InstanceView("a", "f", "gpu-0", 0, ResourceConfig(50.0, 50.0, 4), Phase.READY, 0.0)
    nothing = InstanceView(
        "a", "f", "gpu-0", 0, ResourceConfig(50.0, 50.0, 4), Phase.READY, 0.0, 5, 5, None, math.nan
    )
    assert after(5, silent, nothing) == Correction("tag")


def test_noise_around_a_quantum_does_not_make_it_flicker() -> None:
    rng, correction, steps = np.random.default_rng(0), Correction("tag"), []
    for _ in range(400):
        wanted = 1.03**1.5 * math.exp(rng.normal(0, 0.02))
        correction = correction.updated(PLAIN, 8, [reported(wanted, wanted)])
        steps.append(correction.pace.step)
    assert np.count_nonzero(np.diff(steps[50:])) <= 2


def test_the_interval_shrinks_with_evidence_and_not_at_once() -> None:
    spreads = [after(ticks, reported(batches=10)).spread for ticks in (0, 1, 5, 60)]
    assert spreads[0] == 1.0
    assert spreads == sorted(spreads, reverse=True)
    assert 0.75 <= spreads[1] < 1.0
    assert 0.1 < spreads[3] < 0.3


def test_corrected_times_are_those_predicted_times_their_factors() -> None:
    sm, quota, batch = np.array([12.0, 50.0, 100.0])[:, None], 30.0, np.array([1, 3, 8])
    times = corrected(PLAIN, device_factor=1.2, pace_factor=1.5, spread=0.5)
    wide = math.sqrt(1.2)
    for risk in Risk:
        device, _ = times.device_and_host_ms(sm, batch, risk)
        assert np.allclose(device, 1.2 * wide * PLAIN.device_and_host_ms(sm, batch)[0])
        pace = times.execution_ms(sm, batch, risk)
        assert np.allclose(pace, 1.5 * wide * PLAIN.execution_ms(sm, batch))
        limited = times.latency_ms(sm, quota, batch, credit_ms=5.0, risk=risk)
        assert np.allclose(limited, np.maximum(pace, device / 0.3 - 5.0))
    with pytest.raises(ConfigError):
        times.latency_ms(50.0, 101.0, 1)


def test_a_pace_is_never_below_its_device_time() -> None:
    times = corrected(PLAIN, device_factor=2.0, pace_factor=0.5, spread=0.0)
    assert (times.execution_ms(50.0, [1, 8]) >= times.device_and_host_ms(50.0, [1, 8])[0]).all()


def test_a_gate_is_corrected_by_its_latency() -> None:
    quotas = np.array([50.0, 100.0])
    gated = np.repeat(PLAIN.device_ms[:, None], 2, axis=1) * np.array([2.0, 1.0])[None, :, None]
    plain = type(PLAIN)(
        PLAIN.network, PLAIN.source, PLAIN.sm_pct, PLAIN.batch, PLAIN.device_ms, PLAIN.host_ms, PLAIN.upper,
        gate=Gate(quotas, gated),
    )  # fmt: skip
    times = corrected(plain, device_factor=1.0, pace_factor=1.3, spread=0.0)
    assert times.latency_ms(50.0, 50.0, 4) == pytest.approx(1.3 * float(plain.latency_ms(50.0, 50.0, 4)))


def test_what_an_instance_needs_does_not_change_with_corrections() -> None:
    config = ResourceConfig(40.0, 30.0, 4)
    times = corrected(PLAIN, device_factor=0.6, pace_factor=1.9, spread=1.0)
    assert instance_need(SPEC, times, 100.0, config) == instance_need(SPEC, PLAIN, 100.0, config)
    need = instance_need(SPEC, PLAIN, 100.0, config)
    # H = 1.5 ms of every D / q, D = 8 x 2.8 / 0.4 ms.
    assert need.host_cores == pytest.approx(1.5 / (8 * 2.8 / 0.4 / 0.3), rel=1e-6)
    assert instance_need(function(host_cores=0.7), PLAIN, 100.0, config).host_cores == 0.7


def test_correction_is_frozen_while_an_instance_starts_and_in_the_tick_after_one_began(
    core_of: Callable[..., Core],
) -> None:
    core = core_of()
    fleet, state, seen = Fleet([SPEC], gpus(4), {"f": PLAIN}, off=1.4), None, []
    for _ in range(40):
        starting = any(one.phase == Phase.STARTING for one in fleet.instances.values())
        before = {} if state is None else state["functions"]["f"]["correction"]
        state, decision = core.step(state, fleet.observe({"f": 60}))
        moved = bool(before) and state["functions"]["f"]["correction"]["pace"][1] != before["pace"][1]
        began = any(isinstance(one, Start) for one in decision.actions)
        seen.append((starting, moved, began))
        fleet.apply(decision)
        fleet.advance(1.0)
    assert not any(moved for starting, moved, _ in seen if starting)
    for (was_starting, _, began), (_, moved, _) in pairwise(seen):
        assert not (moved and (began or was_starting))
    assert any(moved for _, moved, _ in seen)
    assert decision.outlook["f"].correction == pytest.approx(1.4, rel=0.05)


def test_a_wide_interval_is_planned_with_as_far_as_the_objective_bears_it() -> None:
    fastest_ms = PLAIN.base_ms()
    for upper in (1.1, 1.5, 3.0):
        wide = replace(PLAIN, upper=np.full_like(PLAIN.upper, upper))
        for objective in (0.9, 1.1, 2.0, 6.0):
            spread = bearable_spread(wide, 1.0, objective * fastest_ms)
            # What it takes up is half of what the mean leaves at most, and all of that but for a step of 1/8.
            most = max(math.log(objective), 0.0) / 2 / math.log(upper)
            assert spread <= most + 1e-9
            assert spread > min(most, 1.0) - 0.125 - 1e-9
    # Observed to be slower, less is left.
    assert bearable_spread(wide, 1.9, 2.0 * fastest_ms) < bearable_spread(wide, 1.0, 2.0 * fastest_ms)


def test_of_other_times_nothing_is_known(core_of: Callable[..., Core]) -> None:
    core = core_of()
    state, _ = core.step(None, Fleet([SPEC], gpus(1), {"f": PLAIN}).observe({"f": 1}))
    state["functions"]["f"]["correction"] = {
        "tag": "another", "device": [0.4, 99.0, 13], "pace": [0.4, 99.0, 13], "spread_step": 2,
    }  # fmt: skip
    _, decision = core.step(state, Fleet([SPEC], gpus(1), {"f": PLAIN}, now_s=1.0).observe({"f": 1}))
    assert decision.outlook["f"].correction == Factor().value == 1.0
