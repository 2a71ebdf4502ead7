"""Which rows of a table stand for the listed points of a calibration."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rapp.evaluation import choose_points, distance
from rapp.profiles import Points
from rapp.types import QuotaKind, ResourceConfig

GATE = QuotaKind.LAUNCH_GATE


def points_of(*rows: tuple[float, float, int, float, str]) -> Points:
    sm, quota, batch, latency, kind = zip(*rows, strict=True)
    numbers = (np.array(values) for values in (*map(np.float64, (sm, quota)), batch, latency))
    return Points(*numbers, np.array(kind, object))


def test_listed_points_are_taken_and_others_replaced_by_the_nearest():
    points = points_of(
        (100, 100, 1, 10.0, "launch_gate"),
        (50, 100, 1, 11.0, "launch_gate"),
        (5, 100, 8, 90.0, "launch_gate"),
        (10, 100, 8, 60.0, "launch_gate"),
        (5, 100, 8, 50.0, "gpu_time"),
    )
    wanted = [ResourceConfig(90, 100, 1), ResourceConfig(100, 100, 1), ResourceConfig(5, 100, 8)]
    chosen, seen = choose_points(points, wanted, GATE)
    # (100, 100, 1) is nearest to (90, 100, 1), but it is listed itself: an exact match comes first.
    assert [one.taken.config for one in chosen] == [
        ResourceConfig(50, 100, 1), ResourceConfig(100, 100, 1), ResourceConfig(5, 100, 8),
    ]  # fmt: skip
    assert [one.replaced for one in chosen] == [True, False, False]
    assert [one.taken.latency_ms for one in chosen] == [11.0, 10.0, 90.0]
    assert {one.taken.quota_kind for one in chosen} == {GATE}
    assert seen.tolist() == [True, True, True, False, False]


def test_repetitions_of_a_point_are_one_measurement_and_all_seen():
    points = points_of((100, 100, 1, 10.0, "launch_gate"), (100, 100, 1, 14.0, "launch_gate"))
    chosen, seen = choose_points(points, [ResourceConfig(100, 100, 1), ResourceConfig(50, 50, 1)], GATE)
    assert [one.taken.latency_ms for one in chosen] == [12.0]
    assert seen.tolist() == [True, True]


def test_the_choice_does_not_look_at_latencies_or_the_order_of_rows():
    rng = np.random.default_rng(5)
    rows = [(s, q, b, 1.0, "launch_gate") for s in (10, 40, 90) for q in (20, 80) for b in (1, 4)]
    wanted = [ResourceConfig(s, 55, b) for s in (25, 65) for b in (1, 2, 8)]
    expected = [one.taken.config for one in choose_points(points_of(*rows), wanted, GATE)[0]]
    assert len(set(expected)) == len(wanted)
    for _ in range(5):
        shuffled = [(*rows[i][:3], float(rng.uniform(1, 9)), rows[i][4]) for i in rng.permutation(len(rows))]
        assert [one.taken.config for one in choose_points(points_of(*shuffled), wanted, GATE)[0]] == expected


def test_the_distance_counts_doublings():
    config = ResourceConfig(50, 40, 2)
    others = np.array([[50.0, 40, 2], [100, 40, 2], [50, 10, 2], [25, 20, 4]])
    assert distance(others, config) == pytest.approx([0, 1, 2, math.sqrt(3)])
