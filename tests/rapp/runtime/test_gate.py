"""The gate's law, exactly, on a virtual clock."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from gate_parts import WINDOW_MS, virtual

from rapp.errors import ConfigError
from rapp.inference.law import credit_ms, log_latency
from rapp.runtime.gate import NAP_NS, GateClosedError

QUOTAS, TIMES_MS, WINDOWS_MS = st.floats(0.5, 100), st.floats(0.05, 120), st.floats(1, 200)


@settings(max_examples=60, deadline=None)
@given(TIMES_MS, QUOTAS, st.floats(0, 100), WINDOWS_MS)
def test_the_closed_loop_takes_what_the_law_says(
    device_ms: float, quota_pct: float, idle_ms: float, window_ms: float
) -> None:
    clock, _, gate = virtual(quota_pct, window_ms)
    for _ in range(3):
        clock.pass_ms(idle_ms)
        latency_ms = clock.took_ms(lambda: gate.run(lambda: clock.pass_ms(device_ms)))
    expected_ms = max(device_ms, device_ms / (quota_pct / 100) - min(idle_ms, window_ms))
    assert latency_ms == pytest.approx(expected_ms, rel=1e-4, abs=1e-3)


@settings(max_examples=40, deadline=None)
@given(TIMES_MS, QUOTAS, st.floats(0, 60))
def test_the_predictors_law_is_the_gates(device_ms: float, quota_pct: float, idle_ms: float) -> None:
    clock, block, gate = virtual(quota_pct)
    for _ in range(3):
        clock.pass_ms(idle_ms)
        latency_ms = clock.took_ms(lambda: gate.run(lambda: clock.pass_ms(device_ms)))
    row = np.array([math.log(device_ms)])
    # The law rounds its corners; so sharp, it does by less than 0.1 %. The host is ten times faster.
    found, _, _ = log_latency(
        row, row - math.log(10), np.array([block.quota_pct / 100]), np.array([True]),
        credit_ms(idle_ms, WINDOW_MS), sharpness=1000.0,
    )  # fmt: skip
    assert latency_ms == pytest.approx(math.exp(found[0]), rel=0.01)


@settings(max_examples=60, deadline=None)
@given(
    QUOTAS,
    WINDOWS_MS,
    st.lists(st.tuples(st.floats(0, 150), st.floats(0, 100), st.floats(0, 30)), min_size=1, max_size=12),
)
def test_no_stretch_of_time_gets_more_than_its_share_and_a_window(
    quota_pct: float, window_ms: float, steps: list[tuple[float, float, float]]
) -> None:
    """Idle, run (device time within a longer wall time), charge by hand: the bound holds at every release."""
    clock, block, gate = virtual(quota_pct, window_ms, empty=False)
    releases = [(clock.now_ns, 0.0)]
    used_ms = 0.0
    for number, (idle_ms, device_ms, host_ms) in enumerate(steps):
        clock.pass_ms(idle_ms)
        if number % 3 == 2:
            clock.pass_ms(device_ms + host_ms)
            gate.charge(device_ms)
            gate.wait()
        else:
            gate.run(lambda ms=device_ms + host_ms: clock.pass_ms(ms), lambda ms=device_ms: ms)
        used_ms += device_ms
        releases.append((clock.now_ns, used_ms))
    quota = block.quota_pct / 100
    for place, (begun_ns, before_ms) in enumerate(releases):
        for ended_ns, after_ms in releases[place:]:
            elapsed_ms = (ended_ns - begun_ns) / 1e6
            assert after_ms - before_ms <= quota * (elapsed_ms + window_ms) + 1e-5


@pytest.mark.parametrize("quota_pct", [20.0, 50.0, 80.0])
@pytest.mark.parametrize("device_ms", [0.3, 5.0, 60.0, 500.0])
def test_a_saturated_gate_gives_the_whole_quota(quota_pct: float, device_ms: float) -> None:
    clock, _, gate = virtual(quota_pct)
    begun_ns = clock.now_ns
    for _ in range(50):
        gate.run(lambda: clock.pass_ms(device_ms))
    share = 50 * device_ms * 1e6 / (clock.now_ns - begun_ns)
    assert share == pytest.approx(quota_pct / 100, rel=1e-5)


def test_charging_by_hand_loses_nothing_either() -> None:
    clock, _, gate = virtual(80)
    for _ in range(5):
        clock.pass_ms(60)
        gate.charge(60)
        assert clock.took_ms(gate.wait) == pytest.approx(60 / 0.8 - 60)


def test_a_run_held_up_by_its_host_keeps_what_it_earns() -> None:
    """100 ms of device time within 200 ms of wall time at 40 %: 250 ms, although 200 ms earn twice W."""
    clock, _, gate = virtual(40)
    for _ in range(3):
        latency_ms = clock.took_ms(lambda: gate.run(lambda: clock.pass_ms(200), lambda: 100.0))
        assert latency_ms == pytest.approx(250, abs=1e-5)


def test_an_isolated_run_spends_the_full_bucket_first() -> None:
    clock, _, gate = virtual(20, empty=False)
    for idle_ms in (10_000, 15):
        clock.pass_ms(idle_ms)
        latency_ms = clock.took_ms(lambda: gate.run(lambda: clock.pass_ms(60)))
        assert latency_ms == pytest.approx(60 / 0.2 - min(idle_ms, WINDOW_MS))


def test_a_tenth_of_a_percent_is_waited_for_in_naps_that_neither_spin_nor_sleep_on() -> None:
    clock, _, gate = virtual(0.1)
    clock.naps_ns.clear()
    assert clock.took_ms(lambda: gate.run(lambda: clock.pass_ms(2))) == pytest.approx(2000, rel=1e-6)
    assert max(clock.naps_ns) == NAP_NS
    assert len(clock.naps_ns) < 2010 / 5


def test_nothing_earned_is_lost_while_another_thread_runs() -> None:
    clock, _, gate = virtual(80)

    def long_run() -> None:
        clock.pass_ms(90)
        gate.run(lambda: None, lambda: 0.0)
        assert gate.wait()
        assert gate.debt_ms == 0
        clock.pass_ms(110)

    assert clock.took_ms(lambda: gate.run(long_run)) == pytest.approx(200 / 0.8, abs=1e-5)


def test_later_charges_of_others_delay_nobody() -> None:
    clock, _, gate = virtual(50)
    for after_ms in (12, 14, 16):
        clock.at(after_ms, lambda: gate.charge(500))
    assert clock.took_ms(lambda: gate.run(lambda: clock.pass_ms(10))) == pytest.approx(20)
    assert gate.debt_ms == pytest.approx(1500)
    assert clock.took_ms(gate.wait) == pytest.approx(3000)


def test_what_fails_is_charged_and_not_held() -> None:
    clock, block, gate = virtual(50)

    def fail() -> None:
        clock.pass_ms(30)
        raise ValueError("no memory")

    with pytest.raises(ValueError, match="no memory"):
        gate.run(fail)
    with pytest.raises(ZeroDivisionError):
        gate.run(lambda: clock.pass_ms(10), lambda: 1 / 0)
    with pytest.raises(ConfigError, match="device_ms is -1"):
        gate.run(lambda: clock.pass_ms(10), lambda: -1.0)
    assert block.statistics.used_ms == pytest.approx(20 + 30 + 10 + 10)
    assert gate.debt_ms == pytest.approx(5)
    assert clock.took_ms(gate.wait) == pytest.approx(10)


def test_a_time_out_says_that_the_debt_stands() -> None:
    clock, _, gate = virtual(10)
    assert gate.wait(timeout_ms=0)
    gate.charge(5)
    assert not gate.wait(timeout_ms=0)
    assert clock.took_ms(lambda: gate.wait(timeout_ms=20.5)) == pytest.approx(20.5)
    assert not gate.wait(timeout_ms=20)
    assert gate.wait(timeout_ms=9.5)
    for wrong in (-1, math.nan):
        with pytest.raises(ConfigError, match="timeout_ms"):
            gate.wait(timeout_ms=wrong)
    for wrong in (-1, math.nan, math.inf):
        with pytest.raises(ConfigError, match="device_ms"):
            gate.charge(wrong)


def test_closing_hands_out_what_is_done_and_begins_nothing_more() -> None:
    clock, _, gate = virtual(1)
    clock.at(50, gate.close)
    assert clock.took_ms(lambda: gate.run(lambda: clock.pass_ms(30))) == pytest.approx(50, abs=1)
    assert not gate.wait()
    with pytest.raises(GateClosedError):
        gate.run(lambda: pytest.fail("it ran"))


def test_the_block_counts_charges_waits_and_the_largest_debt() -> None:
    clock, block, gate = virtual(50, empty=False)
    for _ in range(3):
        gate.run(lambda: clock.pass_ms(50))
    counted = block.statistics
    assert (counted.launches, counted.groups, counted.waits) == (3, 3, 3)
    assert counted.used_ms == pytest.approx(150)
    assert counted.waited_ms == pytest.approx(300 - WINDOW_MS - 150)
    assert counted.max_debt_ms == pytest.approx(25)
