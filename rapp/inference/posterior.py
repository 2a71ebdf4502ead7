"""From K measured points of a network to its curves: a Gaussian process over log D and log H.

The observation is the law of `rapp.inference.law`, which is not linear, so the posterior is Laplace's
approximation: damped Gauss-Newton steps on the K points (Rasmussen and Williams 2006, section 3.4,
with two latent values a point), with Student-t weights so that one wild point does not bend a curve.
Cost: O(K^3) + O(K x knots); 11 points take some 20 ms, 700 points under a second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rapp.inference.law import SHARPNESS, log_latency
from rapp.inference.structure import Structure
from rapp.knots import IndexArray, Knots
from rapp.types import FloatArray

STUDENT_NU = 4.0
TEMPERATURE = 0.5
STEPS = 30
# The first steps use a blunter maximum: with the final one a side that starts far below the other
# has no slope, and could never be found to be the one that was measured.
ANNEALING = (3.0, 3.0, 4.0, 6.0, 8.0)


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


class _Covariance:
    """Covariances between knots, the trained axes being extended by their nearest value."""

    def __init__(self, structure: Structure, knots: Knots, shared: FloatArray) -> None:
        self.structure, self.shared = structure, shared
        self.b, self.s, self.q = (knots.trained_index(axis) for axis in ("batch", "sm_pct", "quota_pct"))
        self.columns = len(knots.trained_sm_pct)

    def device(self, one: tuple[IndexArray, ...], other: tuple[IndexArray, ...]) -> FloatArray:
        row, column = (self.b[p[0]] * self.columns + self.s[p[1]] for p in (one, other))
        return np.asarray(self.structure.device[np.ix_(row, column)])

    def host(self, one: tuple[IndexArray, ...], other: tuple[IndexArray, ...]) -> FloatArray:
        b1, s1, q1 = self.b[one[0]], self.s[one[1]], self.q[one[2]]
        b2, s2, q2 = self.b[other[0]], self.s[other[1]], self.q[other[2]]
        total = self.shared[np.ix_(q1, q2)].copy()
        for part in self.structure.variation:
            total += part.batch[np.ix_(b1, b2)] * part.sm[np.ix_(s1, s2)] * part.quota[np.ix_(q1, q2)]
        return total

    def device_variance(self, at: tuple[IndexArray, ...]) -> FloatArray:
        index = self.b[at[0]] * self.columns + self.s[at[1]]
        return np.asarray(self.structure.device[index, index])

    def host_variance(self, at: tuple[IndexArray, ...]) -> FloatArray:
        b, s, q = self.b[at[0]], self.s[at[1]], self.q[at[2]]
        total = self.shared[q, q].copy()
        for part in self.structure.variation:
            total += part.batch[b, b] * part.sm[s, s] * part.quota[q, q]
        return total


@dataclass
class _Fit:
    """Laplace's approximation at the K points: weights of the two latent values, slopes, (K, K) inverse."""

    weight_device: FloatArray
    weight_host: FloatArray
    slope_device: FloatArray
    slope_host: FloatArray
    inverse: FloatArray


def infer_curves(prior: Prior, structure: Structure, knots: Knots, points: Observations) -> Curves:
    """The posterior of a network's curves given its measured points; with none, the prior."""
    mean, cover, fit = _infer(prior, structure, knots, points)
    shape = knots.shape
    everywhere = tuple(index.ravel() for index in np.indices(shape))
    seen = _Seen(prior, mean, cover, fit, points, everywhere)
    return Curves(
        seen.log_device.reshape(shape)[..., 0],
        seen.log_host.reshape(shape),
        np.sqrt(np.maximum(seen.variance(), 1e-8)).reshape(shape),
    )


def posterior_covariance(
    prior: Prior, structure: Structure, knots: Knots, points: Observations, at: tuple[IndexArray, ...]
) -> FloatArray:
    """Covariance (N, N) of the log latency of launch gates at N knots (batch, SM, quota), given the points."""
    mean, cover, fit = _infer(prior, structure, knots, points)
    return _Seen(prior, mean, cover, fit, points, at).covariance()


def _infer(
    prior: Prior, structure: Structure, knots: Knots, points: Observations
) -> tuple[FloatArray, _Covariance, _Fit | None]:
    mean, cover = prior.log_host, _Covariance(structure, knots, structure.shared)
    if not len(points):
        return mean, cover, None
    fit = _laplace(prior.log_device, mean, cover, points, structure.noise)
    # Two rounds: the second weighs the prototypes by slopes that the first has set right.
    for _ in range(2 if len(structure.prototypes) else 0):
        mean, shared = _reweighted(prior, structure, knots, fit, points)
        cover = _Covariance(structure, knots, shared)
        fit = _laplace(prior.log_device, mean, cover, points, structure.noise)
    return mean, cover, fit


def _at(points: Observations) -> tuple[IndexArray, IndexArray, IndexArray]:
    """Where the host's latent value of each point sits: with a gpu_time quota, at the last quota knot."""
    quota = np.where(points.gpu_time, -1, points.quota)
    return points.batch, points.sm, quota


