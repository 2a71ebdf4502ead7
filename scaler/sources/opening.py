"""`open_source`: a latency source from what a user wrote on the command line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from rapp.errors import ConfigError
from rapp.types import QuotaKind
from scaler.sources.base import LatencySource

if TYPE_CHECKING:
    from rapp.predictor import Predictor

CONSTANT = "constant:"


def open_source(
    given: str | Path,
    *,
    calibration: str | Path | None = None,
    quota_kind: QuotaKind = QuotaKind.GPU_TIME,
    prior: str | Path | None = None,
) -> LatencySource:
    """Open a latency source.

    Args:
        given: an artifact's folder (or that of a training run), a profile table `*.parquet`, or
            `constant:DEVICE_MS` or `constant:DEVICE_MS,HOST_MS`.
        calibration: measured points for an artifact, a file of `rapp calibrate`.
        quota_kind: what the quotas that are planned with limit. `launch_gate` has to be asked for: such a
            quota does not limit device time, and results with it belong into a table of their own.
        prior: an artifact that helps a profile table to device times that launching hides.

    Raises:
        ConfigError: it is none of these, or an option does not go with it.
        QuotaSemanticsError: a source without quotas that gate launches is to be planned with by them.
        RappError: it cannot be read.
    """
    text = str(given)
    kind = "constant" if text.startswith(CONSTANT) else "table" if text.endswith(".parquet") else "artifact"
    if calibration is not None and kind != "artifact":
        raise ConfigError(f"{text}: a calibration goes with an artifact, not with a {kind}")
    if prior is not None and kind != "table":
        raise ConfigError(f"{text}: a prior artifact goes with a profile table, not with a {kind}")
    if kind == "constant":
        return _constant(text, quota_kind)
    if kind == "table":
        from scaler.sources.table import TableSource

        return TableSource.read(text, quota_kind, None if prior is None else _predictor(prior))
    from scaler.sources.predictor import PredictorSource

    return PredictorSource.load(_artifact(text), calibration, quota_kind)


def _constant(text: str, quota_kind: QuotaKind) -> LatencySource:
    from scaler.sources.constant import ConstantSource, refuse_gate

    parts = text.removeprefix(CONSTANT).split(",")
    try:
        times = [float(part) for part in parts]
    except ValueError:
        times = []
    if len(times) not in (1, 2) or not all(math.isfinite(time) and time > 0 for time in times):
        raise ConfigError(f"{text}: write constant:DEVICE_MS or constant:DEVICE_MS,HOST_MS, times above 0")
    refuse_gate(text, quota_kind)
    return ConstantSource(*times)


def _predictor(folder: str | Path) -> Predictor:
    from rapp.predictor import Predictor

    return Predictor.load(_artifact(folder))


def _artifact(folder: str | Path) -> Path:
    """The artifact of a training run is its folder `artifact`."""
    inside = Path(folder) / "artifact"
    return inside if inside.is_dir() else Path(folder)
