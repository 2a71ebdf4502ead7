"""A gate whose quota, window or mode changes while it works, on a virtual clock."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from gate_parts import WINDOW_MS, virtual

from rapp.runtime.gate import NAP_NS
from rapp.runtime.quota_layout import BlockFault, QuotaBlockError, QuotaMode


@pytest.mark.parametrize("change_at_ms", [0.5, 3.7, 10.0, 79.0])
def test_a_raised_quota_repays_the_rest_of_the_debt_at_the_new_rate(change_at_ms: float) -> None:
    clock, block, gate = virtual(20)
    clock.at(20 + change_at_ms, lambda: setattr(block, "quota_pct", 80))
    held_ms = clock.took_ms(lambda: gate.run(lambda: clock.pass_ms(20))) - 20
    # 16 ms of debt. The nap in which the quota changes counts half for the old and half for the new one.
    expected_ms = change_at_ms + (16 - 0.2 * change_at_ms) / 0.8
    assert held_ms == pytest.approx(expected_ms, abs=NAP_NS / 1e6 / 2)


def test_a_lowered_quota_stretches_the_rest_of_the_debt() -> None:
    clock, block, gate = virtual(80)
    clock.at(100 + 10, lambda: setattr(block, "quota_pct", 10))
    held_ms = clock.took_ms(lambda: gate.run(lambda: clock.pass_ms(100))) - 100
    # What half a nap earns at the old quota takes eight times as long at the new one.
    assert held_ms == pytest.approx(10 + (20 - 8) / 0.1, abs=8 * NAP_NS / 1e6 / 2)


def test_a_change_during_a_run_costs_nothing_on_average() -> None:
    took_ms = []
    for change_at_ms in range(2, 100, 5):
        clock, block, gate = virtual(80)
        clock.at(change_at_ms, lambda block=block: setattr(block, "quota_pct", 20))
        took_ms.append(clock.took_ms(lambda clock=clock, gate=gate: gate.run(lambda: clock.pass_ms(100))))
    exact_ms = [100 + (100 - 0.8 * t - 0.2 * (100 - t)) / 0.2 for t in range(2, 100, 5)]
    assert statistics.mean(took_ms) == pytest.approx(statistics.mean(exact_ms), rel=0.01)


def test_a_lowered_quota_or_window_makes_the_bucket_smaller_at_once() -> None:
    clock, block, gate = virtual(100, empty=False)
    clock.pass_ms(1000)
    block.quota_pct = 10
    assert clock.took_ms(lambda: gate.run(lambda: clock.pass_ms(10))) == pytest.approx(10 / 0.1 - WINDOW_MS)
    block.window_ms = 5
    clock.pass_ms(1000)
    assert clock.took_ms(lambda: gate.run(lambda: clock.pass_ms(10))) == pytest.approx(95)


def test_mode_off_limits_nothing_and_forgives_the_debt() -> None:
    clock, block, gate = virtual(10)
    clock.at(35, lambda: setattr(block, "mode", QuotaMode.OFF))
    assert clock.took_ms(lambda: gate.run(lambda: clock.pass_ms(30))) == pytest.approx(35, abs=1)
    assert clock.took_ms(lambda: gate.run(lambda: clock.pass_ms(30))) == pytest.approx(30)
    gate.charge(30)
    block.mode = QuotaMode.GPU_TIME
    assert gate.wait(timeout_ms=0)
    assert clock.took_ms(lambda: gate.run(lambda: clock.pass_ms(30))) == pytest.approx(300)


def test_a_quota_that_cannot_be_is_no_silent_standstill() -> None:
    clock, block, gate = virtual(50)
    gate.charge(100)
    clock.at(5, lambda: block._u32.__setitem__(4, 0))
    with pytest.raises(QuotaBlockError, match="quota_ppm 0") as caught:
        gate.wait()
    assert caught.value.fault is BlockFault.VALUE
