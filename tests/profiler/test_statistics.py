"""Intervals of the median are exact, and hold the median as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.statistics import mad, median_interval, median_rank, percentile, relative_half_width


def chance(n_samples: int, rank: int) -> float:
    """P(x_(r) <= median <= x_(n + 1 - r)) of a continuous distribution, from its definition."""
    outside = sum(math.comb(n_samples, k) for k in range(rank))
    return float(1 - 2 * outside / 2**n_samples)


@settings(deadline=None, max_examples=60)
@given(n_samples=st.integers(1, 1200), confidence=st.sampled_from((0.5, 0.9, 0.95, 0.975, 0.99)))
def test_the_rank_is_the_largest_that_holds_the_confidence(n_samples: int, confidence: float) -> None:
    rank = median_rank(n_samples, confidence)
    if rank is not None:
        assert rank <= n_samples + 1 - rank
        assert chance(n_samples, rank) >= confidence
    assert chance(n_samples, (rank or 0) + 1) < confidence


@pytest.mark.parametrize(
    ("n_samples", "rank"), [(5, None), (6, 1), (8, 1), (9, 2), (10, 2), (15, 4), (20, 6), (50, 18), (100, 40)]
)
def test_ranks_of_published_tables(n_samples: int, rank: int | None) -> None:
    # Conover, Practical Nonparametric Statistics, 3rd edition, table of the binomial, p = 0.5.
    assert median_rank(n_samples) == rank


@pytest.mark.parametrize("n_samples", [6, 20, 71, 400])
def test_a_skewed_distribution_is_covered_as_often_as_computed(n_samples: int) -> None:
    draws = np.random.default_rng(n_samples).lognormal(0.0, 0.5, (2000, n_samples))
    low, high = np.transpose([median_interval(row) for row in draws])
    covered = float(np.mean((low <= 1) & (high >= 1)))
    rank = median_rank(n_samples)
    assert rank is not None
    expected = chance(n_samples, rank)
    assert expected >= 0.95
    # Four standard deviations of a share of 2000.
    assert covered == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 2000))


@settings(deadline=None)
@given(st.lists(st.floats(1e-3, 1e6), min_size=6, max_size=60), st.floats(0.1, 10))
def test_an_interval_is_two_samples_around_the_median_and_scales(values: list[float], factor: float) -> None:
    samples = np.array(values)
    interval = median_interval(samples)
    assert interval is not None
    low, high = interval
    assert low in samples
    assert high in samples
    # The median of an even number of samples is a rounded mean of two.
    assert low * (1 - 1e-12) <= np.median(samples) <= high * (1 + 1e-12)
    assert median_interval(np.sort(samples)[::-1]) == interval
    assert median_interval(samples * factor) == (low * factor, high * factor)
    assert relative_half_width(samples) == pytest.approx((high - low) / 2 / np.median(samples))


def test_few_samples_have_no_interval() -> None:
    assert median_interval(np.arange(1.0, 6.0)) is None
    assert relative_half_width(np.arange(1.0, 6.0)) == math.inf
    assert median_interval(np.arange(1.0, 7.0)) == (1, 6)


def test_one_sample_far_off_does_not_move_the_deviation() -> None:
    samples = np.array([9.0, 10.0, 11.0, 12.0, 10.0])
    assert mad(samples) == 1
    assert mad(np.append(samples[:-1], 1e9)) == 1
    assert mad(np.full(5, 3.0)) == 0


@pytest.mark.parametrize("percent", [50, 95, 99])
def test_percentiles_hit_the_quantile_in_the_median_of_many_draws(percent: float) -> None:
    draws = np.random.default_rng(3).exponential(1.0, (2000, 199))
    found = float(np.median([percentile(row, percent) for row in draws]))
    assert found == pytest.approx(-math.log(1 - percent / 100), rel=0.02)
