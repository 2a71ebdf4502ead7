"""Statistics of latency samples that assume no distribution.

Latencies are skewed and have a tail, so nothing here rests on a normal law: the median has an interval of
order statistics, and the spread is the median absolute deviation. All of it takes the samples as independent;
where neighbouring samples go together (slow drift), an interval is too narrow.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np

from rapp.types import FloatArray

CONFIDENCE = 0.95
"""Of the intervals of medians in the profile table."""


@lru_cache(maxsize=4096)
def median_rank(n_samples: int, confidence: float = CONFIDENCE) -> int | None:
    """The rank r >= 1 for which [x_(r), x_(n + 1 - r)] holds the median with `confidence`; None: no such.

    How many of n independent samples lie under the median is binomial, Bin(n, 1/2), whatever their
    distribution. Hence P(x_(r) <= median <= x_(n + 1 - r)) >= 1 - 2 P(Bin(n, 1/2) <= r - 1), with equality
    for a continuous distribution (David and Nagaraja, Order Statistics, 3rd edition, section 7.1). The
    largest such r is found in whole numbers, so that it is exact for any n.
    """
    limit = int((1 - Fraction(confidence)) / 2 * 2**n_samples)
    below, ways, rank = 0, 1, 0
    for k in range(n_samples // 2 + 1):
        below += ways
        if below > limit:
            break
        rank = k + 1
        ways = ways * (n_samples - k) // (k + 1)
    return rank or None


def median_interval(samples: FloatArray, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Interval (low, high) that holds the median of the samples' distribution with `confidence`.

    Args:
        samples: (N,) independent samples.
        confidence: in (0, 1).

    Returns:
        Two of the samples; None if N is too small for any two of them: under 6 at 95 %.
    """
    rank = median_rank(len(samples), confidence)
    if rank is None:
        return None
    ordered = np.sort(samples)
    return float(ordered[rank - 1]), float(ordered[len(ordered) - rank])


def relative_half_width(samples: FloatArray) -> float:
    """Half the 95 % interval of the median, over the median; infinite if there is no interval."""
    interval = median_interval(samples)
    if interval is None:
        return math.inf
    return (interval[1] - interval[0]) / 2 / float(np.median(samples))


def mad(samples: FloatArray) -> float:
    """Median absolute deviation from the median, not scaled to a standard deviation (Hampel 1974)."""
    return float(np.median(np.abs(samples - np.median(samples))))


def percentile(samples: FloatArray, percent: float) -> float:
    """The percentile; median-unbiased whatever the distribution (Hyndman and Fan 1996, type 8)."""
    return float(np.percentile(samples, percent, method="median_unbiased"))
