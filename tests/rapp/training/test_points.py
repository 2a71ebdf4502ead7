"""The fixed list of points to measure."""

from __future__ import annotations

import numpy as np
import pytest

from rapp.inference.posterior import Observations
from rapp.knots import Knots
from rapp.training.dataset import TrainingSet
from rapp.training.points import PLACES, fixed_list, listed, nearest_points
from rapp.types import ResourceConfig

V100 = Knots.around([1, 2, 4, 8], range(5, 101, 5), range(10, 101, 10))
SMALL = Knots.around([1, 4], [10, 40, 70, 100], [20, 60, 100])
SINGLE = Knots.around([2], [30], [100])


def observed(knots: Knots, configs: list[tuple[float, float, float]]) -> Observations:
    """Points at (batch, SM, quota) on the knots."""
    values = np.array(configs, dtype=float)
    count = len(values)
    index = knots.nearest(*values.T)
    return Observations(*index, values[:, 2] / 100, np.arange(count, dtype=float), np.zeros(count, bool))


@pytest.mark.parametrize("knots", [V100, SMALL, SINGLE])
def test_the_list_stands_on_the_trained_axes_without_repetition(knots: Knots) -> None:
    points = fixed_list(knots)
    assert len(set(points)) == len(points) >= 1
    for config in points:
        assert config.batch in knots.trained_batch
        assert config.sm_pct in knots.trained_sm_pct
        assert config.quota_pct in knots.trained_quota_pct


def test_the_first_points_tell_device_and_host_apart() -> None:
    points = fixed_list(V100)
    assert len(points) >= len(PLACES) == 11
    assert points[:3] == (
        ResourceConfig(70, 100, 1),
        ResourceConfig(5, 100, 8),  # device time at its longest
        ResourceConfig(100, 20, 1),  # the host under a quota
    )


def test_the_nearest_measured_point_is_taken_and_none_twice() -> None:
    points = observed(SMALL, [(1, 40, 100), (1, 70, 100), (4, 10, 20), (4, 100, 20)])
    wanted = (ResourceConfig(60, 100, 1), ResourceConfig(70, 100, 1), ResourceConfig(100, 30, 4))
    assert nearest_points(points, SMALL, wanted).tolist() == [1, 0, 3]
    many = fixed_list(SMALL)
    assert sorted(nearest_points(points, SMALL, many).tolist()) == [0, 1, 2, 3]


def test_listed_points_and_the_rest_are_all_points(gated: TrainingSet) -> None:
    points = gated.points["vgg11"]
    given, rest = listed(points, gated.knots, fixed_list(gated.knots)[:5])
    assert len(given) == 5
    assert rest.sum() == len(points) - 5
    assert sorted([*given.log_latency, *points.log_latency[rest]]) == sorted(points.log_latency)
    none, everything = listed(points, gated.knots, ())
    assert len(none) == 0
    assert everything.all()
