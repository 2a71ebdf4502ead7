"""Which point of a network to measure next, and when enough is known: the rule of `rapp profile --adaptive`.

The first points are a fixed start, which tells device and host apart. Each further one is that after which
the predictor expects to be surest of all configurations (`rapp.inference.design`), given the points so far
and nothing that was not measured. The rule stops when the error that the predictor expects of itself is low:

    E|error| = sqrt(2 / pi) * sigma        sigma: of a normal error of log latency, from the 90 % interval

How that compares with other choices, and the expected error with the real one: docs/profiling.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from profiler.device import NetworkFile
from profiler.growing import PointRule
from rapp.errors import ConfigError
from rapp.network_predictor import NetworkPredictor
from rapp.types import MeasuredPoint, QuotaKind, ResourceConfig

START = ((0.0, 70.0, 100.0), (1.0, 5.0, 100.0), (0.0, 100.0, 20.0))
"""The first points: batch as a share of the largest, SM partition %, quota %. The host without a quota, the
device at its slowest, and the host under a quota: the first three of `rapp.training.points.PLACES`."""

SIGMAS_90 = 1.645
"""Half of a normal distribution's 90 % interval, in standard deviations."""


class PredictorRule:
    """Asks a predictor. It keeps nothing between two questions, so that a resumed campaign goes on alike.

    Args:
        network: what is known of the network without points.
        quota_kind: what the quota of the points limits.
        target_pct: mean expected error over the candidates, %, at which enough is known.
        most_points: points after which it ends in any case.
    """

    def __init__(
        self, network: NetworkPredictor, quota_kind: QuotaKind, target_pct: float, most_points: int
    ) -> None:
        self._network, self._quota_kind = network, quota_kind
        self._target_pct, self._most_points = target_pct, most_points

    def next_point(
        self, measured: Sequence[MeasuredPoint], candidates: Sequence[ResourceConfig]
    ) -> ResourceConfig | None:
        """One of the candidates; None: enough is known."""
        if len(measured) >= self._most_points or not candidates:
            return None
        if len(measured) < len(START):
            return start_point(len(measured), candidates)
        known = self._network.calibrated(measured)
        if predicted_error_pct(known, candidates, self._quota_kind) <= self._target_pct:
            return None
        return known.next_point(candidates)


def start_point(place: int, candidates: Sequence[ResourceConfig]) -> ResourceConfig:
    """The candidate nearest to a place of `START`, by the logarithms of batch, partition and quota."""
    share, sm_pct, quota_pct = START[place]
    most = max(config.batch for config in candidates)
    wanted = max(share * most, 1.0), sm_pct, quota_pct

    def distance(config: ResourceConfig) -> float:
        own = config.batch, config.sm_pct, config.quota_pct
        return sum(abs(math.log(a / b)) for a, b in zip(own, wanted, strict=True))

    return min(candidates, key=distance)


def predicted_error_pct(
    network: NetworkPredictor, configs: Sequence[ResourceConfig], quota_kind: QuotaKind
) -> float:
    """Mean relative error, %, that the predictor expects of its answers at `configs`."""
    answer = network.latencies(
        sm_pct=[config.sm_pct for config in configs],
        quota_pct=[config.quota_pct for config in configs],
        batch=[config.batch for config in configs],
        quota_kind=quota_kind,
    )
    sigma = np.log(answer.high_ms / answer.low_ms) / (2 * SIGMAS_90)
    return float(100 * math.sqrt(2 / math.pi) * sigma.mean())


def predictor_rule(
    artifact: str | Path,
    network: NetworkFile,
    quota_kind: QuotaKind,
    idle_ms: float,
    target_pct: float,
    most_points: int,
) -> PointRule:
    """The rule for one network.

    Raises:
        ConfigError: the network has no ONNX file, or the predictor cannot learn from such points.
        RappError: the artifact or the network cannot be read.
    """
    from rapp.predictor import Predictor

    if network.path is None:
        raise ConfigError(
            f"--adaptive needs the operator graph of {network.name}: give its ONNX file instead of its name"
        )
    predictor = Predictor.load(artifact)
    kinds = predictor.card.quota_kinds
    if quota_kind not in kinds:
        raise ConfigError(
            f"--predictor {artifact}: learned from {' and '.join(kinds)} quotas, this device has"
            f" {quota_kind}: give a predictor of such a device"
        )
    if not math.isclose(predictor.card.idle_ms, idle_ms):
        raise ConfigError(
            f"--predictor {artifact}: learned with a pause of {predictor.card.idle_ms:g} ms between batches,"
            f" here it is {idle_ms:g}: give --idle-ms {predictor.card.idle_ms:g}"
        )
    return PredictorRule(predictor.network(network.path), quota_kind, target_pct, most_points)
