"""Choices of points to measure of a new network, compared on V100 networks left out of training.

    python scripts/bench_adaptive.py --protocols out/protocols --out out/adaptive [--write docs/profiling.md]

Each network of each unseen-network fold is measured point by point, up to 40, and scored on all its other
points, as its table has them. Methods: the rule of `rapp profile --adaptive`, the predictor's fixed list,
random points, a regular grid of so many, a Latin hypercube. All of them twice: with the table's own
measurements, and with those of the replay device, whose noise (5.8 % a process, 2.9 % a run) comes on top.

The constants of the rule were chosen on folds 0 to 3; folds 4 to 7 were looked at once, by this command.
Models of the folds are those that scripts/protocols.py trained into --protocols; what is missing is trained.
Each fold is one JSON file in --out; one that is there is not run again. Needs RAPP_V100_DIR.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_adaptive_tables import write_results
from protocols import ROOT

from profiler.adaptive import SIGMAS_90, START
from profiler.device import NetworkFile
from profiler.devices.replay import ReplayDevice, ReplayOptions
from profiler.measure import StopRule, measure
from rapp.fileio import atomic_path
from rapp.inference.answer import answer_curves
from rapp.inference.design import next_gated_point
from rapp.inference.mixture import RegimePosterior
from rapp.inference.posterior import Observations, Prior
from rapp.knots import Knots
from rapp.profiles import ProfileTable, Split, import_has_gpu
from rapp.training.dataset import load_training_set, subset
from rapp.training.encoder_fit import EncoderSettings, priors
from rapp.training.held_out import interval_factor
from rapp.training.intervals import at_points
from rapp.training.pipeline import TrainedModel, train_model
from rapp.training.points import fixed_list, nearest_points
from rapp.types import ResourceConfig

COUNTS = (3, 5, 8, 11, 16, 24, 32, 40)
SEEDS = (0, 1, 2)


def run_fold(fold: int, table_file: Path, protocols: Path, out: Path) -> str:
    """Score all methods on the networks of one fold."""
    torch.set_num_threads(1)
    table = ProfileTable.read(table_file).ok()
    split = Split.load(ROOT / "datasets" / "splits" / "unseen-network.json")
    train, _, test = split.select(table, fold)
    data = load_training_set(table, ROOT / "datasets" / "graphs")
    settings = EncoderSettings(steps=250)
    model = train_model(
        data.only(sorted(set(table.where(train).networks()))), settings, fold, members=4,
        state=protocols / "state" / f"unseen-network-{fold}-{settings.variant}-4-{settings.steps}",
        fit_cache=protocols / "fits", known_factor=False,
    )  # fmt: skip
    names = sorted(set(table.where(test).networks()))
    answers = priors(model.encoders, data, names, model.settings)
    device = ReplayDevice(table, ReplayOptions(seed=fold))
    result = {name: scored(model, answers[name], data.points[name], device, name) for name in names}
    with atomic_path(out / f"fold-{fold}.json") as temporary:
        temporary.write_text(json.dumps(result))
    return f"fold {fold}: {len(names)} networks"


def scored(
    model: TrainedModel, prior: Prior, points: Observations, device: ReplayDevice, network: str
) -> dict[str, list[dict[str, float]]]:
    """By method the scores at each of `COUNTS`; methods with several seeds are averaged."""
    found = in_turn(model, prior, points, points)
    replayed = in_turn(model, prior, points, points_through(device, network, points, model.data.knots))
    return found | {f"{method}, replayed": scores for method, scores in replayed.items()}


def in_turn(
    model: TrainedModel, prior: Prior, points: Observations, seen: Observations
) -> dict[str, list[dict[str, float]]]:
    """Scores by method, where a measurement answers with a latency of `seen`."""
    knots = model.data.knots
    rule = by_rule(model, prior, points, seen.log_latency)
    order = nearest_points(points, knots, fixed_list(knots)[: max(COUNTS)])
    found = {
        "rule": [score(model, prior, points, seen, rule[:count]) for count in COUNTS],
        "rule, regimes at every count": [
            score(model, prior, points, seen, rule[:count], regimes=True) for count in COUNTS
        ],
        "fixed list": [score(model, prior, points, seen, order[:count]) for count in COUNTS],
        "grid": [score(model, prior, points, seen, regular_grid(points, knots, count)) for count in COUNTS],
    }
    for method, choose in (("random", random_points), ("Latin hypercube", latin_hypercube)):
        found[method] = [
            mean([score(model, prior, points, seen, choose(points, knots, count, seed)) for seed in SEEDS])
            for count in COUNTS
        ]
    return found


def by_rule(model: TrainedModel, prior: Prior, points: Observations, log_latency: np.ndarray) -> np.ndarray:
    """The points that the rule asks for, one after another."""
    knots = model.data.knots
    most = float(knots.trained_batch[-1])
    start = tuple(ResourceConfig(sm, quota, int(max(share * most, 1))) for share, sm, quota in START)
    chosen = [int(index) for index in nearest_points(points, knots, start)]
    at = points.batch, points.sm, points.quota
    while len(chosen) < max(COUNTS):
        rest = np.setdiff1d(np.arange(len(points)), chosen)
        given = measured(points, log_latency, np.array(chosen))
        posterior = RegimePosterior(prior, model.structure, knots, given)
        chosen.append(next_gated_point(posterior, model.structure.noise, at, rest))
    return np.array(chosen)


def measured(points: Observations, log_latency: np.ndarray, chosen: np.ndarray) -> Observations:
    """Some of the points, with other latencies."""
    return subset(replace(points, log_latency=log_latency), chosen)


def score(
    model: TrainedModel, prior: Prior, truth: Observations, seen: Observations, chosen: np.ndarray, *,
    regimes: bool = False,
) -> dict[str, float]:  # fmt: skip
    """Error, error expected and coverage of the interval, %, over the points that were not measured."""
    rest = np.ones(len(truth), dtype=bool)
    rest[chosen] = False
    given, others = subset(seen, chosen), subset(truth, rest)
    arguments = prior, model.structure, model.data.knots, given
    curves = RegimePosterior(*arguments).curves() if regimes else answer_curves(*arguments)
    log_mean, deviation = at_points(curves, others, model.structure.noise)
    half = interval_factor(model.interval_factors, len(chosen)) * deviation
    off = log_mean - others.log_latency
    return {
        "error_pct": float(100 * np.abs(np.expm1(off)).mean()),
        "expected_pct": float(100 * math.sqrt(2 / math.pi) * half.mean() / SIGMAS_90),
        "coverage_pct": float(100 * (np.abs(off) <= half).mean()),
    }


def mean(scores: list[dict[str, float]]) -> dict[str, float]:
    """Of several seeds."""
    return {key: float(np.mean([one[key] for one in scores])) for key in scores[0]}


def random_points(points: Observations, knots: Knots, count: int, seed: int) -> np.ndarray:
    """Without repetition; those of a smaller count are among them."""
    return np.random.default_rng(seed).permutation(len(points))[:count]


def latin_hypercube(points: Observations, knots: Knots, count: int, seed: int) -> np.ndarray:
    """Each axis in `count` strata, one point in each; the nearest that was measured (McKay et al. 1979)."""
    rng = np.random.default_rng(seed)
    strata = np.stack([(rng.permutation(count) + rng.random(count)) / count for _ in range(3)])
    axes = knots.trained_batch, knots.trained_sm_pct, knots.trained_quota_pct
    b, s, q = (axis[(share * len(axis)).astype(int)] for axis, share in zip(axes, strata, strict=True))
    wanted = tuple(ResourceConfig(float(y), float(z), int(x)) for x, y, z in zip(b, s, q, strict=True))
    return nearest_points(points, knots, wanted)


def regular_grid(points: Observations, knots: Knots, count: int) -> np.ndarray:
    """A product of evenly spread values: the largest with at most `count` points and no long side."""
    longest = math.ceil(count ** (1 / 3)) + 1
    sides = range(1, min(4, longest) + 1), range(1, longest + 1), range(1, longest + 1)
    b, s, q = max(
        (shape for shape in itertools.product(*sides) if math.prod(shape) <= count),
        key=lambda shape: (math.prod(shape), -max(shape)),
    )
    wanted = itertools.product(
        spread(knots.trained_batch, b), spread(knots.trained_sm_pct, s), spread(knots.trained_quota_pct, q)
    )
    configs = tuple(ResourceConfig(float(y), float(z), int(x)) for x, y, z in wanted)
    return nearest_points(points, knots, configs)


def spread(axis: np.ndarray, count: int) -> np.ndarray:
    """`count` values of an axis, its ends among them; a single one is from the middle."""
    if count == 1:
        return axis[[len(axis) // 2]]
    return axis[np.linspace(0, len(axis) - 1, count).round().astype(int)]


def points_through(device: ReplayDevice, network: str, points: Observations, knots: Knots) -> Observations:
    """All points as the replay device would have measured them, in a session for each partition."""
    file, rule = NetworkFile(network, None), StopRule()
    log_latency = points.log_latency.copy()
    for sm in np.unique(points.sm):
        with device.open(file, float(knots.sm_pct[sm])) as session:
            for batch in np.unique(points.batch[points.sm == sm]):
                session.prepare(int(knots.batch[batch]))
                for index in np.flatnonzero((points.sm == sm) & (points.batch == batch)):
                    session.set_quota(float(100 * points.quota_share[index]))
                    log_latency[index] = math.log(measure(session, rule).latency_ms)
    return replace(points, log_latency=log_latency)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--protocols", type=Path, default=Path("out/protocols"))
    parser.add_argument("--out", type=Path, default=Path("out/adaptive"))
    parser.add_argument("--write", type=Path, help="document for the table; the plot goes beside it")
    parser.add_argument("--jobs", type=int, default=2, help="folds at once, each on one core")
    options = parser.parse_args()
    source = os.environ.get("RAPP_V100_DIR")
    if not source:
        sys.exit("set RAPP_V100_DIR to a clone of KontonGu/RaPP: the comparison needs its V100 profiles")
    options.out.mkdir(parents=True, exist_ok=True)
    table_file = options.out / "v100.parquet"
    if not table_file.exists():
        import_has_gpu(source, ROOT / "datasets" / "graphs").write(table_file)
    missing = [fold for fold in range(8) if not (options.out / f"fold-{fold}.json").exists()]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        jobs: list[Any] = [
            pool.submit(run_fold, fold, table_file, options.protocols, options.out) for fold in missing
        ]
        for done in as_completed(jobs):
            print(done.result(), flush=True)
    folds = {fold: json.loads((options.out / f"fold-{fold}.json").read_text()) for fold in range(8)}
    write_results(folds, COUNTS, options.write)


if __name__ == "__main__":
    main()
