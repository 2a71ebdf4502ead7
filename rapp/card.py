"""The card of a predictor artifact: what it was trained on, how to read it, what it can do."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from rapp.types import QuotaKind, ResourceConfig

FORMAT_VERSION: Literal[1] = 1

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    # A key that this version does not know is a mistake, not a hint: the format has a version.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Tensor(_Part):
    """One input or output of an ONNX file: `axes` in order, `[]` for a scalar."""

    name: str
    dtype: Literal["float32", "int64"]
    axes: list[str]
    unit: str
    meaning: str


class ModelTensors(_Part):
    """What an ONNX file takes and gives."""

    inputs: list[Tensor]
    outputs: list[Tensor]


class FeatureSchema(_Part):
    """The features that the encoder was trained on: `rapp.graph.features`."""

    version: int
    hash: Sha256


class TrainedNetwork(_Part):
    """A network of the training."""

    name: Annotated[str, Field(min_length=1)]
    graph_hash: Sha256


class Configuration(_Part):
    """Where to measure: SM partition and quota in %, in (0, 100]."""

    sm_pct: Annotated[float, Field(gt=0, le=100)]
    quota_pct: Annotated[float, Field(gt=0, le=100)]
    batch: Annotated[int, Field(ge=1)]


class Card(_Part):
    """`card.json`.

    Args:
        format_version: of the artifact's format.
        rapp_version: which wrote it.
        created: when.
        device, runtime, precision: of the profiles that it was trained on.
        quota_kinds: what the quota limited in them.
        idle_ms: pause between two batches in them, ms; answers assume it unless told otherwise.
        window_ms: window of the quota, ms; null: not known.
        feature_schema: what its encoder reads.
        knots: `rapp.knots.Knots.to_dict()`: the axes of its tables, and what of them training saw.
        networks: the networks of the training, in the order of `networks.npz`.
        operator_types: all types in their graphs.
        rows_hash: of the profile rows that it was trained on.
        rows: how many.
        seed: of the training.
        calibration_points: where to measure a new network; the first K of the list are a good choice of K.
        interval_factors: for K measured points, half the width of the 90 % interval in standard deviations.
        noise: standard deviation of one measured log latency.
        figures: figures of the evaluation protocols.
        limits: what it does not answer for, one sentence each.
        license: of the artifact, SPDX.
        inputs_outputs: of each ONNX file.
        files: SHA-256 of each other file of the artifact.
    """

    format_version: Literal[1] = FORMAT_VERSION
    rapp_version: str
    created: datetime
    device: str
    runtime: str
    precision: str
    quota_kinds: Annotated[list[QuotaKind], Field(min_length=1)]
    idle_ms: Annotated[float, Field(ge=0)]
    window_ms: Annotated[float, Field(gt=0)] | None
    feature_schema: FeatureSchema
    knots: dict[str, list[float]]
    networks: list[TrainedNetwork]
    operator_types: list[str]
    rows_hash: str
    rows: Annotated[int, Field(ge=0)]
    seed: int
    calibration_points: list[Configuration]
    interval_factors: Annotated[dict[int, float], Field(min_length=1)]
    noise: Annotated[float, Field(gt=0)]
    figures: dict[str, Any] = {}
    limits: list[str] = []
    license: str
    inputs_outputs: dict[str, ModelTensors] = Field(default_factory=lambda: dict(INPUTS_OUTPUTS))
    files: dict[str, Sha256] = {}

    @field_validator("networks")
    @classmethod
    def _distinct(cls, networks: list[TrainedNetwork]) -> list[TrainedNetwork]:
        if len({network.name for network in networks}) < len(networks):
            raise ValueError("two networks have the same name")
        return networks

    @field_validator("interval_factors")
    @classmethod
    def _positive(cls, factors: dict[int, float]) -> dict[int, float]:
        if any(points < 0 or factor <= 0 for points, factor in factors.items()):
            raise ValueError("numbers of points must be 0 or more, factors positive")
        return factors

    @property
    def graph_hashes(self) -> dict[str, str]:
        """Name of each network of the training to its graph hash."""
        return {network.name: network.graph_hash for network in self.networks}

    @property
    def points(self) -> tuple[ResourceConfig, ...]:
        """`calibration_points` as configurations."""
        return tuple(ResourceConfig(p.sm_pct, p.quota_pct, p.batch) for p in self.calibration_points)

    def interval_factor(self, points: int) -> float:
        """Half the width of the 90 % interval, in standard deviations, of a network with so many points.

        Linear in log(1 + K) between the listed numbers of points, constant beyond them.
        """
        listed = sorted(self.interval_factors)
        places = [math.log1p(k) for k in listed]
        return float(np.interp(math.log1p(points), places, [self.interval_factors[k] for k in listed]))


def _tensor(
    name: str, axes: str, unit: str, meaning: str, dtype: Literal["float32", "int64"] = "float32"
) -> Tensor:
    return Tensor(name=name, dtype=dtype, axes=axes.split(), unit=unit, meaning=meaning)


INPUTS_OUTPUTS: dict[str, ModelTensors] = {
    "encoder.onnx": ModelTensors(
        inputs=[
            _tensor("operators", "operator feature", "see rapp.graph.features", "one-hot type, then numbers"),
            _tensor(
                "costs", "operator cost", "operations, bytes, bytes, elements",
                "operations, bytes read and written, output elements of one sample; weight bytes",
            ),
            _tensor("edges", "end edge", "index", "row 0 the source operator, row 1 the target", "int64"),
        ],
        outputs=[
            _tensor("log_device", "batch_knot sm_knot", "log ms", "device time D"),
            _tensor("log_host", "quota_knot", "log ms", "host time H under each quota of a launch gate"),
        ],
    ),
    "decoder.onnx": ModelTensors(
        inputs=[
            _tensor("log_latency", "batch_knot sm_knot quota_knot", "log ms", "latency under a launch gate"),
            _tensor("log_device", "batch_knot sm_knot", "log ms", "device time D"),
            _tensor("log_host", "batch_knot sm_knot", "log ms", "host time H without a quota"),
            _tensor(
                "deviation", "batch_knot sm_knot quota_knot", "log ms",
                "standard deviation of log_latency, the noise of a measurement included",
            ),
            _tensor("batch", "configuration", "requests", "requests executed together, >= 1"),
            _tensor("sm_pct", "configuration", "%", "SM partition, in (0, 100]"),
            _tensor("quota_pct", "configuration", "%", "time quota, in (0, 100]"),
            _tensor("gpu_time", "configuration", "1", "1: the quota limits device time; 0: launches"),
            _tensor("credit_ms", "", "ms", "device time saved up when a batch begins: min(idle, window)"),
            _tensor("interval_factor", "", "1", "half the interval's width in standard deviations"),
        ],
        outputs=[
            _tensor("mean_ms", "configuration", "ms", "mean latency of one batch"),
            _tensor("low_ms", "configuration", "ms", "lower end of the 90 % interval of that mean"),
            _tensor("high_ms", "configuration", "ms", "upper end of the 90 % interval of that mean"),
            _tensor("device_ms", "configuration", "ms", "device time D"),
            _tensor("host_ms", "configuration", "ms", "host time H without a quota"),
        ],
    ),
}  # fmt: skip
"""Description of the two ONNX files; knots are those of `Card.knots`."""
