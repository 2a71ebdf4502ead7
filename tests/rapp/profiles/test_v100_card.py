"""The figures of the data card `datasets/v100.md`, computed again from the data."""

from __future__ import annotations

import numpy as np
import pytest

from rapp.profiles.has_gpu import PUBLIC_GRID


@pytest.fixture(scope="module")
def latency_ms(v100) -> dict[str, np.ndarray]:
    """Network -> (S, Q, B) array over the public grid, NaN where it was not measured."""
    axes = [
        np.asarray(axis, float) for axis in (PUBLIC_GRID.sm_pct, PUBLIC_GRID.quota_pct, PUBLIC_GRID.batch)
    ]
    cubes = {}
    for network in v100.networks():
        points = v100.points(network)
        place = tuple(
            np.searchsorted(axis, values)
            for axis, values in zip(axes, (points.sm_pct, points.quota_pct, points.batch), strict=True)
        )
        cubes[network] = np.full(PUBLIC_GRID.shape, np.nan)
        cubes[network][place] = points.latency_ms
    return cubes


def test_size_and_range(v100):
    assert (len(v100), len(v100.networks())) == (45_328, 57)
    values = v100.column("latency_ms")
    assert (values.min(), values.max()) == (pytest.approx(2.37, abs=0.01), pytest.approx(1930.8, abs=0.1))


def test_a_launch_gate_does_not_slow_a_device_bound_network(latency_ms):
    vgg19, resnet50 = latency_ms["vgg19"][0, :, 3], latency_ms["resnet50"][19, :, 0]
    assert vgg19.max() / vgg19.min() < 1.01
    assert vgg19[0] == pytest.approx(311.7, abs=0.1)
    assert (resnet50[0], resnet50[9]) == (pytest.approx(254.5, abs=0.1), pytest.approx(20.6, abs=0.1))


def test_latency_is_near_the_larger_of_device_and_host_time(latency_ms):
    """D is the latency at quota 100 %, H the median over SM > 50 % at batch 1; quotas under 100 %."""
    errors = []
    for cube in latency_ms.values():
        device, host = cube[:, 9, :], np.nanmedian(cube[10:, :, 0], axis=0)
        error = np.abs(np.maximum(device[:, None, :], host[None, :, None]) / cube - 1)[:, :9]
        errors.append(error[np.isfinite(error)])
    every = np.concatenate(errors)
    assert every.mean() == pytest.approx(0.0487, abs=0.001)
    assert np.median(every) == pytest.approx(0.0216, abs=0.001)


@pytest.mark.parametrize(("axis", "slower"), [(0, 0.227), (1, 0.050)])
def test_steps_to_more_that_are_slower_by_two_percent(latency_ms, axis, slower):
    steps = [np.exp(np.diff(np.log(cube), axis=axis)) for cube in latency_ms.values()]
    every = np.concatenate([step[np.isfinite(step)] for step in steps])
    assert (every > 1.02).mean() == pytest.approx(slower, abs=0.002)
