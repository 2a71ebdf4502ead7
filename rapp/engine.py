"""What all networks of one artifact share: its two models, its priors, its inference."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rapp.artifact import Artifact
from rapp.coding import Decoder, Encoder
from rapp.errors import ConfigError
from rapp.graph import OperatorGraph
from rapp.graph.features import GraphFeatures
from rapp.inference.answer import answer_curves
from rapp.inference.design import best_candidate
from rapp.inference.law import credit_ms
from rapp.inference.observe import observations
from rapp.inference.posterior import Observations, Prior
from rapp.inference.tables import Tables
from rapp.recent import Recent
from rapp.types import FloatArray, MeasuredPoint, QuotaKind, ResourceConfig

MOST_REMEMBERED = 128
"""Networks whose answers from the graph are kept; one takes some 20 kB."""


class Engine:
    """A loaded artifact at work. Threads may share it; `Predictor` and `NetworkPredictor` are its faces.

    Tables that it gives have the noise of a measurement in their deviation.
    """

    def __init__(self, artifact: Artifact, threads: int) -> None:
        self.artifact, self.card, self.knots = artifact, artifact.card, artifact.knots
        self._encoder, self._decoder = Encoder(artifact, threads), Decoder(artifact, threads)
        self._priors = Recent[Prior](MOST_REMEMBERED)
        self._unmeasured = Recent[Tables](MOST_REMEMBERED)

    @property
    def default_quota_kind(self) -> QuotaKind:
        """`launch_gate` if the artifact learned it, else `gpu_time`, which follows from D and H."""
        return QuotaKind.LAUNCH_GATE if QuotaKind.LAUNCH_GATE in self.card.quota_kinds else QuotaKind.GPU_TIME

    def is_gpu_time(self, quota_kind: QuotaKind | None) -> bool:
        """Whether a question under this kind, None being the default, is one about `gpu_time`.

        Raises:
            ConfigError: the artifact cannot answer for the kind.
        """
        kind = self.default_quota_kind if quota_kind is None else quota_kind
        if kind not in tuple(QuotaKind):
            raise ConfigError(f"quota_kind is {kind!r}: it is one of {', '.join(QuotaKind)}")
        if kind == QuotaKind.LAUNCH_GATE and kind not in self.card.quota_kinds:
            raise ConfigError(
                f"{self.artifact.folder}: learned from gpu_time quotas, it cannot answer for launch_gate:"
                " ask for gpu_time, or train on profiles of a launch gate"
            )
        return kind == QuotaKind.GPU_TIME

    def credit(self, idle_ms: float | None) -> float:
        """Device time, ms, that a token bucket saves up in a pause, None being the card's.

        A window that is not known is taken to be no shorter than the pause.

        Raises:
            ConfigError: `idle_ms` is no pause.
        """
        idle = self.card.idle_ms if idle_ms is None else idle_ms
        if not (math.isfinite(idle) and idle >= 0):
            raise ConfigError(f"idle_ms is {idle:g}: it must be a number, 0 or more")
        return credit_ms(idle, math.inf if self.card.window_ms is None else self.card.window_ms)

    def stored(self, index: int) -> tuple[Tables, int]:
        """Tables of a network of the training by its place in the card, and how many points they rest on."""
        stored = self.artifact.networks
        tables = Tables(
            stored.log_latency[index],
            stored.log_device[index],
            stored.log_host[index],
            stored.deviation[index],
        )
        return tables.with_noise(self.card.noise), int(stored.points[index])

    def tables(self, graph: OperatorGraph, points: Sequence[MeasuredPoint] = ()) -> Tables:
        """From a graph and measured points to the tables of its network."""
        if not points:
            return self._unmeasured.get(graph.graph_hash, lambda: self._inferred(graph, ()))
        return self._inferred(graph, points)

    def best_candidate(
        self, graph: OperatorGraph, points: Sequence[MeasuredPoint], candidates: Sequence[ResourceConfig]
    ) -> int:
        """Index of the candidate to measure next (`rapp.inference.design`)."""
        return best_candidate(
            self._prior(graph),
            self.artifact.structure,
            self.knots,
            self._observed(graph, points),
            candidates,
            gpu_time=self.is_gpu_time(None),
        )

    def answer(
        self,
        tables: Tables,
        factor: float,
        batch: FloatArray,
        sm_pct: FloatArray,
        quota_pct: FloatArray,
        quota_kind: QuotaKind | None,
        idle_ms: float | None,
    ) -> tuple[dict[str, FloatArray], NDArray[np.bool_]]:
        """Outputs of the decoder at N configurations, and which lie outside the training's range: (N,) each.

        Raises:
            ConfigError: as `is_gpu_time` and `credit`.
        """
        gpu_time, credit = self.is_gpu_time(quota_kind), self.credit(idle_ms)
        answers = self._decoder.run(tables, batch, sm_pct, quota_pct, gpu_time, credit, factor)
        # The law of gpu_time holds at every quota, whichever training saw.
        quota = self.knots.trained_quota_pct[-1] if gpu_time else quota_pct
        return answers, self.knots.outside(batch, sm_pct, quota)

    def _prior(self, graph: OperatorGraph) -> Prior:
        def encode() -> Prior:
            return self._encoder.prior(GraphFeatures.of(graph), graph.name)

        return self._priors.get(graph.graph_hash, encode)

    def _inferred(self, graph: OperatorGraph, points: Sequence[MeasuredPoint]) -> Tables:
        observed = self._observed(graph, points)
        curves = answer_curves(self._prior(graph), self.artifact.structure, self.knots, observed)
        return Tables.of(curves).with_noise(self.card.noise)

    def _observed(self, graph: OperatorGraph, points: Sequence[MeasuredPoint]) -> Observations:
        """Measured points on the knots, moved there by what the graph alone says."""
        credit = self.credit(None)

        def predicted(
            batch: FloatArray, sm_pct: FloatArray, quota_pct: FloatArray, gpu_time: NDArray[np.bool_]
        ) -> FloatArray:
            tables = self.tables(graph)
            return self._decoder.run(tables, batch, sm_pct, quota_pct, gpu_time, credit, 1.0)["mean_ms"]

        return observations(points, self.knots, credit, predicted)
