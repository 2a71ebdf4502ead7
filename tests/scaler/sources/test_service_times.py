"""Times read between and beyond the knots of their tables, and under the two laws of a quota."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapp.errors import ConfigError
from rapp.recommend import Risk
from rapp.types import ResourceConfig
from scaler.sources.service_times import Gate, ServiceTimes

SM, BATCH = np.array([10.0, 40.0, 100.0]), np.array([1.0, 2.0, 8.0])


def made(gate: Gate | None = None) -> ServiceTimes:
    """D = 100 (1 + batch) / SM^0.5, H = 3 + batch / 10, ms."""
    device = 100 * (1 + BATCH) / np.sqrt(SM[:, None])
    host = np.broadcast_to(3 + BATCH / 10, device.shape)
    memory = np.array([100.0, 200.0, 800.0])
    return ServiceTimes("n", "test", SM, BATCH, device, host, np.full((3, 3), 1.2), memory, gate)


def test_a_power_law_over_sm_and_a_straight_line_over_the_batch_are_met_exactly():
    sm, batch = np.array([10.0, 20.0, 63.0, 100.0])[:, None], np.array([1.0, 1.5, 3.0, 8.0])
    device, host = made().device_and_host_ms(sm, batch)
    np.testing.assert_allclose(device, 100 * (1 + batch) / np.sqrt(sm))
    np.testing.assert_allclose(host, np.broadcast_to(3 + batch / 10, device.shape))


@given(st.lists(st.tuples(st.floats(1, 100), st.floats(1, 100), st.integers(1, 40)), min_size=1, max_size=6))
@settings(deadline=None)
def test_many_questions_at_once_are_each_by_itself(questions: list[tuple[float, float, int]]):
    times = made()
    for risk in Risk:
        together = times.latency_ms(*np.array(questions).T, risk=risk)
        alone = [float(times.latency_ms(*question, risk=risk)) for question in questions]
        np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_beyond_the_axes_device_time_follows_the_sm_partition_and_the_last_step_of_the_batch():
    times = made()
    device, host = times.device_and_host_ms([5.0, 100.0], [1, 20])
    np.testing.assert_allclose(device, [2 * 200 / np.sqrt(10), 100 * 21 / 10])
    np.testing.assert_allclose(host, [3.1, 5.0])
    np.testing.assert_array_equal(times.outside([5, 10, 100, 100], [1, 1, 8, 9]), [True, False, False, True])


def test_the_upper_end_scales_both_times():
    times = made()
    mean, upper = (times.device_and_host_ms(40, [1, 8], risk) for risk in (Risk.MEAN, Risk.UPPER))
    np.testing.assert_allclose(upper, 1.2 * np.array(mean))
    assert times.latency_ms(40, 50, 4, risk=Risk.UPPER) == pytest.approx(1.2 * times.latency_ms(40, 50, 4))


def test_a_quota_of_device_time_is_paid_by_the_device_alone():
    times = made()
    device, host = (float(time) for time in times.device_and_host_ms(40, 2))
    full = float(times.execution_ms(40, 2))
    assert max(device, host) <= full <= max(device, host) * 2 ** (1 / 12)
    assert times.latency_ms(40, 100, 2) == pytest.approx(full)
    assert times.latency_ms(40, 20, 2) == pytest.approx(5 * device)
    assert times.latency_ms(40, 20, 2, credit_ms=30) == pytest.approx(5 * device - 30)
    # A credit that covers the debt leaves what one batch takes alone.
    assert times.latency_ms(40, 20, 2, credit_ms=1e6) == pytest.approx(full)


@given(st.floats(1, 100), st.floats(1, 100), st.floats(1, 100), st.integers(1, 16), st.sampled_from(Risk))
def test_more_quota_is_never_slower_and_the_upper_end_never_faster(sm, first, second, batch, risk):
    gate = Gate(np.array([20.0, 100.0]), np.stack([made().device_ms * 3, made().device_ms], axis=1))
    for times in (made(), made(gate)):
        slow, fast = (float(times.latency_ms(sm, q, batch, risk=risk)) for q in sorted((first, second)))
        assert fast <= slow * (1 + 1e-9)
        assert times.latency_ms(sm, first, batch) <= times.latency_ms(sm, first, batch, risk=Risk.UPPER)


def test_a_gate_answers_from_its_own_table():
    gated = np.array([400.0, 90.0])[None, :, None] * np.ones((3, 1, 3))
    times = made(Gate(np.array([10.0, 100.0]), gated))
    np.testing.assert_allclose(times.latency_ms(10, [10, 100], [[1], [8]]), [[400, 90]] * 2)
    # Straight in logarithms between, and as 1 / quota below.
    np.testing.assert_allclose(times.latency_ms(10, [np.sqrt(1000), 5], 1), [np.sqrt(400 * 90), 800])
    assert times.without_gate().latency_ms(10, 10, 1) > 600


def test_the_fastest_configuration_and_the_base():
    times = made()
    config, latency = times.fastest()
    assert config == ResourceConfig(100, 100, 1)
    assert latency == pytest.approx(times.base_ms()) == pytest.approx(20, rel=1e-3)


def test_memory_is_that_of_the_next_larger_batch():
    assert [made().instance_memory_mib(b) for b in (1, 2, 3, 8, 9)] == [100, 200, 800, 800, 800]


@pytest.mark.parametrize("question", [(0, 50, 1), (101, 50, 1), (50, 0, 1), (50, 101, 1), (50, 50, 0)])
def test_a_value_out_of_its_range(question):
    with pytest.raises(ConfigError):
        made().latency_ms(*question)
