"""Which measured points of a network calibrate its predictor before the rest is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rapp.profiles.table import Points
from rapp.types import FloatArray, MeasuredPoint, QuotaKind, ResourceConfig


@dataclass(frozen=True, slots=True)
class ChosenPoint:
    """A configuration of the artifact's list, and the point that was taken for it.

    Args:
        wanted: the configuration of the list.
        taken: the measured point: `wanted` where the table has it, else the nearest.
    """

    wanted: ResourceConfig
    taken: MeasuredPoint

    @property
    def replaced(self) -> bool:
        """True if the table lacks `wanted`."""
        return self.wanted != self.taken.config


def choose_points(
    points: Points, wanted: Sequence[ResourceConfig], quota_kind: QuotaKind
) -> tuple[tuple[ChosenPoint, ...], NDArray[np.bool_]]:
    """Take the wanted configurations from a network's measured points.

    What is chosen depends on the list and on where was measured, never on the latencies. Exact matches are
    taken first. Each configuration that is left gets, in the order of the list, the nearest point that is not
    taken yet; where none is left it gets none. The distance is Euclidean over log2 of SM partition, quota and
    batch (`distance`); of two points at the same distance the one with less SM, then quota, then batch wins.

    Args:
        points: the measured points of the network, P rows.
        wanted: the first K of the artifact's fixed list.
        quota_kind: points of another kind are not taken.

    Returns:
        The chosen points in the order of `wanted`, at most K, and a mask of shape (P,) that is true for every
        row at a configuration that was taken: those have been seen and must not be scored. The latency of a
        configuration that was measured more than once is the mean.
    """
    own = points.quota_kind == quota_kind.value
    keys = np.stack([points.sm_pct, points.quota_pct, points.batch.astype(float)], axis=1)
    unique, inverse = np.unique(keys[own], axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    where = {tuple(row): index for index, row in enumerate(unique.tolist())}
    taken: dict[int, int] = {}  # place in `wanted` -> row of `unique`
    for place, config in enumerate(wanted):
        index = where.get((config.sm_pct, config.quota_pct, float(config.batch)))
        if index is not None and index not in taken.values():
            taken[place] = index
    free = np.ones(len(unique), dtype=bool)
    free[list(taken.values())] = False
    for place, config in enumerate(wanted):
        if place not in taken and free.any():
            apart = np.where(free, distance(unique, config), np.inf)
            taken[place] = int(np.argmin(np.round(apart, 9)))
            free[taken[place]] = False
    latency = points.latency_ms[own]
    chosen = tuple(
        ChosenPoint(
            wanted[place],
            MeasuredPoint(
                ResourceConfig(unique[index, 0].item(), unique[index, 1].item(), int(unique[index, 2])),
                float(np.mean(latency[inverse == index])),
                quota_kind,
            ),
        )
        for place, index in sorted(taken.items())
    )
    seen = np.zeros(len(points), dtype=bool)
    seen[np.flatnonzero(own)[~free[inverse]]] = True
    return chosen, seen


def merged(points: Points) -> tuple[MeasuredPoint, ...]:
    """All points of a network, sorted; the latency of a configuration measured more than once is the mean."""
    columns = (points.sm_pct, points.quota_pct, points.batch, points.quota_kind, points.latency_ms)
    latencies: dict[tuple[ResourceConfig, QuotaKind], list[float]] = {}
    for sm, quota, batch, kind, latency in zip(*(column.tolist() for column in columns), strict=True):
        latencies.setdefault((ResourceConfig(sm, quota, batch), QuotaKind(kind)), []).append(latency)
    return tuple(
        MeasuredPoint(config, float(np.mean(each)), kind)
        for (config, kind), each in sorted(latencies.items())
    )


def distance(configs: FloatArray, config: ResourceConfig) -> FloatArray:
    """How far configurations lie from one: the root of the sum of log2(ratio)^2 over SM, quota and batch.

    1 is twice the SM partition, or half the quota, or twice the batch. Shapes: configs (U, 3), answer (U,).
    """
    wanted = np.array([config.sm_pct, config.quota_pct, config.batch], dtype=float)
    result: FloatArray = np.sqrt((np.log2(configs / wanted) ** 2).sum(axis=1))
    return result
