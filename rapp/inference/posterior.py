"""From K measured points of a network to its curves: a Gaussian process over log D and log H.

The observation is the law of `rapp.inference.law`, which is not linear, so the posterior is Laplace's
approximation: damped Gauss-Newton steps on the K points (Rasmussen and Williams 2006, section 3.4,
with two latent values a point), with Student-t weights so that one wild point does not bend a curve.
Cost: O(K^3) + O(K^2 x knots); on one core 11 points take some 10 ms, 700 points some 0.6 s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rapp.inference.covariance import At, Covariance
from rapp.inference.law import SHARPNESS, log_latency
from rapp.inference.structure import Structure
from rapp.knots import IndexArray, Knots
from rapp.types import FloatArray

STUDENT_NU = 4.0
TEMPERATURE = 0.5
# The prior's own scale counts as much as this many points that surprise as expected: few, since how much
# a network differs from the training's is told better by its own points than by them.
SURPRISE_POINTS = 2.0
STEPS = 30
# The first steps use a blunter maximum: with the final one a side that starts far below the other
# has no slope, and could never be found to be the one that was measured.
ANNEALING = (3.0, 3.0, 4.0, 6.0, 8.0)
# Improvement of the energy (a log density) below which the search ends.
ENOUGH = 1e-3
# With so many points a later round need not be annealed: it starts where the one before it ended. It ends
# within 0.1 % of the annealed answer (V100 profiles, 680 points), in half the time.
PLENTY = 100


@dataclass(frozen=True)
class Prior:
    """What the graph alone says: log D (B, S) and the log host curve (Q,) on the knots, log ms."""

    log_device: FloatArray
    log_host: FloatArray


@dataclass(frozen=True)
class Observations:
    """K measured points on the knots; arrays (K,).

    Args:
        batch, sm, quota: indices into the knots.
        quota_share: the quotas themselves, in (0, 1].
        log_latency: log of the mean latency, log ms.
        gpu_time: which points limit device time; the others gate launches.
        credit: `rapp.inference.law.credit_ms` of the loop that measured them, ms.
    """

    batch: IndexArray
    sm: IndexArray
    quota: IndexArray
    quota_share: FloatArray
    log_latency: FloatArray
    gpu_time: NDArray[np.bool_]
    credit: float = 0.0

    def __len__(self) -> int:
        return len(self.log_latency)

    @property
    def host_at(self) -> At:
        """The knots of each point's host time: with a gpu_time quota that without a quota, the last."""
        return self.batch, self.sm, np.where(self.gpu_time, -1, self.quota)


@dataclass(frozen=True)
class Curves:
    """A network's curves on the knots, and how sure they are.

    Args:
        log_device: (B, S) log D, log ms.
        log_host: (B, S, Q) log H, log ms, under each quota of a launch gate; [..., -1] is without one.
        deviation: (B, S, Q) standard deviation of the log latency of a launch gate; [..., -1] is
            without a quota.
    """

    log_device: FloatArray
    log_host: FloatArray
    deviation: FloatArray


@dataclass(frozen=True)
class _Host:
    """The host curve before the points: mean (Q,) on the knots, covariance (Q, Q) over the trained quotas."""

    mean: FloatArray
    shared: FloatArray


@dataclass(frozen=True)
class _Fit:
    """Laplace's approximation at the K points; arrays (K,), `matrix` (K, K).

    Args:
        weight_device, weight_host: the posterior mean is the prior's plus covariance times these.
        log_device, log_host: that mean at the points.
        slope_device, slope_host: derivatives of the predicted log latency.
        matrix: covariance of the K log latencies under the linear law, noise included.
        surprise: squared Mahalanobis distance of the points from what was expected; K if all is as learned.
    """

    weight_device: FloatArray
    weight_host: FloatArray
    log_device: FloatArray
    log_host: FloatArray
    slope_device: FloatArray
    slope_host: FloatArray
    matrix: FloatArray
    surprise: float


def infer_curves(prior: Prior, structure: Structure, knots: Knots, points: Observations) -> Curves:
    """The posterior of a network's curves given its measured points; with none, the prior.

    The deviations are those of a Student-t process (Shah, Wilson, Ghahramani 2014): wider for a network
    whose points surprise more than those of the training networks did, by `_Fit.surprise`.
    """
    b, s, q = (index.ravel() for index in np.indices(knots.shape))
    seen = _posterior_at((b, s, q), prior, structure, knots, points)
    return Curves(
        seen.log_device.reshape(knots.shape)[..., 0],
        seen.log_host.reshape(knots.shape),
        np.sqrt(seen.scale * np.maximum(seen.variance(), 1e-8)).reshape(knots.shape),
    )


