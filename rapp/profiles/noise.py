"""How noisy a profile table is, estimated from the table alone.

Latency changes little between neighbouring SM partitions once there are many, so where a point lies off
the straight line through its two neighbours, the deviation is mostly noise. With l = log latency at the
neighbouring partitions a < b < c and w = (c - b) / (c - a),

    d = l(b) - w l(a) - (1 - w) l(c)

is the second difference. If the three carry independent noise of one size, d has 1 + w^2 + (1 - w)^2
times its variance (1.5 for equal steps), so |d| / sqrt(1 + w^2 + (1 - w)^2) has the mean absolute
deviation of one point. The estimate is its mean.

It is a proxy for the error of repeating a whole measurement, a new process at another SM partition
included. Drift slower than three partitions is not in it; the curvature of the true curve is, which is why
partitions under 50 % do not count. Where a network has steps in SM (wave quantisation) it is too large.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from rapp.profiles.table import ProfileTable
from rapp.types import FloatArray

NOISE_MIN_SM_PCT = 50.0

# Points that agree in all of these lie on one curve over SM.
_CURVE = (
    "network", "device", "device_uuid", "runtime", "precision", "quota_kind", "window_ms", "granularity_ms",
    "idle_ms", "campaign_id", "batch", "quota_pct",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Noise:
    """The noise of one network, or of all.

    Args:
        relative: mean absolute deviation of log latency: 0.03 is about 3 %; NaN without a triple.
        triples: neighbouring SM partitions of one curve it was averaged over.
    """

    relative: float
    triples: int


def noise(table: ProfileTable, min_sm_pct: float = NOISE_MIN_SM_PCT) -> tuple[Noise, dict[str, Noise]]:
    """The noise of all networks together and of each, from measured points at `min_sm_pct` and above.

    Every triple counts alike, so a network with more points weighs more in the whole.
    """
    deviation = deviations(table, min_sm_pct)
    known = np.isfinite(deviation)
    network = table.column("network")
    each = {name: _mean(deviation[known & (network == name)]) for name in table.networks()}
    return _mean(deviation[known]), each


def deviations(table: ProfileTable, min_sm_pct: float = NOISE_MIN_SM_PCT) -> FloatArray:
    """|d| / sqrt(1 + w^2 + (1 - w)^2) of each row in the middle of a triple; shape (R,), NaN elsewhere.

    Derived rows and anchors have none, nor have the first and the last partition of a curve. One value
    is a single draw, in which a neighbour's error counts too: a map of them shows where, not how much.
    """
    measured = np.flatnonzero(
        (table.column("status") == "ok")
        & ~table.column("anchor")
        & ~table.column("derived")
        & (table.column("sm_pct") >= min_sm_pct)
    )
    rows = table.arrow.take(measured)
    curve = np.zeros(len(measured), dtype=np.int64)
    for name in _CURVE:
        codes = rows.column(name).combine_chunks().dictionary_encode(null_encoding="encode").indices
        curve = np.unique(curve * (len(measured) + 1) + codes.to_numpy(), return_inverse=True)[1]
    sm, log_ms = table.column("sm_pct")[measured], np.log(table.column("latency_ms")[measured])
    order = np.lexsort((sm, curve))
    curve, sm, log_ms = curve[order], sm[order], log_ms[order]

    a, b, c = slice(None, -2), slice(1, -1), slice(2, None)
    triple = (curve[a] == curve[c]) & (sm[a] < sm[b]) & (sm[b] < sm[c])
    weight = np.divide(sm[c] - sm[b], sm[c] - sm[a], out=np.full(triple.shape, 0.5), where=triple)
    second = log_ms[b] - weight * log_ms[a] - (1 - weight) * log_ms[c]
    deviation = np.full(len(table), np.nan)
    deviation[measured[order][b][triple]] = (np.abs(second) / np.sqrt(1 + weight**2 + (1 - weight) ** 2))[
        triple
    ]
    return deviation


class Spread(StrEnum):
    """What the noise of single points is told by. The value is a description for a person."""

    INTERVAL = "half-width of the median's confidence interval / median"
    MAD = "median absolute deviation / median"
    NEIGHBOURS = "deviation from the line through the neighbouring SM partitions"


def point_noise(table: ProfileTable) -> tuple[Spread, FloatArray]:
    """The relative noise of each row, shape (R,), NaN where unknown; and what it is told by.

    That is one measure for the whole table, so that points can be compared: the first of `Spread` that at
    least half of the measured rows have, or else the last. Derived rows and anchors have none.
    """
    measured = (table.column("status") == "ok") & ~table.column("anchor") & ~table.column("derived")
    median, low, high = (table.column(name) for name in ("median_ms", "median_low_ms", "median_high_ms"))
    found = {
        Spread.INTERVAL: (high - low) / (2 * median),
        Spread.MAD: table.column("mad_ms") / median,
    }
    for spread, values in found.items():
        own = np.where(measured, values, np.nan)
        if 2 * np.isfinite(own).sum() >= measured.sum() > 0:
            return spread, own
    return Spread.NEIGHBOURS, deviations(table)


def _mean(deviation: FloatArray) -> Noise:
    return Noise(float(deviation.mean()) if deviation.size else float("nan"), int(deviation.size))
