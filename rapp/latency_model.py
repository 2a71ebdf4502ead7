"""`LatencyModel`: what answers how long a network takes; the one thing that schedulers ask of a predictor.

`rapp.predictor.NetworkPredictor` is one; a profile table read back, or a closed form in a test, is another.
`rapp.testing.LatencyModelContract` is the test that each of them passes.
"""

from __future__ import annotations

from typing import Protocol

from rapp.types import LatencyEstimate, LatencyGrid, QuotaKind, ResourceConfig, ResourceGrid


class LatencyModel(Protocol):
    """The latency of one network over resource configurations.

    Answers are positive, `low_ms <= mean_ms <= high_ms`, never grow with the quota, and are the same each
    time. With `quota_kind=None` the model's own kind holds, with `idle_ms=None` its own pause.
    """

    @property
    def name(self) -> str:
        """Name of the network, for people."""

    def latency(
        self, config: ResourceConfig, *, quota_kind: QuotaKind | None = None, idle_ms: float | None = None
    ) -> LatencyEstimate:
        """The latency of one batch at `config`, ms, with `idle_ms` between two batches.

        Raises:
            RappError: a question that the model cannot answer, such as a batch that the network lacks.
        """

    def latency_grid(
        self,
        grid: ResourceGrid = ...,
        *,
        quota_kind: QuotaKind | None = None,
        idle_ms: float | None = None,
    ) -> LatencyGrid:
        """The same over a grid: arrays of shape (S, Q, B), ms.

        Raises:
            RappError: a question that the model cannot answer.
        """
