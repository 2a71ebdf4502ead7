"""Which configuration to measure next: the one that is expected to make the whole answer surest.

The rule sees only what has been measured. It takes the posterior's covariance of log latency over a set
of configurations and picks the candidate whose measurement would leave the smallest mean standard
deviation (A-optimality of Bayesian experimental design, Chaloner and Verdinelli 1995, with standard
deviations for variances, so that no single configuration dominates).
"""

from __future__ import annotations

import numpy as np

from rapp.inference.posterior import Observations, Prior, posterior_covariance
from rapp.inference.structure import Structure
from rapp.knots import IndexArray, Knots
from rapp.types import FloatArray


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


def expected_deviation(covariance: FloatArray, candidates: IndexArray, noise: float) -> FloatArray:
    """Mean standard deviation over all N configurations after each of C candidates is measured: (C,)."""
    variance = np.diag(covariance)
    gained = covariance[:, candidates] ** 2 / (variance[candidates] + noise**2)
    left = np.maximum(variance[:, None] - gained, 0.0) + noise**2
    return np.asarray(np.sqrt(left).mean(axis=0))
