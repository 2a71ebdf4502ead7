"""`evaluate`: an artifact's answers against a profile table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rapp.errors import ConfigError, GraphError
from rapp.evaluation.points import choose_points
from rapp.evaluation.result import Evaluation, NetworkResult, ScoredRows
from rapp.evaluation.scores import score
from rapp.evaluation.source import answerable, chosen_networks, graph_file, table_hash
from rapp.profiles.table import Points, ProfileTable
from rapp.types import FloatArray, QuotaKind, ResourceConfig

if TYPE_CHECKING:
    from rapp.predictor import NetworkPredictor, Predictor

Progress = Callable[[str, int, int], None]
"""Called before each network with its name, how many are done, and how many there are."""

TRAINED = "the artifact was trained on it"


def evaluate(
    predictor: Predictor,
    table: ProfileTable,
    graphs: str | Path,
    *,
    networks: Sequence[str] | None = None,
    points: int = 0,
    seed: int = 0,
    include_trained: bool = False,
    artifact: str | Path = "",
    progress: Progress | None = None,
) -> Evaluation:
    """Score an artifact on the measured rows of a table.

    A network counts as trained on if the artifact's card has its graph hash, under whatever name. Its rows
    are left out of every score unless `include_trained`, and marked either way.

    Args:
        predictor: the artifact.
        table: measured points; rows of another device, runtime, precision or quota kind are left out.
        graphs: folder with `<network>.onnx` for every network that is scored.
        networks: score these alone; all without.
        points: K; so many points of each network calibrate the predictor first (`choose_points`), and are
            not scored.
        seed: of the bootstrap intervals.
        include_trained: score the networks that the artifact was trained on too.
        artifact: where the predictor is from, for the report.
        progress: called before each network.

    Raises:
        ConfigError: an unknown network, a number out of range, or nothing is left to score.
        ProfileError: the table does not fit the artifact.
        GraphError: a graph file is missing, unreadable, or of another network than was profiled.
    """
    if points < 0:
        raise ConfigError(f"points is {points}: it must be 0 or more")
    if seed < 0:
        raise ConfigError(f"seed is {seed}: it must be 0 or more")
    wanted = predictor.calibration_points(points)
    rows = answerable(table, predictor.card)
    names = chosen_networks(rows, networks)
    hashes = {name: table_hash(rows, name) for name in names}
    trained_on = set(predictor.card.graph_hashes.values())
    left_out = {name for name in names if hashes[name] in trained_on and not include_trained}
    # All files first: a missing one is told before minutes of work.
    files = {name: graph_file(graphs, name) for name in names if name not in left_out}

    results: list[NetworkResult] = []
    parts: list[ScoredRows] = []
    for name in names:
        if name in left_out:
            results.append(NetworkResult(name, str(hashes[name]), trained=True, reason=TRAINED))
            continue
        if progress:
            progress(name, len(parts), len(files))
        network = predictor.network(files[name])
        _check_hash(files[name], network.graph_hash, hashes[name])
        result = NetworkResult(name, network.graph_hash, trained=network.graph_hash in trained_on)
        if result.trained and not include_trained:
            results.append(replace(result, reason=TRAINED))
            continue
        scored, part = _network(predictor, network, rows.filter(network=name), wanted, result)
        results.append(scored)
        if part is not None:
            parts.append(part)
    if not parts:
        raise ConfigError(_nothing_left(table.source, results, points))
    scored_rows = ScoredRows.concat(parts)
    return Evaluation(
        artifact=str(artifact),
        table=table.source,
        device=predictor.card.device,
        runtime=predictor.card.runtime,
        precision=predictor.card.precision,
        quota_kinds=tuple(sorted(set(scored_rows.quota_kind.tolist()))),
        points=points,
        seed=seed,
        networks=tuple(results),
        rows=scored_rows,
        other_rows=len(table.filter(status="ok", anchor=False, derived=False)) - len(rows),
    )


def _network(
    predictor: Predictor,
    network: NetworkPredictor,
    rows: ProfileTable,
    wanted: Sequence[ResourceConfig],
    result: NetworkResult,
) -> tuple[NetworkResult, ScoredRows | None]:
    measured = rows.points(result.network)
    kinds = set(measured.quota_kind.tolist())
    own = predictor.default_quota_kind
    kind = own if own.value in kinds else QuotaKind(min(kinds))
    chosen, seen = choose_points(measured, wanted, kind)
    result = replace(result, chosen=chosen)
    if chosen:
        network = network.calibrated([one.taken for one in chosen])
    if seen.all():
        return replace(result, reason=f"all its {len(measured)} rows are measured points"), None
    part = _predict(network, result.network, measured, rows.column("idle_ms"), ~seen)
    scores = score(part.measured_ms, part.mean_ms, part.low_ms, part.high_ms)
    extrapolated = 100 * float(np.mean(part.extrapolated))
    return replace(result, scores=scores, extrapolated=extrapolated), part


def _predict(
    network: NetworkPredictor, name: str, points: Points, idle_ms: FloatArray, mask: NDArray[np.bool_]
) -> ScoredRows:
    """The rows under `mask`, each asked for under its own quota kind and pause (unknown: the model's)."""
    settings = list(zip(points.quota_kind.tolist(), np.nan_to_num(idle_ms, nan=-1.0).tolist(), strict=True))
    parts = []
    for kind, idle in sorted(set(settings)):
        group = mask & np.array([setting == (kind, idle) for setting in settings])
        if not group.any():
            continue
        config = (points.sm_pct[group], points.quota_pct[group], points.batch[group])
        answer = network.latencies(*config, quota_kind=QuotaKind(kind), idle_ms=None if idle < 0 else idle)
        parts.append(
            ScoredRows(
                np.full(int(group.sum()), name, dtype=object),
                *config,
                points.quota_kind[group],
                points.latency_ms[group],
                answer.mean_ms,
                answer.low_ms,
                answer.high_ms,
                answer.extrapolated,
            )
        )
    return ScoredRows.concat(parts)


def _check_hash(file: Path, graph: str, profiled: str | None) -> None:
    if profiled is not None and graph != profiled:
        raise GraphError(
            file,
            f"its graph hash is {graph[:12]}, the profiled network's {profiled[:12]}: it is another network,"
            " or the table was made with another version of the hash: import it again with these graphs",
        )


def _nothing_left(table: str, results: Sequence[NetworkResult], points: int) -> str:
    trained = sum(one.trained for one in results)
    count = "its network" if len(results) == 1 else f"all {len(results)} networks"
    if trained == len(results):
        return (
            f"{table}: nothing to score: the artifact was trained on {count};"
            " give profiles of others, or --include-trained"
        )
    spent = f"; of the other {len(results) - trained}" if trained else f" of {count}"
    known = f" the artifact was trained on {trained}" if trained else ""
    return f"{table}: nothing to score:{known}{spent} every row is one of the {points} measured points"
