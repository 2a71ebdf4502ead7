"""The noise of single points: which measure tells it, and that it is the right row's."""

from __future__ import annotations

import numpy as np
import pytest

from rapp.profiles import ProfileTable
from rapp.profiles.noise import Spread, deviations, noise, point_noise

INTERVAL = {"median_ms": 10.0, "median_low_ms": 9.9, "median_high_ms": 10.3}


def test_the_interval_of_the_median_comes_first(row):
    rows = [
        row(batch=1, mad_ms=3.0, **INTERVAL),
        row(batch=2, mad_ms=3.0),
        row(batch=4, derived=True, **INTERVAL),
        row(batch=8, anchor=True, **INTERVAL),
        row(batch=16, status="failed", reason="time-out", latency_ms=None),
    ]
    spread, relative = point_noise(ProfileTable.from_rows(rows))
    assert spread == Spread.INTERVAL
    assert relative[0] == pytest.approx(0.02)
    assert np.isnan(relative[1:]).all()


def test_without_intervals_the_median_absolute_deviation_tells(row):
    rows = [row(batch=b, median_ms=10.0, mad_ms=0.4) for b in (1, 2)] + [row(batch=4, **INTERVAL)]
    spread, relative = point_noise(ProfileTable.from_rows(rows))
    assert spread == Spread.MAD
    assert relative[:2] == pytest.approx([0.04, 0.04])


def test_without_either_neighbours_do(row):
    """A kink of 10 % at SM 70 in one curve: that partition and its neighbours, in any order of the rows."""
    sms = [50.0, 60.0, 70.0, 80.0, 90.0]
    rows = [
        row(sm_pct=sm, batch=b, latency_ms=10.0 * (1.1 if sm == 70 and b == 2 else 1))
        for sm in sms
        for b in (1, 2)
    ]
    rows = [rows[k] for k in np.random.default_rng(0).permutation(len(rows))]
    table = ProfileTable.from_rows([row(sm_pct=40.0, latency_ms=99.0), *rows])
    spread, relative = point_noise(table)
    assert spread == Spread.NEIGHBOURS
    kinked = table.column("batch") == 2
    sm = table.column("sm_pct")
    # d is log 1.1 at the kink and half of it beside; its variance is 1.5 times that of one point.
    kink = np.log(1.1) / np.sqrt(1.5)
    assert relative[kinked & (sm == 70)] == pytest.approx(kink)
    for beside in (60, 80):
        assert relative[kinked & (sm == beside)] == pytest.approx(kink / 2)
    assert relative[~kinked & (sm > 50) & (sm < 90)] == pytest.approx(0, abs=1e-12)
    assert np.isnan(relative[(sm <= 50) | (sm == 90)]).all()


def test_the_noise_of_a_table_is_the_mean_of_its_points(grid_rows):
    table = ProfileTable.from_rows(grid_rows(sms=(50, 60, 75, 80, 100)))
    found = deviations(table)
    whole, each = noise(table)
    assert whole.relative == pytest.approx(np.nanmean(found))
    assert whole.triples == np.isfinite(found).sum() == 2 * 3 * 2 * 2
    own = table.column("network") == "vgg11"
    assert each["vgg11"].relative == pytest.approx(np.nanmean(found[own]))


def test_an_empty_table_has_no_noise():
    spread, relative = point_noise(ProfileTable.from_rows([]))
    assert (spread, len(relative)) == (Spread.NEIGHBOURS, 0)
