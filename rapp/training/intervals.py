"""How wide 90 % is: factors on the predicted deviation, from networks as if unseen.

The posterior's deviation says where a prediction is surer than elsewhere; a factor for each number of
points K makes 90 % of the latencies lie inside (split conformal prediction on normalised residuals,
Lei et al. 2018, each network weighing the same). Every training network is predicted by an encoder
and by a structure that have not seen it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rapp.inference.law import log_latency
from rapp.inference.learn import learn_structure
from rapp.inference.posterior import Curves, Observations, Prior, infer_curves
from rapp.inference.structure import Structure
from rapp.inference.tables import Tables
from rapp.knots import Knots
from rapp.training.dataset import TrainingSet, subset
from rapp.training.points import fixed_list, listed
from rapp.types import FloatArray

COVERAGE = 0.9
# Of a normal distribution 90 % lies within so many standard deviations: what holds until rows say otherwise.
NORMAL_90 = 1.645
POINTS = (0, 1, 3, 5, 8, 11)
# Share of a network's rows that a known network is fitted to when its factor is found, and how many
# networks are: each takes a second.
KNOWN_SHARE = 0.85
KNOWN_NETWORKS = 12


def at_points(curves: Curves, points: Observations, noise: float) -> tuple[FloatArray, FloatArray]:
    """Log latency and its standard deviation (noise included) at measured points, each (K,): the decoder's
    answers at the knots."""
    tables = Tables.of(curves)
    at = points.batch, points.sm, points.quota
    gated = tables.log_latency[at].astype(np.float64)
    without = points.batch, points.sm, np.full(len(points), -1)
    limited, _, _ = log_latency(
        curves.log_device[points.batch, points.sm], curves.log_host[without], points.quota_share,
        points.gpu_time, points.credit,
    )  # fmt: skip
    deviation = np.where(points.gpu_time, curves.deviation[without], curves.deviation[at])
    return np.where(points.gpu_time, limited, gated), np.sqrt(deviation**2 + noise**2)


def interval_factors(
    data: TrainingSet,
    fits: Mapping[str, Curves],
    unseen: Mapping[str, Prior],
    parts: Sequence[Sequence[str]],
    structure: Structure,
    seed: int,
    known: bool = True,
) -> dict[int, float]:
    """Factor for each number of points K; with `known`, the last K is that of a known network.

    Args:
        fits: curves of each network. unseen: its prior by the encoder that had not seen it.
        parts: the networks that each encoder had not seen; a structure is learned without each.
        structure: learned from all networks; known networks are answered with it.
    """
    wanted = fixed_list(data.knots)
    without: dict[str, Structure] = {}
    for part in parts:
        others = [name for name in data.names if name not in part]
        learned = learn_structure({n: fits[n] for n in others}, unseen, data.knots) if others else None
        without |= {name: learned or structure.without(name) for name in part}
    factors = {}
    for count in POINTS:
        scores = []
        for name in data.names:
            given, rest = listed(data.points[name], data.knots, wanted[:count])
            if rest.any():
                scores.append(
                    _scores(data.points[name], given, rest, unseen[name], without[name], data.knots)
                )
        factors[count] = _weighted_quantile(scores)
    if not known:
        return factors
    rng = np.random.default_rng(seed)
    chosen = [data.names[i] for i in rng.permutation(len(data.names))[:KNOWN_NETWORKS]]
    scores, counts = [], []
    for name in chosen:
        keep = rng.random(len(data.points[name])) < KNOWN_SHARE
        if keep.all() or not keep.any():
            continue
        given = subset(data.points[name], keep)
        counts.append(len(given))
        scores.append(_scores(data.points[name], given, ~keep, unseen[name], structure, data.knots))
    if scores and int(np.median(counts)) > max(POINTS):
        factors[int(np.median(counts))] = _weighted_quantile(scores)
    return factors


def _scores(
    points: Observations,
    given: Observations,
    rest: np.ndarray,
    prior: Prior,
    structure: Structure,
    knots: Knots,
) -> FloatArray:
    curves = infer_curves(prior, structure, knots, given)
    scored = subset(points, rest)
    mean, deviation = at_points(curves, scored, structure.noise)
    return np.asarray(np.abs(scored.log_latency - mean) / deviation)


def _weighted_quantile(scores: list[FloatArray]) -> float:
    """Smallest value that holds 90 % of the rows, each network weighing the same."""
    if not scores:
        return NORMAL_90
    values = np.concatenate(scores)
    weights = np.concatenate([np.full(len(s), 1 / len(s)) for s in scores])
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    place = min(int(np.searchsorted(reached, COVERAGE)), len(values) - 1)
    return float(values[order][place])
