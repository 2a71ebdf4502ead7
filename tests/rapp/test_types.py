"""The project's words reject what is out of range, and enumerate a grid in the order of its arrays."""

from __future__ import annotations

import dataclasses
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapp.errors import ConfigError
from rapp.types import LatencyGrid, MeasuredPoint, QuotaKind, ResourceConfig, ResourceGrid

percents = st.floats(min_value=0, max_value=100, exclude_min=True)
batches = st.integers(min_value=1, max_value=4096)
axis_pct = st.lists(percents, min_size=1, max_size=5)
axis_batch = st.lists(batches, min_size=1, max_size=4)
not_percents = st.floats().filter(lambda value: not 0 < value <= 100)  # NaN and infinities included
not_batches = st.one_of(
    st.integers(max_value=0),
    st.floats().filter(lambda value: not (math.isfinite(value) and value >= 1 and value.is_integer())),
)


@given(percents, percents, batches)
def test_a_configuration_in_range_keeps_its_values(sm: float, quota: float, batch: int) -> None:
    config = ResourceConfig(sm, quota, batch)
    assert (config.sm_pct, config.quota_pct, config.batch) == (sm, quota, batch)
    assert 0 <= config.gpu_share <= 1 + 1e-12
    assert pickle.loads(pickle.dumps(config)) == config


@given(not_percents)
def test_a_percentage_out_of_range_is_named(value: float) -> None:
    with pytest.raises(ConfigError, match=r"^sm_pct is .*\(0, 100\]"):
        ResourceConfig(value, 50)
    with pytest.raises(ConfigError, match=r"^quota_pct is "):
        ResourceConfig(50, value)
    with pytest.raises(ConfigError, match=r"^sm_pct is "):
        ResourceGrid(sm_pct=(10, value))
    with pytest.raises(ConfigError, match=r"^quota_pct is "):
        ResourceGrid(quota_pct=(value,))


@given(not_batches)
def test_a_batch_that_is_no_whole_number_from_1_is_named(value: float) -> None:
    with pytest.raises(ConfigError, match=r"^batch is .*whole number"):
        ResourceConfig(50, 50, value)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^batch is "):
        ResourceGrid(batch=(1, value))  # type: ignore[arg-type]


def test_the_share_of_the_gpu() -> None:
    assert ResourceConfig(50, 40).gpu_share == pytest.approx(0.2)
    assert ResourceConfig(100, 100).gpu_share == 1


@given(axis_pct, axis_pct, axis_batch)
def test_a_grid_runs_in_the_order_of_ravel(sm: list[float], quota: list[float], batch: list[int]) -> None:
    grid = ResourceGrid(sm, quota, batch)
    assert grid.shape == (len(sm), len(quota), len(batch))
    assert len(grid) == math.prod(grid.shape)
    sms, quotas, sizes = np.meshgrid(sm, quota, batch, indexing="ij")
    expected = list(zip(sms.ravel(), quotas.ravel(), sizes.ravel(), strict=True))
    assert [(one.sm_pct, one.quota_pct, one.batch) for one in grid] == expected


def test_the_default_grid_is_that_of_the_public_profiles() -> None:
    grid = ResourceGrid()
    assert grid.shape == (20, 10, 4)
    assert (grid.sm_pct[0], grid.sm_pct[-1], grid.quota_pct[0], grid.quota_pct[-1]) == (5, 100, 10, 100)


@pytest.mark.parametrize("axis", ["sm_pct", "quota_pct", "batch"])
def test_an_empty_axis_is_named(axis: str) -> None:
    with pytest.raises(ConfigError, match=f"axis {axis} .*empty"):
        ResourceGrid(**{axis: ()})


@given(st.floats().filter(lambda value: not (math.isfinite(value) and value > 0)))
def test_a_measured_latency_is_a_positive_number(latency_ms: float) -> None:
    with pytest.raises(ConfigError, match="latency_ms is "):
        MeasuredPoint(ResourceConfig(50, 50), latency_ms)


def test_a_quota_kind_is_written_as_in_a_table() -> None:
    assert f"{QuotaKind.GPU_TIME} {QuotaKind('launch_gate')}" == "gpu_time launch_gate"


def test_values_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ResourceConfig(50, 50).batch = 2  # type: ignore[misc]


def test_latency_grids_compare_by_identity() -> None:
    grid, zeros = ResourceGrid(), np.zeros((20, 10, 4))
    one, two = (LatencyGrid(grid, *[zeros] * 5, extrapolated=zeros > 0) for _ in range(2))
    assert one == one
    assert one != two
