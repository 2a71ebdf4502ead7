"""Capacity: laws of the rate, and rates against theory and against the replay's event loop."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.capacity.queueing import Asked, queues
from scaler.capacity.rate import WINDOW_MS, capacity_rps, table_rps
from scaler.replay.compiling import COMPILED

SCRIPTS = Path(__file__).parents[3] / "scripts"
BATCH = np.arange(1, 9)

_networks = st.tuples(
    st.floats(2, 60),  # D of a single request, ms
    st.floats(0.1, 1.0),  # what each further one adds, of that
    st.floats(0.05, 3.0),  # H, of that
)
_asked = {
    "network": _networks,
    "batch": st.sampled_from([1, 2, 5, 8]),
    "instances": st.sampled_from([1, 2, 3, 7, 16]),
    "relative": st.floats(0.8, 12.0),
    "quantile": st.sampled_from([0.9, 0.95, 0.99]),
}
_shared = settings(deadline=None, max_examples=40)


def times(network: tuple[float, float, float], batch: int) -> tuple[np.ndarray, np.ndarray]:
    first, growth, host = network
    device = first * (1 + growth * (BATCH[:batch] - 1))
    return device, np.maximum(device, first * host)


@given(**_asked)
@_shared
def test_more_of_anything_serves_more(
    network: tuple[float, float, float], batch: int, instances: int, relative: float, quantile: float
) -> None:
    device, pace = times(network, batch)
    # An idle instance takes 1.16 times its mean at p99.
    slo_ms, quota = max(relative * float(pace[-1]), 1.25 * float(pace[0])), np.linspace(0.05, 1.0, 20)

    def rate(number: int = instances, objective_ms: float = slo_ms, level: float = quantile) -> np.ndarray:
        return capacity_rps(device, pace, quota, number, objective_ms, level)

    found = rate()
    assert found.shape == quota.shape
    assert np.isfinite(found).all()
    # Neither the device nor the tokens can do more.
    n = np.arange(1, batch + 1)
    bound = 1e3 * instances * np.minimum((n / pace).max(), quota * (n / device).max())
    assert (found <= bound * 1.001).all()
    # Chance is left in the table, and where a first little load sets in it is blurred by a step of its grid.
    least = 0.98 * found - 0.015 * bound
    assert (found[1:] >= least[:-1]).all()
    assert (rate(objective_ms=1.3 * slo_ms) >= least).all()
    assert (rate(level=quantile - 0.1) >= least).all()
    # Between the sizes of the table, where the latency is steep, a little more.
    assert (rate(number=2 * instances) >= 1.9 * least).all()


@given(**_asked)
@_shared
def test_with_the_whole_quota_there_is_only_the_queue(
    network: tuple[float, float, float], batch: int, instances: int, relative: float, quantile: float
) -> None:
    device, pace = times(network, batch)
    slo_ms = relative * float(pace[-1])
    load = queues(instances, (batch,), quantile).load_within(Asked.of(relative, pace[0] / pace[-1]))
    assert float(capacity_rps(device, pace, 1.0, instances, slo_ms, quantile)) == pytest.approx(
        float(load) * 1e3 * instances * batch / pace[-1], rel=1e-3, abs=1e-6
    )


def test_many_batches_at_once_are_each_by_itself() -> None:
    networks = [times(network, 8) for network in ((5.0, 0.3, 0.5), (20.0, 0.8, 0.2), (9.0, 0.5, 2.0))]
    device, pace = (np.stack(of) for of in zip(*networks, strict=True))
    quota = np.array([0.1, 0.4, 0.8, 1.0])
    found = table_rps(device, pace, quota, (1, 4, 8), 3, 80.0, 0.99)
    assert found.shape == (3, 3, 4)
    for b, batch in enumerate((1, 4, 8)):
        alone = capacity_rps(device[:, None, :batch], pace[:, None, :batch], quota, 3, 80.0, 0.99)
        np.testing.assert_allclose(found[b], alone, rtol=1e-6)


def test_an_objective_that_an_idle_instance_misses_is_never_met() -> None:
    device, pace = times((10.0, 0.5, 0.1), 4)
    assert capacity_rps(device, pace, 0.5, 4, 9.0, 0.99) == 0.0
    # D / q - W = 60 ms for a single request, and the objective is less.
    assert capacity_rps(device[:1], pace[:1], 0.1, 4, 55.0, 0.99) == 0.0
    assert capacity_rps(device[:1], pace[:1], 0.1, 4, 90.0, 0.99) > 0.0


def test_noise_in_measured_paces_does_not_make_larger_batches_faster() -> None:
    device = np.array([4.0, 5.0, 6.0, 7.0])
    noisy, flat = np.array([8.0, 7.9, 8.1, 8.0]), np.array([8.0, 8.0, 8.1, 8.1])
    assert capacity_rps(device, noisy, 0.7, 2, 40.0, 0.99) == capacity_rps(device, flat, 0.7, 2, 40.0, 0.99)


def test_a_longer_window_saves_more_up() -> None:
    device, pace = times((10.0, 0.5, 0.1), 1)
    rates = [
        float(capacity_rps(device, pace, 0.3, 1, 40.0, 0.99, window_ms=window))
        for window in (0.0, 20.0, 40.0)
    ]
    assert rates[0] < rates[1] < rates[2]
    assert rates[2] == capacity_rps(device, pace, 0.3, 1, 40.0, 0.99, window_ms=WINDOW_MS)


@pytest.fixture(scope="module")
def check() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        yield importlib.import_module("check_capacity")


@pytest.mark.skipif(not COMPILED, reason="needs the extra `fast`: without numba a simulation takes minutes")
@pytest.mark.parametrize(
    ("network", "batch", "quota", "instances", "slo_ms"),
    [
        ((20.0, 0.5, 0.1), 1, 1.0, 2, 60.0),
        ((12.0, 0.3, 0.1), 4, 1.0, 3, 50.0),
        ((10.0, 0.5, 1.5), 1, 0.5, 1, 60.0),
        ((8.0, 0.4, 0.1), 4, 0.6, 4, 60.0),
    ],
)
def test_what_is_predicted_is_what_the_event_loop_serves(
    check: ModuleType,
    network: tuple[float, float, float],
    batch: int,
    quota: float,
    instances: int,
    slo_ms: float,
) -> None:
    device, pace = times(network, batch)
    question = check.Question(device, pace, quota, instances, slo_ms, 0.95)
    predicted = question.predicted_rps()
    there = check.Simulation(question, 30_000, 1)
    # Between these two rates the objective is reached.
    assert there.latency_ms(0.85 * predicted) <= slo_ms <= there.latency_ms(1.25 * predicted)