def posterior_covariance(
    prior: Prior, structure: Structure, knots: Knots, points: Observations, at: At
) -> FloatArray:
    """Covariance (N, N) of the log latency of launch gates at N knots, given the points."""
    return _posterior_at(at, prior, structure, knots, points).covariance()


def _posterior_at(at: At, prior: Prior, structure: Structure, knots: Knots, points: Observations) -> _Seen:
    cover, host, fit = Covariance(structure, knots), _Host(prior.log_host, structure.shared), None
    if len(points):
        host, fit = _infer(prior, structure, knots, points, cover)
    return _Seen(at, prior, host, cover, fit, points)


def _infer(
    prior: Prior, structure: Structure, knots: Knots, points: Observations, cover: Covariance
) -> tuple[_Host, _Fit]:
    at, host = points.host_at, _Host(prior.log_host, structure.shared)
    mean_device, k_device = prior.log_device[points.batch, points.sm], cover.device(at, at)
    variation = cover.variation(at, at)

    def fitted(before: _Fit | None = None) -> _Fit:
        k_host = cover.curve(host.shared, at, at) + variation
        start = before if len(points) >= PLENTY else None
        return _laplace(points, (mean_device, host.mean[at[2]]), (k_device, k_host), structure.noise, start)

    fit = fitted()
    # Two rounds: the second weighs the prototypes by slopes that the first has set right.
    for _ in range(2 if len(structure.prototypes) else 0):
        scatter = cover.curve(structure.local, at, at) + variation
        host = _reweighted(prior, structure, knots, fit, points, scatter)
        fit = fitted(fit)
    return host, fit


def _laplace(
    points: Observations,
    mean: tuple[FloatArray, FloatArray],
    cover: tuple[FloatArray, FloatArray],
    noise: float,
    start: _Fit | None = None,
) -> _Fit:
    """Find log D and log H at the points.

    Args:
        mean, cover: of log D and of log H before the points are seen; (K,) and (K, K) each.
        start: where the search begins; without it at the mean, with a blunt maximum at first.
    """
    (mean_d, mean_h), (k_d, k_h) = mean, cover
    quota, gpu_time, credit = points.quota_share, points.gpu_time, points.credit
    v_d, v_h, weight = np.zeros(len(points)), np.zeros(len(points)), np.ones(len(points))
    log_d, log_h = (mean_d, mean_h) if start is None else (start.log_device, start.log_host)
    annealing = ANNEALING if start is None else (SHARPNESS,)
    matrix, other = np.empty_like(k_d), np.empty_like(k_h)

    def energy(log_d: FloatArray, log_h: FloatArray, v_d: FloatArray, v_h: FloatArray) -> float:
        predicted, _, _ = log_latency(log_d, log_h, quota, gpu_time, credit)
        scaled = (points.log_latency - predicted) / noise
        loss = 0.5 * (STUDENT_NU + 1) * np.log1p(scaled**2 / STUDENT_NU)
        return float(loss.sum() + 0.5 * (v_d @ (log_d - mean_d) + v_h @ (log_h - mean_h)))

    current = np.inf
    for step in range(STEPS):
        whole = step < len(annealing)
        sharpness = annealing[step] if whole else SHARPNESS
        predicted, g_d, g_h = log_latency(log_d, log_h, quota, gpu_time, credit, sharpness)
        residual = points.log_latency - predicted
        if sharpness == SHARPNESS:
            weight = (STUDENT_NU + 1) / (STUDENT_NU + (residual / noise) ** 2)
        np.multiply(k_d, g_d[:, None], out=matrix)
        matrix *= g_d
        np.multiply(k_h, g_h[:, None], out=other)
        other *= g_h
        matrix += other
        matrix[np.diag_indices_from(matrix)] += noise**2 / weight
        expected = residual + g_d * (log_d - mean_d) + g_h * (log_h - mean_h)
        alpha = np.linalg.solve(matrix, expected)
        if whole:
            v_d, v_h = g_d * alpha, g_h * alpha
            log_d, log_h = mean_d + k_d @ v_d, mean_h + k_h @ v_h
            continue
        if current == np.inf:
            current = energy(log_d, log_h, v_d, v_h)
        to_d, to_h = g_d * alpha - v_d, g_h * alpha - v_h
        far_d, far_h = k_d @ to_d, k_h @ to_h
        for length in (1.0, 0.5, 0.25, 0.1, 0.03):
            tried = (log_d + length * far_d, log_h + length * far_h, v_d + length * to_d, v_h + length * to_h)
            reached = energy(*tried)
            if reached < current:
                break
        else:
            break
        log_d, log_h, v_d, v_h = tried
        improved, current = current - reached, reached
        if improved < ENOUGH:
            break
    return _Fit(v_d, v_h, log_d, log_h, g_d, g_h, matrix, float(expected @ alpha))


