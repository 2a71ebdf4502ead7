from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.derive import check_derivable, check_device_time, derive, derived_latency_ms, verify
from profiler.device import DeviceInfo, Failure
from profiler.measure import Measurement
from profiler.outcome import Outcome, Stage, Status
from profiler.plan import Point
from rapp.errors import ConfigError
from rapp.inference.law import credit_ms, log_latency
from rapp.types import QuotaKind, ResourceConfig

INFO = DeviceInfo("d", None, "ort-cuda", "fp32", QuotaKind.GPU_TIME, 40.0, 5.0, 2.0)

times_ms = st.floats(0.1, 1e3)


def measurement(latency_ms: float, device_ms: float | None) -> Measurement:
    return Measurement(latency_ms, latency_ms, None, None, None, None, 0.0, device_ms, 1.0, 20, True)


def point(quota: float = 100.0, batch: int = 1, anchor: int | None = None) -> Point:
    return Point("net", ResourceConfig(50, quota, batch), anchor)


def ok(at: Point, latency_ms: float, device_ms: float | None) -> Outcome:
    return Outcome(at, Status.OK, measurement=measurement(latency_ms, device_ms))


@given(times_ms, st.floats(0, 1), st.floats(1, 100), st.floats(0, 50), st.floats(1, 100))
def test_the_closed_form_of_the_token_bucket(
    latency_ms: float, share: float, quota: float, idle_ms: float, window_ms: float
) -> None:
    """In its fluid limit: the mean is what pays for itself, or the run's own length."""
    device_ms = max(share * latency_ms, 1e-3)
    info = replace(INFO, idle_ms=idle_ms, window_ms=window_ms)
    derived = derived_latency_ms(measurement(latency_ms, device_ms), quota, info)
    assert derived >= latency_ms
    if derived > latency_ms:
        earned = quota / 100 * (derived + min(idle_ms, window_ms))
        assert earned == pytest.approx(device_ms), (
            "the bucket earns in one turn of the loop what a batch costs"
        )
    assert derived_latency_ms(measurement(latency_ms, device_ms), 100, info) == pytest.approx(
        max(latency_ms, device_ms - min(idle_ms, window_ms))
    )


@given(times_ms, st.floats(0.05, 20), st.floats(1, 100), st.floats(0, 10))
def test_it_is_the_law_of_the_predictor_with_a_sharp_maximum(
    device_ms: float, ratio: float, quota: float, idle_ms: float
) -> None:
    host_ms = ratio * device_ms
    info = replace(INFO, idle_ms=idle_ms)
    derived = derived_latency_ms(measurement(max(device_ms, host_ms), device_ms), quota, info)
    soft, _, _ = log_latency(
        np.log([device_ms]), np.log([host_ms]), np.array([quota / 100]), np.array([True]),
        credit_ms(idle_ms, 40.0), sharpness=400.0,
    )  # fmt: skip
    assert float(np.exp(soft[0])) == pytest.approx(derived, rel=0.01)


def test_a_simulated_bucket_in_closed_loop_takes_as_long_as_derived() -> None:
    """Batches of 12 ms, 9 ms of device time, 3 ms pause, window 40 ms: 2,000 of them, debt repaid."""
    device_ms, full_ms, idle_ms, window_ms = 9.0, 12.0, 3.0, 40.0
    info = replace(INFO, idle_ms=idle_ms, window_ms=window_ms)
    for quota in (0.2, 0.5, 0.7, 0.9):
        tokens, walls = 0.0, []
        for _ in range(2000):
            wait = max(0.0, (device_ms - tokens) / quota - full_ms)
            wall = full_ms + wait
            tokens = min(tokens + quota * (wall + idle_ms) - device_ms, quota * window_ms)
            walls.append(wall)
        derived = derived_latency_ms(measurement(full_ms, device_ms), 100 * quota, info)
        assert np.mean(walls[10:]) == pytest.approx(derived, rel=0.01), quota


def test_without_a_known_window_the_pause_counts_whole() -> None:
    info = replace(INFO, idle_ms=7.0, window_ms=None)
    assert derived_latency_ms(measurement(10.0, 10.0), 50, info) == pytest.approx(13.0)


def test_a_derived_point_ends_as_its_base_did() -> None:
    at = point(quota=20)
    assert derive(at, {point(): ok(point(), 10.0, 10.0)}, INFO, "later") == (Status.OK, pytest.approx(48.0))
    assert derive(at, {}, INFO, "not measured: budget") == (Status.SKIPPED, "not measured: budget")
    failed = Outcome(point(), Status.FAILED, "time-out: x", Failure.TIMEOUT, Stage.RUN)
    assert derive(at, {point(): failed}, INFO, "later") == (
        Status.SKIPPED,
        "quota 100 % ended with: time-out: x",
    )
    anchors: Mapping[Point, Outcome] = {point(anchor=0): ok(point(anchor=0), 10.0, 10.0)}
    assert derive(at, anchors, INFO, "later")[0] == Status.SKIPPED, "an anchor is no base"


def test_the_error_of_what_was_measured_after_all() -> None:
    outcomes = [
        ok(point(), 10.0, 10.0),
        ok(point(50), 20.0, 10.0),  # derived: 18
        ok(point(20), 48.0, 10.0),  # derived: 48
        ok(point(20, batch=2), 48.0, 10.0),  # no base
        ok(point(anchor=1), 99.0, 10.0),
    ]
    found = verify(outcomes, INFO)
    assert found is not None
    assert (found.points, found.worst_error) == (2, pytest.approx(0.1))
    assert found.mean_error == pytest.approx(0.05)
    assert verify(outcomes[:1], INFO) is None


def test_what_cannot_be_derived_is_refused() -> None:
    check_derivable(INFO)
    with pytest.raises(ConfigError, match="launch_gate: use --quota-mode measure"):
        check_derivable(replace(INFO, quota_kind=QuotaKind.LAUNCH_GATE))
    check_device_time(ok(point(), 10.0, 9.0))
    check_device_time(Outcome(point(), Status.FAILED, "x", Failure.CRASHED, Stage.RUN))
    with pytest.raises(ConfigError, match="use --quota-mode measure"):
        check_device_time(ok(point(), 10.0, None))
