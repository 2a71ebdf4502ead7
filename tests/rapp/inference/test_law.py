"""The laws: derivatives, closed forms, isotonic smoothing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rapp.inference.law import SHARPNESS, credit_ms, log_latency, non_increasing, soft_maximum

log_times = st.floats(-2.0, 7.0)
quotas = st.floats(0.05, 1.0)


def latency(
    device: float,
    host: float,
    quota: float,
    *,
    gpu_time: bool,
    credit: float = 0.0,
    sharpness: float = SHARPNESS,
) -> tuple[float, float, float]:
    arrays = (np.array([value]) for value in (device, host, quota))
    answer = log_latency(*arrays, np.array([gpu_time]), credit, sharpness)
    return tuple(float(value[0]) for value in answer)  # type: ignore[return-value]


class TestLogLatency:
    @given(
        device=log_times,
        host=log_times,
        quota=quotas,
        gpu_time=st.booleans(),
        credit=st.sampled_from((0.0, 1.0, 5.0, 40.0)),
        sharpness=st.sampled_from((3.0, SHARPNESS)),
    )
    @settings(deadline=None, max_examples=300)
    def test_derivatives_are_those_of_finite_differences(
        self, device: float, host: float, quota: float, gpu_time: bool, credit: float, sharpness: float
    ) -> None:
        step = 1e-5
        # Where the credit covers the debt up to its floor the law has a kink, and no derivative.
        if abs(math.exp(device) / quota - credit - 1e-3 * math.exp(device)) < 1e-2 * math.exp(device):
            return

        def at(d: float, h: float) -> float:
            return latency(d, h, quota, gpu_time=gpu_time, credit=credit, sharpness=sharpness)[0]

        _, by_device, by_host = latency(
            device, host, quota, gpu_time=gpu_time, credit=credit, sharpness=sharpness
        )
        assert by_device == pytest.approx(
            (at(device + step, host) - at(device - step, host)) / (2 * step), abs=2e-4, rel=2e-3
        )
        assert by_host == pytest.approx(
            (at(device, host + step) - at(device, host - step)) / (2 * step), abs=2e-4
        )

    @pytest.mark.parametrize("quota", [0.1, 0.25, 0.5, 1.0])
    def test_gpu_time_saturated_is_device_time_over_quota(self, quota: float) -> None:
        found = math.exp(latency(math.log(30), math.log(0.1), quota, gpu_time=True)[0])
        # Also at quota 1, where nothing is owed: both sides are equal then, and a soft maximum would add 6 %.
        assert found == pytest.approx(30 / quota, rel=1e-4)

    @pytest.mark.parametrize(("quota", "idle"), [(0.1, 5.0), (0.25, 20.0), (0.5, 3.0)])
    def test_gpu_time_pays_back_what_was_saved_while_idle(self, quota: float, idle: float) -> None:
        found = math.exp(latency(math.log(30), math.log(0.1), quota, gpu_time=True, credit=idle)[0])
        assert found == pytest.approx(30 / quota - idle, rel=1e-4)

    def test_gpu_time_whose_credit_covers_the_debt_runs_at_full_pace(self) -> None:
        found = math.exp(latency(math.log(3), math.log(0.1), 0.5, gpu_time=True, credit=40.0)[0])
        assert found == pytest.approx(3.0, rel=1e-4)

    def test_gpu_time_held_up_by_the_host_does_not_feel_the_quota(self) -> None:
        found = math.exp(latency(math.log(2), math.log(50), 0.1, gpu_time=True)[0])
        assert found == pytest.approx(50.0, rel=1e-4)

    @pytest.mark.parametrize(("device", "host"), [(30.0, 3.0), (3.0, 30.0)])
    def test_a_launch_gate_takes_the_slower_of_device_and_host(self, device: float, host: float) -> None:
        found = math.exp(latency(math.log(device), math.log(host), 0.1, gpu_time=False)[0])
        assert found == pytest.approx(30.0, rel=1e-4)

    def test_rows_of_both_kinds_mix(self) -> None:
        device, host, quota = np.log([30.0, 30.0]), np.log([3.0, 3.0]), np.array([0.5, 0.5])
        found, _, _ = log_latency(device, host, quota, np.array([True, False]), 0.0)
        np.testing.assert_allclose(np.exp(found), [60.0, 30.0], rtol=1e-3)

    @given(device=log_times, host=log_times, first=quotas, second=quotas)
    @settings(deadline=None)
    def test_more_quota_is_never_slower(
        self, device: float, host: float, first: float, second: float
    ) -> None:
        less, more = sorted((first, second))
        slow, fast = (latency(device, host, q, gpu_time=True, credit=5.0)[0] for q in (less, more))
        assert fast <= slow + 1e-12


class TestSoftMaximum:
    @given(a=st.floats(-300, 300), b=st.floats(-300, 300))
    def test_lies_between_the_maximum_and_the_maximum_times_its_excess(self, a: float, b: float) -> None:
        found = float(soft_maximum(a, b))
        assert max(a, b) - 1e-9 <= found <= max(a, b) + math.log(2) / SHARPNESS + 1e-9

    def test_equal_sides_add_6_percent(self) -> None:
        assert math.exp(float(soft_maximum(0.0, 0.0))) == pytest.approx(1.059, abs=1e-3)


def test_credit_is_what_fits_into_the_window() -> None:
    assert credit_ms(5.0, 20.0) == 5.0
    assert credit_ms(500.0, 20.0) == 20.0
    assert credit_ms(0.0, 20.0) == 0.0


def brute_force(values: np.ndarray) -> np.ndarray:
    """Least squares over all ways to cut `values` into blocks with non-increasing means."""
    best, least = values, math.inf
    for cuts in itertools.product((False, True), repeat=len(values) - 1):
        blocks = np.split(values, [i + 1 for i, cut in enumerate(cuts) if cut])
        means = [block.mean() for block in blocks]
        if any(later > earlier + 1e-12 for earlier, later in itertools.pairwise(means)):
            continue
        fitted = np.concatenate([np.full(len(b), m) for b, m in zip(blocks, means, strict=True)])
        error = float(((fitted - values) ** 2).sum())
        if error < least:
            best, least = fitted, error
    return best


class TestNonIncreasing:
    @given(hnp.arrays(np.float64, st.integers(1, 7), elements=st.floats(-3, 3)))
    @settings(deadline=None)
    def test_is_the_projection_that_brute_force_finds(self, values: np.ndarray) -> None:
        np.testing.assert_allclose(non_increasing(values), brute_force(values), atol=1e-9)

    @given(hnp.arrays(np.float64, (2, 3, 6), elements=st.floats(-3, 3)))
    def test_works_along_the_last_axis_and_changes_nothing_the_second_time(self, table: np.ndarray) -> None:
        found = non_increasing(table)
        assert (np.diff(found, axis=-1) <= 1e-12).all()
        np.testing.assert_allclose(found[1, 2], non_increasing(table[1, 2]), atol=1e-12)
        np.testing.assert_allclose(non_increasing(found), found, atol=1e-9)

    def test_leaves_what_does_not_increase_as_it_is(self) -> None:
        table = np.array([[3.0, 2.0, 2.0, -1.0]])
        np.testing.assert_allclose(non_increasing(table), table, atol=1e-12)
