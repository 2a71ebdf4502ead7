"""Which configuration to measure next: the one that is expected to make the whole answer surest.

The rule sees only what has been measured. It takes the posterior's covariance of log latency over a set
of configurations and picks the candidate whose measurement would leave the smallest mean standard
deviation (A-optimality of Bayesian experimental design, Chaloner and Verdinelli 1995, with standard
deviations for variances, so that no single configuration dominates).

For launch gates the posterior is the mixture over regimes (`rapp.inference.mixture`), to which it is worth
looking for the partition where the host changes. `scripts/bench_adaptive.py` compares choices of points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rapp.inference.mixture import RegimePosterior
from rapp.inference.posterior import Observations, Prior, posterior_covariance
from rapp.inference.structure import Structure
from rapp.knots import IndexArray, Knots
from rapp.types import FloatArray, ResourceConfig


def next_point(
    prior: Prior,
    structure: Structure,
    knots: Knots,
    points: Observations,
    at: tuple[IndexArray, IndexArray, IndexArray],
    candidates: IndexArray,
) -> int:
    """Index into `at` of the candidate to measure next.

    Args:
        at: knot indices (batch, SM, quota), each (N,), of the configurations that matter.
        candidates: (C,) indices into `at` that can be measured.
    """
    covariance = posterior_covariance(prior, structure, knots, points, at)
    return int(candidates[np.argmin(expected_deviation(covariance, candidates, structure.noise))])


def next_gated_point(
    posterior: RegimePosterior,
    noise: float,
    at: tuple[IndexArray, IndexArray, IndexArray],
    candidates: IndexArray,
) -> int:
    """As `next_point`, for launch gates: from the mixture over regimes."""
    # On diagonals of the grid, so that each value of each axis is among them.
    targets = np.flatnonzero((at[0] + at[1] + at[2]) % -(-len(at[0]) // MOST_TARGETS) == 0)
    cross = posterior.cross_covariance(
        (at[0][targets], at[1][targets], at[2][targets]),
        (at[0][candidates], at[1][candidates], at[2][candidates]),
    )
    gained = cross.covariance**2 / (cross.other_variance + noise**2)
    left = np.maximum(cross.variance[:, None] - gained, 0.0) + noise**2
    return int(candidates[np.argmin(np.sqrt(left).mean(axis=0))])


def expected_deviation(covariance: FloatArray, candidates: IndexArray, noise: float) -> FloatArray:
    """Mean standard deviation over all N configurations after each of C candidates is measured: (C,)."""
    variance = np.diag(covariance)
    gained = covariance[:, candidates] ** 2 / (variance[candidates] + noise**2)
    left = np.maximum(variance[:, None] - gained, 0.0) + noise**2
    return np.asarray(np.sqrt(left).mean(axis=0))


def best_candidate(
    prior: Prior,
    structure: Structure,
    knots: Knots,
    points: Observations,
    candidates: Sequence[ResourceConfig],
    gpu_time: bool,
) -> int:
    """Index of the candidate whose measurement makes the trained grid surest, as `next_point`.

    Args:
        candidates: what can be measured, at least one; each counts as its nearest knot.
        gpu_time: the quota limits device time, so that it teaches nothing that a run without one does not.
    """
    batch, sm, quota = (
        np.array([getattr(config, axis) for config in candidates], dtype=np.float64)
        for axis in ("batch", "sm_pct", "quota_pct")
    )
    nearest = np.stack(knots.nearest(batch, sm, quota))
    matter = np.stack(_trained_grid(knots))
    if gpu_time:
        nearest[2] = matter[2] = len(knots.quota_pct) - 1
    at = np.unique(np.concatenate([nearest, matter], axis=1), axis=1)
    flat = np.ravel_multi_index(tuple(at), knots.shape)
    places = np.searchsorted(flat, np.ravel_multi_index(tuple(nearest), knots.shape))
    # Of candidates that share a knot the first that is nearest to it.
    off = sum(
        np.abs(np.log(values / axis[index]))
        for values, axis, index in zip(
            (batch, sm, quota), (knots.batch, knots.sm_pct, knots.quota_pct), nearest, strict=True
        )
    )
    order = np.argsort(off, kind="stable")
    where = at[0], at[1], at[2]
    if gpu_time:
        chosen = next_point(prior, structure, knots, points, where, places[order])
    else:
        posterior = RegimePosterior(prior, structure, knots, points)
        chosen = next_gated_point(posterior, structure.noise, where, places[order])
    return int(order[np.flatnonzero(places[order] == chosen)[0]])


# The covariance of so many configurations is made in a fraction of a second.
MOST_CONFIGURATIONS = 1200
# Of the mixture: an even part of the configurations tells how sure the rest will be.
MOST_TARGETS = 200


def _trained_grid(knots: Knots) -> tuple[IndexArray, IndexArray, IndexArray]:
    """Knot indices (N,) of the configurations that training saw, thinned evenly where they are too many."""
    axes = [
        np.searchsorted(knots.batch, knots.trained_batch),
        np.searchsorted(knots.sm_pct, knots.trained_sm_pct),
        knots.trained_quota(),
    ]
    while math.prod(len(axis) for axis in axes) > MOST_CONFIGURATIONS:
        longest = max(range(3), key=lambda index: len(axes[index]))
        axes[longest] = axes[longest][::2]
    b, s, q = (index.ravel() for index in np.meshgrid(*axes, indexing="ij"))
    return b, s, q
