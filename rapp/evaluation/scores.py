"""Scores of predictions with intervals: pure functions on arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rapp.errors import ConfigError
from rapp.types import FloatArray

MISS = 0.10
"""Share of the truth that may lie outside the interval that the predictor gives: it is one of 90 %."""


@dataclass(frozen=True, slots=True)
class Scores:
    """How good N predictions are; everything but `n_rows` in %.

    Args:
        n_rows: N.
        mape: mean of |predicted - measured| / measured.
        median_ape: median of it.
        p95_ape: 95th percentile of it.
        bias: median of (predicted - measured) / measured; positive: predicted too slow.
        coverage: share of the measured within [low, high], ends included; 90 is what is promised.
        width: mean of (high - low) / predicted.
        interval_score: mean interval score of ln(latency), times 100, with alpha = 0.1 (Gneiting and Raftery
            2007, equation 43): ln(high / low), and 2 / alpha times the logarithm by which the measured lies
            outside. Lower is better. On the logarithm it is relative, about a percentage of the latency, and
            stays proper: quantiles keep their place under a monotone map, while a division by the measured
            would reward intervals that are too low.
    """

    n_rows: int
    mape: float
    median_ape: float
    p95_ape: float
    bias: float
    coverage: float
    width: float
    interval_score: float


def score(measured: ArrayLike, mean: ArrayLike, low: ArrayLike, high: ArrayLike) -> Scores:
    """Score N predictions.

    Args:
        measured: latency, ms, > 0, shape (N,) with N >= 1.
        mean: its prediction, ms, > 0, shape (N,).
        low: lower end of the 90 % interval, ms, > 0, shape (N,).
        high: upper end, ms, not below `low`, shape (N,).

    Raises:
        ConfigError: no prediction, arrays of different lengths, values that are no positive numbers, or an
            interval whose ends are exchanged.
    """
    truth, middle, lower, upper = (np.asarray(values, dtype=float) for values in (measured, mean, low, high))
    named = {"measured": truth, "mean": middle, "low": lower, "high": upper}
    for name, values in named.items():
        if values.ndim != 1 or values.shape != truth.shape or not len(values):
            raise ConfigError(f"score: {name} has shape {values.shape}, measured {truth.shape}: both (N,)")
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise ConfigError(f"score: {name} has a value that is no positive number")
    if (lower > upper).any():
        raise ConfigError("score: an interval ends below its start")
    relative = (middle - truth) / truth
    error = np.abs(relative)
    return Scores(
        n_rows=len(truth),
        mape=100 * float(np.mean(error)),
        median_ape=100 * float(np.median(error)),
        p95_ape=100 * float(np.percentile(error, 95)),
        bias=100 * float(np.median(relative)),
        coverage=100 * float(np.mean((lower <= truth) & (truth <= upper))),
        width=100 * float(np.mean((upper - lower) / middle)),
        interval_score=100 * float(np.mean(log_interval_score(truth, lower, upper))),
    )


def log_interval_score(measured: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """The interval score of each row on ln(latency), shape (N,); see `Scores.interval_score`."""
    below = np.maximum(np.log(low / measured), 0.0)
    above = np.maximum(np.log(measured / high), 0.0)
    result: FloatArray = np.log(high / low) + 2 / MISS * (below + above)
    return result


def bootstrap_mean(
    values: ArrayLike, seed: int, n: int = 2000, *, level: float = 0.95
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean of independent values (Efron 1979).

    Args:
        values: one value a network, shape (M,) with M >= 1: rows of one network are no independent values.
        seed: of the resampling, >= 0; the same seed gives the same interval.
        n: how many samples of M values are drawn, with replacement.
        level: share of the sample means within the interval.

    Raises:
        ConfigError: no value, one that is no number, or a negative seed.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise ConfigError("bootstrap_mean needs one number or more")
    if seed < 0:
        raise ConfigError(f"the seed is {seed}: it must be 0 or more")
    drawn = np.random.default_rng(seed).integers(0, len(array), size=(n, len(array)))
    outside = 50 * (1 - level)
    low, high = np.percentile(array[drawn].mean(axis=1), [outside, 100 - outside])
    return float(low), float(high)
