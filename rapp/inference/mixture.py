"""The posterior of a network whose host may change its regime: a mixture over the cases of `regimes`.

`RegimePosterior.curves` answers as `rapp.inference.posterior.infer_curves` does, and
`RegimePosterior.cross_covariance` is what a rule for the next point needs. Both are moments of the mixture: a
partition whose regime is open is as unsure as its two regimes are apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rapp.inference.covariance import At, Covariance
from rapp.inference.law import SHARPNESS, soft_maximum
from rapp.inference.posterior import SURPRISE_POINTS, Curves, Observations, Prior
from rapp.inference.regimes import FittedCase, Regimes, fitted_cases
from rapp.inference.structure import Structure
from rapp.knots import IndexArray, Knots
from rapp.types import FloatArray


@dataclass(frozen=True)
class CrossCovariance:
    """Of the log latency of launch gates at N and at M knots: (N, M), and both variances (N,) and (M,)."""

    covariance: FloatArray
    variance: FloatArray
    other_variance: FloatArray


class RegimePosterior:
    """What K measured points say of a network's curves.

    Args:
        prior: what the graph says.
        structure: what the training networks taught.
        knots: of both.
        points: K measured points, none to many.

    Attributes:
        cases: the likely ones, most likely first.
    """

    def __init__(self, prior: Prior, structure: Structure, knots: Knots, points: Observations) -> None:
        self._prior, self._knots, self._points = prior, knots, points
        self._regimes = Regimes.of(structure)
        self._cover = Covariance(self._regimes.calm, knots)
        self.cases = fitted_cases(prior, self._regimes, knots, points)

    def curves(self) -> Curves:
        """The curves on the knots; means and deviations are over all cases and regimes."""
        shape = self._knots.shape
        b, s, q = (index.ravel() for index in np.indices(shape))
        seen = self._seen((b, s, q))
        log_device, log_host = np.zeros(len(b)), np.zeros(len(b))
        mean, square = np.zeros(len(b)), np.zeros(len(b))
        for one in self.cases:
            view = seen.under(one)
            log_device += one.probability * view.log_device
            for regime, share in ((0, 1 - view.chance), (1, view.chance)):
                weight = one.probability * share
                host = view.log_host + regime * view.step
                slope = _slope(view.log_device, host)
                variance = seen.variance(one, view, slope, regime * np.ones(len(b)))
                latency = soft_maximum(view.log_device, host)
                log_host += weight * host
                mean += weight * latency
                square += weight * (self._surprise(one) * np.maximum(variance, 1e-8) + latency**2)
        deviation = np.sqrt(np.maximum(square - mean**2, 1e-8))
        return Curves(log_device.reshape(shape)[..., 0], log_host.reshape(shape), deviation.reshape(shape))

    def cross_covariance(self, at: At, other: At) -> CrossCovariance:
        """Between N knots and M others. The slopes of the law are taken at the mean of both regimes."""
        rows, columns = self._seen(at), self._seen(other)
        s, t = rows.partition, columns.partition
        apart = self._cover.curve(self._regimes.apart, at, other)
        device, variation = self._cover.device(at, other), self._cover.variation(at, other)
        total = np.zeros(device.shape)
        means, squares = [np.zeros(len(s)), np.zeros(len(t))], [np.zeros(len(s)), np.zeros(len(t))]
        for one in self.cases:
            inverse = np.linalg.inv(one.fit.matrix)
            open_ = (one.case.both - np.outer(one.case.mean, one.case.mean)).take(s, axis=0).take(t, axis=1)
            (u, u_step), (v, v_step) = rows.linear(one), columns.linear(one)
            # Within the case: the prior's covariance less what the points took from it ...
            part = self._cover.curve(one.host.shared, at, other) + variation
            part += (open_ + np.outer(u.chance, v.chance)) * apart
            part *= (1 - u.slope)[:, None]
            part *= 1 - v.slope
            part += u.slope[:, None] * device * v.slope
            part -= (
                (u.towards + u.chance[:, None] * u_step.towards)
                @ inverse
                @ (v.towards + v.chance[:, None] * v_step.towards).T
            )
            # ... and what is open of the labels, which moves means and covariances alike ...
            part += open_ * (np.outer(u_step.mean, v_step.mean) - u_step.towards @ inverse @ v_step.towards.T)
            # ... and between cases: how their means differ.
            side_means = u.mean + u.chance * u_step.mean, v.mean + v.chance * v_step.mean
            part += np.outer(*side_means)
            total += one.probability * part
            own = rows.case_variance(one, u, u_step), columns.case_variance(one, v, v_step)
            for side in (0, 1):
                means[side] += one.probability * side_means[side]
                squares[side] += one.probability * (own[side] + side_means[side] ** 2)
        here, there = (np.maximum(square - mean**2, 0.0) for square, mean in zip(squares, means, strict=True))
        return CrossCovariance(total - np.outer(*means), here, there)

    def _seen(self, at: At) -> _Seen:
        return _Seen(at, self._prior, self._regimes, self._cover, self._knots, self._points)

    def _surprise(self, one: FittedCase) -> float:
        """The scale of the Student-t process, as in `rapp.inference.posterior.infer_curves`."""
        return (SURPRISE_POINTS + one.fit.surprise) / (SURPRISE_POINTS + len(self._points))


@dataclass(frozen=True)
class _View:
    """N knots under one case; (N,) each.

    Args:
        log_device: mean of log D. log_host: of log H in regime 0. step: what regime 1 adds to it.
        chance: probability of regime 1.
    """

    log_device: FloatArray
    log_host: FloatArray
    step: FloatArray
    chance: FloatArray


@dataclass(frozen=True)
class _Linear:
    """N knots under one case and regime.

    Args:
        mean, slope: (N,) of the log latency; its derivative by log D.
        chance: (N,) probability of regime 1.
        towards: (N, K) covariance with the points.
    """

    mean: FloatArray
    slope: FloatArray
    chance: FloatArray
    towards: FloatArray


class _Seen:
    """N knots as the K points see them; what no case changes is computed once."""

    def __init__(
        self, at: At, prior: Prior, regimes: Regimes, cover: Covariance, knots: Knots, points: Observations
    ) -> None:
        self._at, self._prior, self._regimes, self._cover = at, prior, regimes, cover
        self._points_at = points.host_at
        self.partition: IndexArray = knots.trained_index("sm_pct")[at[1]]
        self._quota = knots.trained_index("quota_pct")[at[2]]
        self._to_device = cover.device(at, self._points_at)
        self._to_variation = cover.variation(at, self._points_at)
        self._to_step = cover.curve(regimes.apart, at, self._points_at)
        self._device_variance = cover.device_variance(at)

    def under(self, one: FittedCase) -> _View:
        fit = one.fit
        log_device = self._prior.log_device[self._at[0], self._at[1]] + self._to_device @ fit.weight_device
        log_host = one.host.mean[self._at[2]] + self._to_host(one) @ fit.weight_host
        step = self._to_step @ (one.case.labels * fit.weight_host)
        return _View(log_device, log_host, step, one.case.mean[self.partition])

    def variance(self, one: FittedCase, view: _View, slope: FloatArray, chance: FloatArray) -> FloatArray:
        """(N,) of the log latency, `chance` being that of regime 1."""
        towards = self._towards(one, slope, chance)
        gained = np.einsum("nk,nk->n", towards @ np.linalg.inv(one.fit.matrix), towards)
        return np.asarray(self._unseen_variance(one, slope, chance) - gained)

    def linear(self, one: FittedCase) -> tuple[_Linear, _Linear]:
        """Regime 0, and what regime 1 adds to it."""
        view = self.under(one)
        mean = soft_maximum(view.log_device, view.log_host)
        slope = _slope(view.log_device, view.log_host + view.chance * view.step)
        none = self._towards(one, slope, np.zeros(len(slope)))
        step = self._towards(one, slope, np.ones(len(slope))) - none
        added = soft_maximum(view.log_device, view.log_host + view.step) - mean
        return _Linear(mean, slope, view.chance, none), _Linear(added, slope, view.chance, step)

    def case_variance(self, one: FittedCase, base: _Linear, step: _Linear) -> FloatArray:
        """(N,) of the log latency under a case, its open labels included."""
        inverse, open_ = np.linalg.inv(one.fit.matrix), base.chance * (1 - base.chance)
        towards = base.towards + base.chance[:, None] * step.towards
        found = self._unseen_variance(one, base.slope, base.chance)
        found -= np.einsum("nk,nk->n", towards @ inverse, towards)
        found += open_ * (step.mean**2 - np.einsum("nk,nk->n", step.towards @ inverse, step.towards))
        return np.asarray(found)

    def _unseen_variance(self, one: FittedCase, slope: FloatArray, chance: FloatArray) -> FloatArray:
        host = self._cover.host_variance(one.host.shared, self._at)
        host += chance * np.diag(self._regimes.apart)[self._quota]
        return np.asarray(slope**2 * self._device_variance + (1 - slope) ** 2 * host)

    def _towards(self, one: FittedCase, slope: FloatArray, chance: FloatArray) -> FloatArray:
        host = self._to_host(one) + chance[:, None] * (self._to_step * one.case.labels)
        host *= (1 - slope)[:, None]
        host *= one.fit.slope_host
        return np.asarray(slope[:, None] * self._to_device * one.fit.slope_device + host)

    def _to_host(self, one: FittedCase) -> FloatArray:
        shared = self._cover.curve(one.host.shared, self._at, self._points_at)
        return np.asarray(shared + self._to_variation)


def _slope(log_device: FloatArray, log_host: FloatArray) -> FloatArray:
    """Derivative of the log latency by log D."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * SHARPNESS * (log_device - log_host))))
