"""Hosts that change their regime at some SM partition: which hypotheses there are, and their evidence.

In the public V100 profiles each SM partition was measured by a process of its own. In about a third of the
networks the host curve is 20 to 60 % off on one side of some partition and steady on either side of it. One
Gaussian for all networks (`rapp.inference.posterior`) has to blur such a jump. Here it is a mixture: the
regime changes nowhere, at one partition, or at two, behind the second of which it is the first one again.
Under each hypothesis the curves are Gaussian, with one more term of log H, (B, B) x (S, S) x (Q, Q):

    1  x  labels labels^T  x  APART * between         between: what the structure learned of such changes

and the points weigh the hypotheses by their evidence in Laplace's approximation (Rasmussen and Williams 2006,
section 3.4.4). The points tell hypotheses apart by the labels of the measured partitions alone: those that
label them alike are one `Case`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rapp.inference.covariance import Covariance
from rapp.inference.law import log_latency

# The private parts of the posterior: its fit at the points is what the evidence is made of.
from rapp.inference.posterior import STUDENT_NU, Observations, Prior, _Fit, _Host, _infer
from rapp.inference.structure import Component, Structure
from rapp.knots import Knots
from rapp.types import FloatArray

# All constants were chosen on the networks of the first four folds of datasets/splits/unseen-network.json;
# docs/profiling.md tells how much they matter.
#
# Prior probability that the regime changes at one partition, and at two. Of the training networks' fitted
# host curves a third shows a change; a change at the edge or under device-bound points shows less.
ONE_CHANGE, TWO_CHANGES = 0.5, 0.1
# Variance of the difference between two regimes, over that of the structure's first component, in which the
# networks without a change are counted too.
APART = 8.0
# What each component of `rapp.inference.structure.variation_of` keeps of its variance. The first one is
# explained by regimes now. Of the change with the batch the residuals of development networks show less than
# half of what the structure expects, of differences between partitions at one quota more.
VARIATION = (0.5, 0.4, 0.5, 1.0, 2.5, 1.0)
# The same for host curves around their prototype.
LOCAL = 0.5
# So many cases are fitted, those that a screening likes best, and kept if their probability is no less.
MOST_CASES, LEAST_PROBABILITY = 12, 0.01
# The screening is Gaussian, without weights for wild points; its noise is this many times the structure's.
SCREENING_NOISE = 2.0


@dataclass(frozen=True)
class Case:
    """Hypotheses that label the K points alike; S trained SM partitions.

    Args:
        labels: (K,) regime of each point, 0 or 1.
        log_prior: log of their probability before the points.
        mean: (S,) probability of regime 1 at each partition, given the case.
        both: (S, S) probability that two partitions are in regime 1.
    """

    labels: FloatArray
    log_prior: float
    mean: FloatArray
    both: FloatArray


@dataclass(frozen=True)
class FittedCase:
    """A case, what the points make of it, and its probability."""

    case: Case
    host: _Host
    fit: _Fit
    probability: float


@dataclass(frozen=True)
class Regimes:
    """The structure without regimes, and (Q, Q) the covariance of what one regime adds to log H."""

    calm: Structure
    apart: FloatArray

    @classmethod
    def of(cls, structure: Structure) -> Regimes:
        """Split the first component of `structure` in what is left of it and regimes."""
        scaled = (
            replace(part, quota=scale * part.quota)
            for scale, part in zip(VARIATION, structure.variation, strict=False)
        )
        variation = (*scaled, *structure.variation[len(VARIATION) :])
        calm = replace(structure, variation=variation, local=LOCAL * structure.local)
        return cls(calm, APART * structure.variation[0].quota)

    def under(self, labels: FloatArray) -> Structure:
        """The structure if the S partitions have these labels (S,)."""
        if not labels.any():
            return self.calm
        everywhere = np.ones_like(self.calm.variation[0].batch)
        change = Component(everywhere, np.outer(labels, labels), self.apart)
        return replace(self.calm, variation=(*self.calm.variation, change))


def hypotheses(partitions: int) -> tuple[FloatArray, FloatArray]:
    """Labels (H, S) of S partitions under each hypothesis, and their log prior probabilities (H,)."""
    ends = [(0, 0)]
    ends += [(first, partitions) for first in range(1, partitions)]
    ones = len(ends)
    ends += [(first, last) for first in range(1, partitions) for last in range(first + 1, partitions)]
    place = np.arange(partitions)
    labels = np.array([(place >= first) & (place < last) for first, last in ends], dtype=np.float64)
    weight = np.empty(len(ends))
    weight[0] = 1 - ONE_CHANGE - TWO_CHANGES
    weight[1:ones] = ONE_CHANGE / max(ones - 1, 1)
    weight[ones:] = TWO_CHANGES / max(len(ends) - ones, 1)
    return labels, np.log(weight / weight.sum())


def cases(partitions: int, at_points: np.ndarray) -> list[Case]:
    """All hypotheses, grouped by the labels of the points at these partitions: indices (K,) into S."""
    labels, log_prior = hypotheses(partitions)
    seen, group = np.unique(labels[:, at_points], axis=0, return_inverse=True)
    found = []
    for index, own in enumerate(seen):
        members = group.reshape(-1) == index
        total = float(np.logaddexp.reduce(log_prior[members]))
        weight, each = np.exp(log_prior[members] - total), labels[members]
        found.append(Case(own, total, weight @ each, (weight[:, None] * each).T @ each))
    return found


def fitted_cases(prior: Prior, regimes: Regimes, knots: Knots, points: Observations) -> list[FittedCase]:
    """The likely cases, most likely first; their probabilities sum to 1."""
    partition = knots.trained_index("sm_pct")[points.sm]
    listed = cases(len(knots.trained_sm_pct), partition)
    if not len(points):
        nothing = np.zeros(0)
        fit = _Fit(nothing, nothing, nothing, nothing, nothing, nothing, np.zeros((0, 0)), 0.0)
        host = _Host(prior.log_host, regimes.calm.shared)
        return [FittedCase(case, host, fit, 1.0) for case in listed]
    score = _screened(prior, regimes, knots, points, listed)
    order = np.argsort(-score, kind="stable")[:MOST_CASES]
    fits: list[tuple[Case, _Host, _Fit]] = []
    evidence = np.empty(len(order))
    for place, index in enumerate(order):
        labels = np.zeros(len(knots.trained_sm_pct))
        labels[partition] = listed[index].labels
        structure = regimes.under(labels)
        host, fit = _infer(prior, structure, knots, points, Covariance(structure, knots))
        fits.append((listed[index], host, fit))
        evidence[place] = listed[index].log_prior + log_evidence(prior, host, fit, points, structure.noise)
    weight = np.exp(evidence - evidence.max())
    weight = np.where(weight >= LEAST_PROBABILITY * weight.sum(), weight, 0.0)
    weight /= weight.sum()
    likely = [i for i in np.argsort(-weight, kind="stable") if weight[i]]
    return [FittedCase(fits[i][0], fits[i][1], fits[i][2], float(weight[i])) for i in likely]


def log_evidence(prior: Prior, host: _Host, fit: _Fit, points: Observations, noise: float) -> float:
    """Log of the probability of the points, up to a constant that all fits of the same points share.

    Laplace's approximation with the Student-t density of the errors: with W the curvature of its logarithm,
    log p(y | f) - f^T K^-1 f / 2 - log |K + W^-1| / 2 - log |W| / 2 at the mode f.
    """
    before_device, before_host = _before(prior, host, points)
    predicted = _law(fit.log_device, fit.log_host, points)
    squared = ((points.log_latency - predicted) / noise) ** 2
    likelihood = -0.5 * (STUDENT_NU + 1) * np.log1p(squared / STUDENT_NU).sum()
    off = fit.weight_device @ (fit.log_device - before_device)
    off += fit.weight_host @ (fit.log_host - before_host)
    curvature = (STUDENT_NU + 1) / (STUDENT_NU + squared) / noise**2
    volume = np.linalg.slogdet(fit.matrix)[1] + np.log(curvature).sum()
    return float(likelihood - 0.5 * off - 0.5 * volume)


def _screened(
    prior: Prior, regimes: Regimes, knots: Knots, points: Observations, listed: list[Case]
) -> FloatArray:
    """Log probability (C,) of each case, the law being linear around the fit without regimes."""
    calm, at = Covariance(regimes.calm, knots), points.host_at
    host, fit = _infer(prior, regimes.calm, knots, points, calm)
    before_device, before_host = _before(prior, host, points)
    by_device, by_host = fit.slope_device, fit.slope_host
    expected = points.log_latency - _law(fit.log_device, fit.log_host, points)
    expected += by_device * (fit.log_device - before_device) + by_host * (fit.log_host - before_host)
    matrix = by_device[:, None] * by_device * calm.device(at, at)
    matrix += by_host[:, None] * by_host * (calm.curve(host.shared, at, at) + calm.variation(at, at))
    matrix[np.diag_indices_from(matrix)] += (SCREENING_NOISE * regimes.calm.noise) ** 2
    change = by_host[:, None] * by_host * calm.curve(regimes.apart, at, at)
    score = np.empty(len(listed))
    for index, case in enumerate(listed):
        root = np.linalg.cholesky(matrix + np.outer(case.labels, case.labels) * change)
        whitened = np.linalg.solve(root, expected)
        score[index] = case.log_prior - 0.5 * whitened @ whitened - np.log(np.diag(root)).sum()
    return score


def _before(prior: Prior, host: _Host, points: Observations) -> tuple[FloatArray, FloatArray]:
    """Log D and log H at the points before they were seen."""
    return prior.log_device[points.batch, points.sm], host.mean[points.host_at[2]]


def _law(log_device: FloatArray, log_host: FloatArray, points: Observations) -> FloatArray:
    return log_latency(log_device, log_host, points.quota_share, points.gpu_time, points.credit)[0]