def _laplace(
    device: FloatArray, host: FloatArray, cover: _Covariance, points: Observations, noise: float
) -> _Fit:
    at = _at(points)
    k_device, k_host = cover.device(at, at), cover.host(at, at)
    mean_device, mean_host = device[points.batch, points.sm], host[at[2]]
    quota = points.quota_share
    v_device, v_host = np.zeros(len(points)), np.zeros(len(points))
    weight = np.ones(len(points))

    def energy(a: FloatArray, b: FloatArray) -> float:
        predicted, _, _ = log_latency(
            mean_device + k_device @ a, mean_host + k_host @ b, quota, points.gpu_time, points.credit
        )
        scaled = (points.log_latency - predicted) / noise
        loss = 0.5 * (STUDENT_NU + 1) * np.log1p(scaled**2 / STUDENT_NU)
        return float(loss.sum() + 0.5 * (a @ k_device @ a + b @ k_host @ b))

    current = np.inf
    for step in range(STEPS):
        sharpness = ANNEALING[step] if step < len(ANNEALING) else SHARPNESS
        log_d, log_h = mean_device + k_device @ v_device, mean_host + k_host @ v_host
        predicted, g_d, g_h = log_latency(log_d, log_h, quota, points.gpu_time, points.credit, sharpness)
        residual = points.log_latency - predicted
        if step >= len(ANNEALING):
            weight = (STUDENT_NU + 1) / (STUDENT_NU + (residual / noise) ** 2)
        target = residual + g_d * (log_d - mean_device) + g_h * (log_h - mean_host)
        matrix = g_d[:, None] * k_device * g_d + g_h[:, None] * k_host * g_h
        matrix[np.diag_indices_from(matrix)] += noise**2 / weight
        alpha = np.linalg.solve(matrix, target)
        to_device, to_host = g_d * alpha - v_device, g_h * alpha - v_host
        if step < len(ANNEALING):
            v_device, v_host = v_device + to_device, v_host + to_host
            continue
        if step == len(ANNEALING):
            current = energy(v_device, v_host)
        for length in (1.0, 0.5, 0.25, 0.1, 0.03):
            tried = energy(v_device + length * to_device, v_host + length * to_host)
            if tried < current:
                break
        else:
            break
        v_device, v_host = v_device + length * to_device, v_host + length * to_host
        improved, current = current - tried, tried
        if improved < 1e-3:
            break
    return _Fit(v_device, v_host, g_d, g_h, np.linalg.inv(matrix))


def _reweighted(
    prior: Prior, structure: Structure, knots: Knots, fit: _Fit, points: Observations
) -> tuple[FloatArray, FloatArray]:
    """Mean (Q,) and covariance (Q, Q) of the host curve once the points have weighed the prototypes.

    A prototype counts by how likely it makes the points at which the host was seen, and by how near
    its level is to the graph's. The likelihood is flattened (`TEMPERATURE`): the points of one network
    share errors that the covariance does not hold.
    """
    at = _at(points)
    here, there = knots.trained_index("quota_pct")[at[2]], knots.trained_index("quota_pct")
    curves = structure.prototypes
    scatter = _Covariance(structure, knots, structure.local).host(at, at)
    seen = np.maximum(fit.slope_host, 1e-3)
    scatter[np.diag_indices_from(scatter)] += (structure.noise / seen) ** 2
    off = points.log_latency - curves[:, here]
    likelihood = -0.5 * TEMPERATURE * np.einsum("pk,kp->p", off, np.linalg.solve(scatter, off.T))
    trained = knots.trained_quota()
    level = (curves - prior.log_host[trained]).mean(axis=1)
    likelihood -= 0.5 * TEMPERATURE * level**2 / max(float(structure.shared.mean()), 1e-6)
    weight = np.exp(likelihood - likelihood.max())
    weight /= weight.sum()
    mean = weight @ curves
    spread = curves - mean
    return mean[there], structure.local + (weight[:, None] * spread).T @ spread


class _Seen:
    """The posterior at N knots: log D, log H, and the (co)variance of log latency under a launch gate."""

    def __init__(
        self, prior: Prior, host: FloatArray, cover: _Covariance, fit: _Fit | None, points: Observations,
        at: tuple[IndexArray, ...],
    ) -> None:  # fmt: skip
        self.cover, self.at, self.inverse = cover, at, None if fit is None else fit.inverse
        self.log_device, self.log_host = prior.log_device[at[0], at[1]], host[at[2]]
        if fit is not None:
            measured = _at(points)
            to_device, to_host = cover.device(at, measured), cover.host(at, measured)
            self.log_device = self.log_device + to_device @ fit.weight_device
            self.log_host = self.log_host + to_host @ fit.weight_host
        self.slope = 0.5 * (1 + np.tanh(0.5 * SHARPNESS * (self.log_device - self.log_host)))
        if fit is not None:
            self.towards = (
                self.slope[:, None] * to_device * fit.slope_device
                + (1 - self.slope)[:, None] * to_host * fit.slope_host
            )

    def variance(self) -> FloatArray:
        device, host = self.cover.device_variance(self.at), self.cover.host_variance(self.at)
        variance = self.slope**2 * device + (1 - self.slope) ** 2 * host
        if self.inverse is None:
            return variance
        return np.asarray(variance - ((self.towards @ self.inverse) * self.towards).sum(axis=1))

    def covariance(self) -> FloatArray:
        g, h = self.slope, 1 - self.slope
        prior = g[:, None] * g * self.cover.device(self.at, self.at)
        prior = prior + h[:, None] * h * self.cover.host(self.at, self.at)
        if self.inverse is None:
            return prior
        return np.asarray(prior - self.towards @ self.inverse @ self.towards.T)
