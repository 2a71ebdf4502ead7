"""`NetworkPredictor`: one network's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rapp.calibrate import save_points
from rapp.engine import Engine
from rapp.errors import CalibrationError, ConfigError
from rapp.graph import OperatorGraph
from rapp.graph.features import type_name
from rapp.inference.tables import Tables
from rapp.types import (
    FloatArray,
    LatencyEstimate,
    LatencyGrid,
    MeasuredPoint,
    QuotaKind,
    ResourceConfig,
    ResourceGrid,
)


@dataclass(frozen=True, slots=True, eq=False)
class LatencyColumns:
    """`LatencyEstimate` of N configurations: arrays of shape (N,), ms; `extrapolated` is boolean."""

    mean_ms: FloatArray
    low_ms: FloatArray
    high_ms: FloatArray
    device_ms: FloatArray
    host_ms: FloatArray
    extrapolated: NDArray[np.bool_]


class NetworkPredictor:
    """One network's answers; `Predictor.network` makes it. Immutable; threads may share it.

    Attributes:
        name: for people.
        graph_hash: of its operator graph.
        known: the artifact was trained on it.
        points: what it was calibrated with.
        extrapolated_operators: operator types that training did not see; all answers are marked if any.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        graph_hash: str,
        graph: OperatorGraph | None,
        tables: Tables,
        *,
        rests_on: int = 0,
        known: bool = False,
        points: tuple[MeasuredPoint, ...] = (),
    ) -> None:
        """`rests_on`: how many measured points the tables were fitted to."""
        self.name, self.graph_hash, self.known, self.points = name, graph_hash, known, points
        self._engine, self._graph, self._tables = engine, graph, tables
        self._factor = engine.card.interval_factor(rests_on)
        types = frozenset() if graph is None else frozenset(type_name(op) for op in graph.operators)
        self.extrapolated_operators: frozenset[str] = types - frozenset(engine.card.operator_types)

    @classmethod
    def opened(cls, engine: Engine, graph: OperatorGraph) -> NetworkPredictor:
        """The network as the artifact knows it, without any measured point."""
        name, hashes = Path(graph.name).stem, [network.graph_hash for network in engine.card.networks]
        if graph.graph_hash in hashes:
            tables, count = engine.stored(hashes.index(graph.graph_hash))
            return cls(engine, name, graph.graph_hash, graph, tables, rests_on=count, known=True)
        return cls(engine, name, graph.graph_hash, graph, engine.tables(graph))

    @classmethod
    def named(cls, engine: Engine, index: int) -> NetworkPredictor:
        """The network of the training at this place of the card, without its graph."""
        (tables, count), entry = engine.stored(index), engine.card.networks[index]
        return cls(engine, entry.name, entry.graph_hash, None, tables, rests_on=count, known=True)

    @property
    def graph(self) -> OperatorGraph:
        """The operator graph.

        Raises:
            ConfigError: the network was named, not given.
        """
        if self._graph is None:
            raise ConfigError(f"{self.name} was named, not given: Predictor.network takes its ONNX file")
        return self._graph

    def latency(
        self, config: ResourceConfig, *, quota_kind: QuotaKind | None = None, idle_ms: float | None = None
    ) -> LatencyEstimate:
        """The latency of one batch at `config`, ms.

        Args:
            quota_kind: what the quota limits; None: `Predictor.default_quota_kind`.
            idle_ms: pause between two batches, which a quota of device time pays back; None: the card's.

        Raises:
            ConfigError: the artifact cannot answer for `quota_kind`, or `idle_ms` is no pause.
        """
        batch, sm, quota = (
            np.array([v], np.float64) for v in (config.batch, config.sm_pct, config.quota_pct)
        )
        answers, beyond = self._answer(batch, sm, quota, quota_kind, idle_ms)
        return LatencyEstimate(
            **{name: float(values[0]) for name, values in answers.items()}, extrapolated=bool(beyond[0])
        )

    def latency_grid(
        self,
        grid: ResourceGrid | None = None,
        *,
        quota_kind: QuotaKind | None = None,
        idle_ms: float | None = None,
    ) -> LatencyGrid:
        """The same over a grid (that of the public V100 profiles without one): arrays (S, Q, B), ms."""
        grid = ResourceGrid() if grid is None else grid
        axes = (np.asarray(axis, np.float64) for axis in (grid.sm_pct, grid.quota_pct, grid.batch))
        sm, quota, batch = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
        answers, beyond = self._answer(batch, sm, quota, quota_kind, idle_ms)
        shaped = {name: values.reshape(grid.shape) for name, values in answers.items()}
        return LatencyGrid(grid, **shaped, extrapolated=beyond.reshape(grid.shape))

    def latencies(
        self,
        sm_pct: ArrayLike,
        quota_pct: ArrayLike,
        batch: ArrayLike,
        *,
        quota_kind: QuotaKind | None = None,
        idle_ms: float | None = None,
    ) -> LatencyColumns:
        """The same at N configurations: arrays of shape (N,), or numbers that hold for all.

        Raises:
            ConfigError: lengths that differ or a value out of its range, and as `latency`.
        """
        axes = _columns(sm_pct=sm_pct, quota_pct=quota_pct, batch=batch)
        answers, beyond = self._answer(axes["batch"], axes["sm_pct"], axes["quota_pct"], quota_kind, idle_ms)
        return LatencyColumns(**answers, extrapolated=beyond)

    def calibrated(self, points: Sequence[MeasuredPoint]) -> NetworkPredictor:
        """Answers from the graph and these measured points, which replace those of an earlier calibration.

        The points are taken to be measured with the card's pause and window. One beside the knots is moved
        to the nearest (`rapp.inference.observe`). A network of the training starts from its graph as well,
        not from its stored curves: points are measured because the machine at hand is another. Its host
        curve stays among the prototypes, and the points decide what it counts. Without any point the
        answers are those of `Predictor.network`.

        Raises:
            ConfigError: a `launch_gate` point for an artifact that did not learn it.
            CalibrationError: the network was named, not given, so that there is no graph to start from.
        """
        graph = self._given()
        if not points:
            return NetworkPredictor.opened(self._engine, graph)
        for kind in {point.quota_kind for point in points}:
            self._engine.is_gpu_time(kind)
        return NetworkPredictor(
            self._engine,
            self.name,
            self.graph_hash,
            graph,
            self._engine.tables(graph, points),
            rests_on=len(points),
            known=self.known,
            points=tuple(points),
        )

    def next_point(self, candidates: Sequence[ResourceConfig] | ResourceGrid) -> ResourceConfig:
        """The candidate whose measurement would make the answers surest, given the points so far.

        It sees the graph and the points, and nothing that was not measured (`rapp.inference.design`).

        Raises:
            ConfigError: there is no candidate.
            CalibrationError: the network was named, not given.
        """
        choices = list(candidates)
        if not choices:
            raise ConfigError("there is no candidate to choose from")
        return choices[self._engine.best_candidate(self._given(), self.points, choices)]

    def save_calibration(self, path: str | Path) -> None:
        """Write the points to a calibration file, beside those of other networks that it may have.

        Raises:
            CalibrationError: there are no points, or the file is for another artifact.
            RappError: it cannot be written.
        """
        if not self.points:
            raise CalibrationError(f"{self.name} was not calibrated: there are no points to write")
        save_points(path, self._engine.card, self.graph_hash, self.name, self.points)

    def _given(self) -> OperatorGraph:
        if self._graph is None:
            raise CalibrationError(
                f"{self.name} was named, not given: calibrating starts from the graph,"
                " so give Predictor.network its ONNX file"
            )
        return self._graph

    def _answer(
        self,
        batch: FloatArray,
        sm_pct: FloatArray,
        quota_pct: FloatArray,
        quota_kind: QuotaKind | None,
        idle_ms: float | None,
    ) -> tuple[dict[str, FloatArray], NDArray[np.bool_]]:
        """Outputs of the decoder and whether they are extrapolated, each (N,)."""
        answers, beyond = self._engine.answer(
            self._tables, self._factor, batch, sm_pct, quota_pct, quota_kind, idle_ms
        )
        if self.extrapolated_operators:
            beyond[:] = True
        elif self._graph is not None and self._graph.only_batch is not None:
            beyond |= batch != self._graph.fixed_batch
        return answers, beyond


def _columns(**axes: ArrayLike) -> dict[str, FloatArray]:
    """Configurations as arrays (N,), each value in its range."""
    arrays = {name: np.atleast_1d(np.asarray(values, dtype=np.float64)) for name, values in axes.items()}
    try:
        columns = dict(zip(arrays, np.broadcast_arrays(*arrays.values()), strict=True))
    except ValueError as error:
        lengths = ", ".join(f"{len(values)} of {name}" for name, values in arrays.items())
        raise ConfigError(f"the columns differ in length: {lengths}") from error
    for name, values in columns.items():
        if values.ndim != 1:
            raise ConfigError(f"{name} has {values.ndim} dimensions: give one column")
        inside = (
            (values >= 1) & (values == np.floor(values))
            if name == "batch"
            else (values > 0) & (values <= 100)
        )
        if not (inside & np.isfinite(values)).all():
            range_ = "a whole number, 1 or more" if name == "batch" else "in (0, 100]"
            raise ConfigError(f"{name} is {values[np.argmin(inside)]:g}: it must be {range_}")
    return columns
