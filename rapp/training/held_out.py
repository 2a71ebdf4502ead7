"""Scores of a trained model on networks or rows that it has not seen, as its artifact would answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from rapp.evaluation.scores import score
from rapp.inference.design import next_point
from rapp.inference.posterior import Observations, Prior, infer_curves
from rapp.training.dataset import TrainingSet, subset
from rapp.training.encoder_fit import priors
from rapp.training.intervals import at_points
from rapp.training.pipeline import TrainedModel
from rapp.training.points import fixed_list, nearest_points

# A point is the device's if its latency without a quota is this many times the host's floor, the
# network's lowest latency...
DEVICE_BOUND = 1.5
# ... and, in the stricter sense, if a quota of a launch gate near 50 % makes it no more than this factor
# slower: host time answers to the gate, device time does not. The public V100 profiles hold networks
# whose host was slower by more than `DEVICE_BOUND` at some SM partitions.
GATE_FREE = 1.1


def score_networks(
    model: TrainedModel, data: TrainingSet, names: Sequence[str], counts: Sequence[int], rule: bool = False
) -> dict[str, Any]:
    """Scores of unseen networks with K measured points each.

    Args:
        data: holds the points and graphs of `names`, on the knots of the model.
        counts: the K to try.
        rule: choose the points one after the other (`rapp.inference.design`), not by the fixed list.

    Returns:
        by network: `device_mape` (and `device_mape_floor_alone`, the same not strict) with K = 0, and by
        K the `Scores` as a dictionary with `ape`, every scored row's error in %.
    """
    answers = priors(model.encoders, data, list(names), model.settings)
    return {
        name: {
            "device_mape": device_mape(answers[name], data.points[name]),
            "device_mape_floor_alone": device_mape(answers[name], data.points[name], strict=False),
            "points": {
                str(count): _score(model, answers[name], data.points[name], chosen)
                for count, chosen in _choices(model, answers[name], data.points[name], counts, rule)
            },
        }
        for name in names
    }


def score_rows(model: TrainedModel, test: TrainingSet) -> dict[str, Any]:
    """Scores of held-out rows of known networks, each fitted to its training rows."""
    answers = priors(model.encoders, test, test.names, model.settings)
    result = {}
    for name in test.names:
        given = model.data.points[name]
        curves = infer_curves(answers[name], model.structure, model.data.knots, given)
        result[name] = {"points": {"known": _scores(model, curves, test.points[name], len(given))}}
    return result


def device_mape(prior: Prior, points: Observations, strict: bool = True) -> float | None:
    """Error of device time, %, at the device-bound points, where the latency is the device time.

    Args:
        strict: count a point only if a launch gate hardly slows it (`GATE_FREE`), where that was measured.

    Returns:
        the mean over these points; None where there are none.
    """
    full = points.quota_share > 0.999
    batch, sm, latency = points.batch[full], points.sm[full], points.log_latency[full]
    bound = latency > latency.min() + math.log(DEVICE_BOUND)
    gated = ~points.gpu_time & ~full
    if strict and gated.any():
        shares = points.quota_share[gated]
        half = gated & (points.quota_share == shares[np.argmin(np.abs(shares - 0.5))])
        slowed = {
            (b, s): value
            for b, s, value in zip(points.batch[half], points.sm[half], points.log_latency[half], strict=True)
        }
        pairs = zip(batch, sm, latency, strict=True)
        bound &= np.array([slowed.get((b, s), value) - value < math.log(GATE_FREE) for b, s, value in pairs])
    if not bound.any():
        return None
    return float(100 * np.abs(np.expm1((prior.log_device[batch, sm] - latency)[bound])).mean())


def _choices(
    model: TrainedModel, prior: Prior, points: Observations, counts: Sequence[int], rule: bool
) -> list[tuple[int, np.ndarray]]:
    knots = model.data.knots
    if not rule:
        order = nearest_points(points, knots, fixed_list(knots)[: max(counts)])
        return [(count, order[:count]) for count in counts]
    at = (points.batch, points.sm, points.quota)
    chosen: list[int] = []
    while len(chosen) < max(counts):
        rest = np.setdiff1d(np.arange(len(points)), chosen)
        given = subset(points, np.array(chosen, dtype=np.int64))
        chosen.append(next_point(prior, model.structure, knots, given, at, rest))
    return [(count, np.array(chosen[:count], dtype=np.int64)) for count in counts]


def _score(model: TrainedModel, prior: Prior, points: Observations, chosen: np.ndarray) -> dict[str, Any]:
    rest = np.ones(len(points), dtype=bool)
    rest[chosen] = False
    curves = infer_curves(prior, model.structure, model.data.knots, subset(points, chosen))
    return _scores(model, curves, subset(points, rest), len(chosen))


def _scores(model: TrainedModel, curves: Any, points: Observations, count: int) -> dict[str, Any]:
    mean, deviation = at_points(curves, points, model.structure.noise)
    half = interval_factor(model.interval_factors, count) * deviation
    measured = np.exp(points.log_latency)
    scores = score(measured, np.exp(mean), np.exp(mean - half), np.exp(mean + half))
    ape = 100 * np.abs(np.exp(mean) / measured - 1)
    return asdict(scores) | {"ape": [round(float(value), 3) for value in ape]}


def interval_factor(factors: Any, count: int) -> float:
    """The factor for `count` points, linear in log(1 + K) between those learned, as `rapp.card` reads it."""
    listed = sorted(factors)
    return float(np.interp(math.log1p(count), [math.log1p(k) for k in listed], [factors[k] for k in listed]))
