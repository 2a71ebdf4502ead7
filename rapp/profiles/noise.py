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

import numpy as np

from rapp.profiles.table import ProfileTable

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
    rows = table.filter(status="ok", anchor=False, derived=False)
    rows = rows.where(rows.column("sm_pct") >= min_sm_pct)
    curve = np.zeros(len(rows), dtype=np.int64)
    for name in _CURVE:
        codes = rows.arrow.column(name).combine_chunks().dictionary_encode(null_encoding="encode").indices
        curve = np.unique(curve * (len(rows) + 1) + codes.to_numpy(), return_inverse=True)[1]
    sm, log_ms = rows.column("sm_pct"), np.log(rows.column("latency_ms"))
    order = np.lexsort((sm, curve))
    curve, sm, log_ms = curve[order], sm[order], log_ms[order]
    network = rows.column("network")[order]

    a, b, c = slice(None, -2), slice(1, -1), slice(2, None)
    triple = (curve[a] == curve[c]) & (sm[a] < sm[b]) & (sm[b] < sm[c])
    weight = np.divide(sm[c] - sm[b], sm[c] - sm[a], out=np.full(triple.shape, 0.5), where=triple)
    second = log_ms[b] - weight * log_ms[a] - (1 - weight) * log_ms[c]
    deviation = np.abs(second) / np.sqrt(1 + weight**2 + (1 - weight) ** 2)
    middle = network[b]
    each = {name: _mean(deviation[triple & (middle == name)]) for name in table.networks()}
    return _mean(deviation[triple]), each


def _mean(deviation: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Noise:
    return Noise(float(deviation.mean()) if deviation.size else float("nan"), int(deviation.size))
