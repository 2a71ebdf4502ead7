"""What an evaluation found, and its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapp.evaluation.points import ChosenPoint
from rapp.evaluation.scores import Scores, bootstrap_mean, score
from rapp.types import FloatArray


@dataclass(frozen=True, slots=True)
class NetworkResult:
    """One network of the table.

    Args:
        network: its name.
        graph_hash: of its operator graph.
        trained: the artifact was trained on its graph.
        chosen: the measured points that calibrated the predictor, not scored.
        scores: over its other rows; None: left out, `reason` says why.
        extrapolated: share of the scored rows that the predictor marks as extrapolated, %.
        reason: why it has no scores.
    """

    network: str
    graph_hash: str
    trained: bool
    chosen: tuple[ChosenPoint, ...] = ()
    scores: Scores | None = None
    extrapolated: float = 0.0
    reason: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ScoredRows:
    """Every scored row: arrays of shape (R,); times in ms; `network` and `quota_kind` are texts."""

    network: NDArray[np.object_]
    sm_pct: FloatArray
    quota_pct: FloatArray
    batch: NDArray[np.int64]
    quota_kind: NDArray[np.object_]
    measured_ms: FloatArray
    mean_ms: FloatArray
    low_ms: FloatArray
    high_ms: FloatArray
    extrapolated: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.measured_ms)

    @classmethod
    def concat(cls, parts: Sequence[ScoredRows]) -> ScoredRows:
        """The rows of all parts, in order."""
        names = cls.__slots__
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    @property
    def error(self) -> FloatArray:
        """(predicted - measured) / measured, in %, shape (R,)."""
        result: FloatArray = 100 * (self.mean_ms - self.measured_ms) / self.measured_ms
        return result


@dataclass(frozen=True)
class Evaluation:
    """Scores of an artifact on a profile table.

    Args:
        artifact: the folder evaluated.
        table: the profile table's file.
        device, runtime, precision: where both are from.
        quota_kinds: what the quotas of the scored rows limit.
        points: K, how many measured points of each network calibrated the predictor.
        seed: of the bootstrap.
        networks: each network of the table that was asked for, sorted by name.
        rows: all scored rows.
        other_rows: measured rows of the table on another device, runtime, precision or quota kind, left out.
    """

    artifact: str
    table: str
    device: str
    runtime: str
    precision: str
    quota_kinds: tuple[str, ...]
    points: int
    seed: int
    networks: tuple[NetworkResult, ...]
    rows: ScoredRows
    other_rows: int

    @cached_property
    def scored(self) -> tuple[tuple[NetworkResult, Scores], ...]:
        """The networks that have scores, with them."""
        return tuple((one, one.scores) for one in self.networks if one.scores is not None)

    @property
    def left_out(self) -> tuple[NetworkResult, ...]:
        """The networks that have none."""
        return tuple(one for one in self.networks if one.scores is None)

    @cached_property
    def pooled(self) -> Scores:
        """The scores of all rows together."""
        return score(self.rows.measured_ms, self.rows.mean_ms, self.rows.low_ms, self.rows.high_ms)

    @cached_property
    def mape(self) -> FloatArray:
        """Mean relative error of each scored network, %, shape (M,)."""
        return np.array([scores.mape for _, scores in self.scored])

    @cached_property
    def coverage(self) -> FloatArray:
        """Coverage of each scored network, %, shape (M,)."""
        return np.array([scores.coverage for _, scores in self.scored])

    @cached_property
    def mape_interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the mean of `mape`, over networks, %."""
        return bootstrap_mean(self.mape, self.seed)

    @cached_property
    def coverage_interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the mean of `coverage`, over networks, %."""
        return bootstrap_mean(self.coverage, self.seed)

    def to_dict(self) -> dict[str, Any]:
        """What `rapp evaluate --json` writes: percentages in %, `interval_score` as in `Scores`.

        `mape_rows`, `coverage_90` and `interval_score` weigh each row alike; `mape_mean`, `mape_median` and
        `mape_p95` each network. A network that was left out has `scored: false`, a `reason`, and null scores.
        """
        return {
            "mape_rows": self.pooled.mape,
            "mape_mean": float(np.mean(self.mape)),
            "mape_median": float(np.median(self.mape)),
            "mape_p95": float(np.percentile(self.mape, 95)),
            "coverage_90": self.pooled.coverage,
            "interval_score": self.pooled.interval_score,
            "points": self.points,
            "seed": self.seed,
            "per_network": {one.network: _network_dict(one) for one in self.networks},
        }


def _network_dict(one: NetworkResult) -> dict[str, Any]:
    names = ("mape", "median_ape", "p95_ape", "bias", "coverage", "width", "interval_score")
    scores = asdict(one.scores) if one.scores else {"n_rows": 0} | dict.fromkeys(names)
    return {
        "graph_hash": one.graph_hash,
        "trained": one.trained,
        "scored": one.scores is not None,
        "reason": one.reason,
        **scores,
        "extrapolated": one.extrapolated if one.scores else None,
        "measured": [
            {
                "sm_pct": chosen.taken.config.sm_pct,
                "quota_pct": chosen.taken.config.quota_pct,
                "batch": chosen.taken.config.batch,
                "quota_kind": chosen.taken.quota_kind.value,
                "latency_ms": chosen.taken.latency_ms,
                "instead_of": [chosen.wanted.sm_pct, chosen.wanted.quota_pct, chosen.wanted.batch]
                if chosen.replaced
                else None,
            }
            for chosen in one.chosen
        ],
    }
