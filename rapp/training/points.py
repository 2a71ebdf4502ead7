"""The fixed list of configurations to measure of a new network, best first."""

from __future__ import annotations

import numpy as np

from rapp.evaluation.points import distance
from rapp.inference.posterior import Observations
from rapp.knots import IndexArray, Knots
from rapp.training.dataset import subset
from rapp.types import ResourceConfig

# Where on the axes: batch as a share of the largest, SM partition in %, quota in %. The list tells the
# two sides apart: full quota with small and large batches for device time, throttled ones for the host.
# The SM partitions are spread, since each was a process of its own with a host speed of its own.
# Chosen by reasoning about the law and by errors on eight folds of another seed than the protocols'.
PLACES = (
    (0.0, 70, 100), (1.0, 5, 100), (0.0, 100, 20), (1.0, 40, 10), (0.0, 20, 60), (1.0, 20, 100),
    (0.0, 90, 30), (0.5, 100, 100), (0.0, 50, 40), (0.0, 85, 80), (1.0, 60, 50),
)  # fmt: skip


def fixed_list(knots: Knots) -> tuple[ResourceConfig, ...]:
    """`PLACES` on the trained axes, without repetition, then a coarse grid of them."""
    batch, sm, quota = knots.trained_batch, knots.trained_sm_pct, knots.trained_quota_pct
    chosen: dict[ResourceConfig, None] = {}
    for share, sm_pct, quota_pct in PLACES:
        chosen[
            ResourceConfig(
                float(_near(sm, sm_pct)),
                float(_near(quota, quota_pct)),
                int(_near(batch, max(share * batch[-1], batch[0]))),
            )
        ] = None
    for b in (batch[0], batch[-1]):
        for s in sm[:: max(len(sm) // 4, 1)]:
            for q in quota[:: max(len(quota) // 3, 1)]:
                chosen[ResourceConfig(float(s), float(q), int(b))] = None
    return tuple(chosen)


def nearest_points(points: Observations, knots: Knots, wanted: tuple[ResourceConfig, ...]) -> IndexArray:
    """For each wanted configuration the measured point nearest to it (`rapp.evaluation`); no point twice."""
    configs = np.stack([knots.sm_pct[points.sm], 100 * points.quota_share, knots.batch[points.batch]], axis=1)
    taken: list[int] = []
    for config in wanted[: len(points)]:
        far = distance(configs, config)
        far[taken] = np.inf
        taken.append(int(np.argmin(far)))
    return np.array(taken, dtype=np.int64)


def listed(
    points: Observations, knots: Knots, wanted: tuple[ResourceConfig, ...]
) -> tuple[Observations, np.ndarray]:
    """The measured points of the list, and a mask (K,) of all others."""
    index = nearest_points(points, knots, wanted)
    rest = np.ones(len(points), dtype=bool)
    rest[index] = False
    return subset(points, index), rest


def _near(axis: np.ndarray, value: float) -> float:
    return float(axis[np.argmin(np.abs(axis - value))])