def _reweighted(
    prior: Prior, structure: Structure, knots: Knots, fit: _Fit, points: Observations, scatter: FloatArray
) -> _Host:
    """The host curve once the points have weighed the prototypes.

    A prototype counts by how likely it makes the points at which the host was seen, and by how near
    its level is to the graph's. The likelihood is flattened (`TEMPERATURE`): the points of one network
    share errors that the covariance does not hold.

    Args:
        scatter: (K, K) covariance of log H at the points around the true prototype.
    """
    there = knots.trained_index("quota_pct")
    curves = structure.prototypes
    seen = np.maximum(fit.slope_host, 1e-3)
    scatter = scatter + np.diag((structure.noise / seen) ** 2)
    off = points.log_latency - curves[:, there[points.host_at[2]]]
    likelihood = -0.5 * TEMPERATURE * np.einsum("pk,kp->p", off, np.linalg.solve(scatter, off.T))
    level = (curves - prior.log_host[knots.trained_quota()]).mean(axis=1)
    likelihood -= 0.5 * TEMPERATURE * level**2 / max(float(structure.shared.mean()), 1e-6)
    weight = np.exp(likelihood - likelihood.max())
    weight /= weight.sum()
    mean = weight @ curves
    spread = curves - mean
    return _Host(mean[there], structure.local + (weight[:, None] * spread).T @ spread)


class _Seen:
    """The posterior at N knots: log D, log H, and the (co)variance of log latency under a launch gate."""

    def __init__(
        self, at: At, prior: Prior, host: _Host, cover: Covariance, fit: _Fit | None, points: Observations
    ) -> None:
        self._at, self._cover, self._shared = at, cover, host.shared
        known = 0.0 if fit is None else fit.surprise
        self.scale = (SURPRISE_POINTS + known) / (SURPRISE_POINTS + len(points))
        self.log_device, self.log_host = prior.log_device[at[0], at[1]], host.mean[at[2]]
        if fit is not None:
            to_device = cover.device(at, points.host_at)
            to_host = cover.variation(at, points.host_at)
            to_host += cover.curve(host.shared, at, points.host_at)
            self.log_device = self.log_device + to_device @ fit.weight_device
            self.log_host = self.log_host + to_host @ fit.weight_host
        self._slope = 0.5 * (1 + np.tanh(0.5 * SHARPNESS * (self.log_device - self.log_host)))
        # (N, K): covariance with the points, and how much of each point's news arrives here.
        self._towards = self._gain = np.zeros((len(at[0]), 0))
        if fit is not None:
            to_device *= fit.slope_device
            to_device *= self._slope[:, None]
            to_host *= fit.slope_host
            to_host *= (1 - self._slope)[:, None]
            self._towards = to_device + to_host
            self._gain = self._towards @ np.linalg.inv(fit.matrix)

    def variance(self) -> FloatArray:
        """(N,)"""
        device = self._slope**2 * self._cover.device_variance(self._at)
        host = (1 - self._slope) ** 2 * self._cover.host_variance(self._shared, self._at)
        return np.asarray(device + host - np.einsum("nk,nk->n", self._gain, self._towards))

    def covariance(self) -> FloatArray:
        """(N, N)"""
        g, at, cover = self._slope, self._at, self._cover
        device = g[:, None] * g * cover.device(at, at)
        host = cover.curve(self._shared, at, at) + cover.variation(at, at)
        return np.asarray(device + (1 - g)[:, None] * (1 - g) * host - self._gain @ self._towards.T)
