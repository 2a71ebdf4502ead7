"""A profile table and the graphs of its networks, as the arrays that training works on."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rapp.errors import ConfigError, GraphError
from rapp.evaluation.source import table_hash
from rapp.graph import OperatorGraph
from rapp.graph.features import GraphFeatures, type_name
from rapp.inference.law import credit_ms
from rapp.inference.posterior import Observations
from rapp.knots import Knots
from rapp.profiles import ProfileTable
from rapp.types import QuotaKind


@dataclass(frozen=True)
class Campaign:
    """What all rows of a training have in common.

    Args:
        idle_ms: pause between runs. window_ms: window of the quota; None: not known.
    """

    device: str
    runtime: str
    precision: str
    quota_kinds: tuple[str, ...]
    idle_ms: float
    window_ms: float | None

    @property
    def credit(self) -> float:
        """Device time, ms, that a token bucket has saved when a run begins."""
        return credit_ms(self.idle_ms, self.window_ms if self.window_ms is not None else self.idle_ms)


@dataclass(frozen=True)
class TrainingSet:
    """Networks with their features and points on common knots.

    Args:
        names: N networks. features, points, graph_hashes: by name.
        operator_types: all types in the graphs.
        rows_hash: hash of the rows it was made from.
    """

    names: tuple[str, ...]
    knots: Knots
    features: Mapping[str, GraphFeatures]
    points: Mapping[str, Observations]
    graph_hashes: Mapping[str, str]
    operator_types: tuple[str, ...]
    campaign: Campaign
    rows_hash: str

    def only(self, names: Sequence[str]) -> TrainingSet:
        """The same for some of the networks."""
        return replace(self, names=tuple(names))

    @property
    def rows(self) -> int:
        """Number of points of its networks."""
        return sum(len(self.points[name]) for name in self.names)


def load_training_set(
    table: ProfileTable, graphs: str | Path, networks: Sequence[str] | None = None, knots: Knots | None = None
) -> TrainingSet:
    """The networks of `table`, each with the graph `graphs/<network>.onnx`.

    Args:
        networks: which to take; None: all.
        knots: axes to use; None: those of the table. Given when only a part of the rows is trained on.

    Raises:
        ConfigError: no rows, an unknown network, one without points that were measured, or rows of
            several devices, runtimes or precisions.
        GraphError: a network without a graph, with one that has no operator, or with another than was
            profiled.
    """
    rows = table.ok()
    known = rows.networks()
    for name in networks or ():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            raise ConfigError(
                f"the profiles hold no network {name}" + (f"; near: {', '.join(near)}" if near else "")
            )
    names = tuple(sorted(networks if networks is not None else known))
    if not names:
        raise ConfigError("the profiles hold no measured rows to train on")
    campaign = _campaign(rows)
    if knots is None:
        knots = Knots.around(rows.column("batch"), rows.column("sm_pct"), rows.column("quota_pct"))
    points = {name: observations(rows, name, knots, campaign.credit) for name in names}
    graphs_by_name = {name: _graph(Path(graphs), name, table_hash(rows, name)) for name in names}
    return TrainingSet(
        names,
        knots,
        {name: GraphFeatures.of(graph) for name, graph in graphs_by_name.items()},
        points,
        {name: graph.graph_hash for name, graph in graphs_by_name.items()},
        tuple(sorted({type_name(op) for graph in graphs_by_name.values() for op in graph.operators})),
        campaign,
        rows.rows_hash(),
    )


def observations(rows: ProfileTable, network: str, knots: Knots, credit: float) -> Observations:
    """The points of one network on the knots."""
    points = rows.points(network)
    batch, sm, quota = knots.nearest(points.batch, points.sm_pct, points.quota_pct)
    gpu_time = np.asarray(points.quota_kind) == QuotaKind.GPU_TIME.value
    share = np.asarray(points.quota_pct, dtype=np.float64) / 100
    return Observations(batch, sm, quota, share, np.log(points.latency_ms), gpu_time, credit)


def subset(points: Observations, mask: np.ndarray) -> Observations:
    """The points where `mask` (K,) is true (or that an index array names)."""
    return Observations(
        points.batch[mask], points.sm[mask], points.quota[mask], points.quota_share[mask],
        points.log_latency[mask], points.gpu_time[mask], points.credit,
    )  # fmt: skip


def _graph(folder: Path, name: str, profiled: str | None) -> OperatorGraph:
    path = folder / f"{name}.onnx"
    if not path.is_file():
        raise GraphError(
            path,
            f"there is no graph for the network {name}; export it to this file, or leave the network out",
        )
    graph = OperatorGraph.from_onnx(path)
    if not graph.operators:
        raise GraphError(path, f"has no operator that runs on a device: leave the network {name} out")
    if profiled is not None and profiled != graph.graph_hash:
        raise GraphError(
            path,
            f"its graph hash is {graph.graph_hash[:12]}, the profiled network's {profiled[:12]}: it is"
            " another network, or the table was made with another version of the hash: import it again with"
            " these graphs",
        )
    return graph


def _campaign(rows: ProfileTable) -> Campaign:
    single = {}
    for column in ("device", "runtime", "precision"):
        values = sorted(set(rows.column(column)))
        if len(values) != 1:
            raise ConfigError(
                f"the profiles mix several values of {column} ({', '.join(map(str, values[:4]))}):"
                " train on one of them at a time"
            )
        single[column] = str(values[0])
    return Campaign(
        single["device"],
        single["runtime"],
        single["precision"],
        tuple(sorted(set(rows.column("quota_kind")))),
        _common(rows, "idle_ms") or 0.0,
        _common(rows, "window_ms"),
    )


def _common(rows: ProfileTable, column: str) -> float | None:
    values = np.asarray(rows.column(column), dtype=np.float64)
    values = np.unique(values[np.isfinite(values)])
    if len(values) > 1:
        raise ConfigError(f"the profiles mix several values of {column}: train on one of them at a time")
    return float(values[0]) if len(values) else None
