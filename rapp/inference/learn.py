"""Learning the structure: fit every training network, then take moments of what was fitted.

The fit of one network is `infer_curves` on all its points, so training and calibration share one
routine; alternating fit and moments is expectation maximisation with Laplace's approximation.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rapp.inference.posterior import Curves, Observations, Prior, infer_curves
from rapp.inference.structure import Structure, default_structure, variation_of
from rapp.knots import Knots
from rapp.types import FloatArray


def rough_prior(points: Observations, knots: Knots) -> Prior:
    """A prior from the points alone: D along (batch / SM)^0.8 below all latencies, H at the fast ones."""
    latency = points.log_latency
    log_b, log_s = np.log(knots.batch), np.log(knots.sm_pct / 100)
    shape = 0.8 * (log_b[:, None] - log_s[None])
    # No latency is below its device time: the curve that touches the points from below.
    full = points.quota_share > 0.99
    use = full if full.any() else np.ones(len(points), dtype=bool)
    level = np.min((latency - shape[points.batch, points.sm])[use])
    gated = [q for q in range(len(knots.quota_pct)) if ((points.quota == q) & ~points.gpu_time).any()]
    if not gated:
        return Prior(level + shape, np.full(len(knots.quota_pct), float(np.min(latency))))
    fast = [float(np.quantile(latency[(points.quota == q) & ~points.gpu_time], 0.3)) for q in gated]
    # Between the measured quotas along a line in logarithms, which is what a share of a window makes.
    log_q = np.log(knots.quota_pct)
    host = np.interp(log_q, log_q[gated], fast)
    return Prior(level + shape, host)


def fit_network(
    points: Observations, knots: Knots, structure: Structure | None = None, prior: Prior | None = None
) -> Curves:
    """Curves of one network from all its points."""
    if structure is None:
        structure = default_structure(
            knots.trained_batch, knots.trained_sm_pct, knots.quota_pct[knots.trained_quota()]
        )
    return infer_curves(prior or rough_prior(points, knots), structure, knots, points)


def learn_structure(
    fits: Mapping[str, Curves], priors: Mapping[str, Prior], knots: Knots, noise: float = 0.03
) -> Structure:
    """Covariances of fitted curves around the graph's answers, and the host curves as prototypes.

    Args:
        fits: curves of each training network.
        priors: what a model that had not seen the network said of it.
        noise: standard deviation of one measured log latency (V100 profiles: 2.9 %).
    """
    names = tuple(fits)
    b = np.searchsorted(knots.batch, knots.trained_batch)
    s = np.searchsorted(knots.sm_pct, knots.trained_sm_pct)
    q = knots.trained_quota()
    log_device = np.stack([fits[n].log_device[np.ix_(b, s)] for n in names])
    prior_device = np.stack([priors[n].log_device[np.ix_(b, s)] for n in names])
    log_host = np.stack([fits[n].log_host[np.ix_(b, s, q)] for n in names])
    prior_host = np.stack([priors[n].log_host[q] for n in names])

    upper = slice(len(s) // 2, None)
    curve = np.median(log_host[:, 0, upper], axis=1)
    growth = np.median(log_host[:, -1, upper] - log_host[:, 0, upper], axis=1)
    step = (log_host[:, 0] - curve[:, None]).reshape(-1, len(q))

    default = default_structure(knots.trained_batch, knots.trained_sm_pct, knots.quota_pct[q])
    weight = len(names) / (len(names) + PRIOR_NETWORKS)
    error = (log_device - prior_device).reshape(len(names), -1)
    narrow = default.device * NARROW
    floor_q = 0.02**2 * (np.eye(len(q)) + 1)
    variation = variation_of(
        knots.trained_batch, knots.trained_sm_pct, knots.quota_pct[q],
        _blend(step, 0.1 * default.variation[0].quota, weight) + 0.01**2 * np.eye(len(q)),
        _blend(growth, default.variation[1].quota, weight) + 0.02**2,
    )  # fmt: skip
    shared = _blend(curve - prior_host, 0.3 * default.shared, weight) + floor_q
    local = _blend(_differences(curve), 0.1 * default.shared, weight) + floor_q + 0.05**2
    return Structure(_blend(error, narrow, weight), shared, local, variation, curve, noise, names)


# The default covariance counts as much as this many networks.
PRIOR_NETWORKS = 5.0
# The default device covariance is that of networks around a rough curve; around a graph's answer it is
# narrower: a level within 25 % instead of a factor of 4.
NARROW = (0.25 / 1.5) ** 2


def _blend(samples: FloatArray, default: FloatArray, weight: float) -> FloatArray:
    """Second moment of `samples` (N, D) shrunk towards `default` (D, D)."""
    return weight * samples.T @ samples / max(len(samples), 1) + (1 - weight) * default


def _differences(curves: FloatArray, neighbours: int = 4) -> FloatArray:
    """Differences between each curve (N, Q) and its nearest ones, over the square root of 2: (M, Q)."""
    distance = ((curves[:, None] - curves[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    nearest = np.argsort(distance, axis=1)[:, : min(neighbours, len(curves) - 1)]
    return np.asarray((curves[nearest] - curves[:, None]) / np.sqrt(2)).reshape(-1, curves.shape[1])
