"""Scores and the bootstrap interval of their mean, on values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapp.errors import ConfigError
from rapp.evaluation import bootstrap_mean, score


def test_scores_of_four_rows():
    found = score([10, 10, 10, 10], [11, 8, 10, 14], [9, 7, 10, 12], [12, 9, 10, 16])
    assert found.n_rows == 4
    assert found.mape == pytest.approx((10 + 20 + 0 + 40) / 4)
    assert found.median_ape == pytest.approx(15)
    assert found.p95_ape == pytest.approx(np.percentile([10, 20, 0, 40], 95))
    assert found.bias == pytest.approx(5)  # the middle of -20, 0, 10, 40
    assert found.coverage == 50  # the ends of an interval belong to it
    assert found.width == pytest.approx(100 * (3 / 11 + 2 / 8 + 0 + 4 / 14) / 4)
    rows = [
        math.log(12 / 9),
        math.log(9 / 7) + 20 * math.log(10 / 9),  # 2 / alpha = 20, above the interval
        0,
        math.log(16 / 12) + 20 * math.log(12 / 10),  # below it
    ]
    assert found.interval_score == pytest.approx(100 * sum(rows) / 4)


@settings(deadline=None, max_examples=50)
@given(st.floats(1e-3, 1e3))
def test_scores_do_not_depend_on_the_unit_of_time(factor):
    rng = np.random.default_rng(1)
    measured, mean = rng.lognormal(3, 1, (2, 50))
    low, high = mean * 0.9, mean * 1.2
    first = score(measured, mean, low, high)
    second = score(*(factor * values for values in (measured, mean, low, high)))
    for name in ("mape", "bias", "width", "interval_score"):
        assert getattr(first, name) == pytest.approx(getattr(second, name))


def test_the_true_quantiles_have_the_best_interval_score():
    """Propriety: of all intervals of a known distribution that from 5 to 95 % scores best."""
    measured = np.random.default_rng(0).lognormal(3, 0.2, 200_000)
    ones = np.ones_like(measured)

    def of(level: float) -> float:
        low, high = np.quantile(measured, [(1 - level) / 2, (1 + level) / 2])
        return score(measured, ones, low * ones, high * ones).interval_score

    assert of(0.90) < min(of(0.80), of(0.86), of(0.94), of(0.99))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (([], [], [], []), "both"),
        (([1, 2], [1], [1, 1], [2, 2]), "mean has shape"),
        (([1, float("nan")], [1, 1], [1, 1], [1, 1]), "measured has a value"),
        (([1], [1], [0], [1]), "low has a value"),
        (([1], [1], [2], [1]), "ends below its start"),
    ],
)
def test_scores_of_what_is_no_prediction_are_a_typed_error(arrays, message):
    with pytest.raises(ConfigError, match=message):
        score(*arrays)


def test_the_bootstrap_interval_of_the_mean():
    values = np.random.default_rng(3).normal(10, 2, 400)
    low, high = bootstrap_mean(values, seed=0)
    # The normal approximation: 1.96 standard errors on either side.
    error = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - error, abs=0.03)
    assert high == pytest.approx(values.mean() + error, abs=0.03)
    assert bootstrap_mean(values, seed=0) == (low, high) != bootstrap_mean(values, seed=1)
    narrow = bootstrap_mean(values, seed=0, level=0.5)
    assert low < narrow[0] < narrow[1] < high
    assert bootstrap_mean([7.0], seed=0) == (7.0, 7.0)
    for bad in ([], [float("nan")]):
        with pytest.raises(ConfigError):
            bootstrap_mean(bad, seed=0)
    with pytest.raises(ConfigError, match="seed"):
        bootstrap_mean([1.0], seed=-1)
