"""Calibration files: measured points of networks, for one artifact.

    {"format_version": 1, "rows_hash": ..., "feature_hash": ...,
     "networks": {graph_hash: {"name": ..., "points": [{sm_pct, quota_pct, batch, latency_ms, quota_kind}]}}}

The file holds what was measured, not what was concluded from it: it can be read and corrected by a person,
and every load concludes anew. It belongs to the artifact whose training rows and features it names, since
the points were chosen for that artifact and the pause and window of its card are taken to hold for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rapp.card import Card, Sha256
from rapp.errors import CalibrationError
from rapp.fileio import atomic_path
from rapp.types import MeasuredPoint, QuotaKind, ResourceConfig

FORMAT_VERSION: Literal[1] = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Point(_Part):
    """One `rapp.types.MeasuredPoint`: shares in %, the mean latency of one batch in ms."""

    sm_pct: Annotated[float, Field(gt=0, le=100)]
    quota_pct: Annotated[float, Field(gt=0, le=100)]
    batch: Annotated[int, Field(ge=1)]
    latency_ms: Annotated[float, Field(gt=0)]
    quota_kind: QuotaKind

    @classmethod
    def of(cls, point: MeasuredPoint) -> Point:
        """The entry for a measured point."""
        config = point.config
        return cls(
            sm_pct=config.sm_pct,
            quota_pct=config.quota_pct,
            batch=config.batch,
            latency_ms=point.latency_ms,
            quota_kind=point.quota_kind,
        )

    def measured(self) -> MeasuredPoint:
        """The measured point of the entry."""
        config = ResourceConfig(self.sm_pct, self.quota_pct, self.batch)
        return MeasuredPoint(config, self.latency_ms, self.quota_kind)


class NetworkPoints(_Part):
    """What was measured of one network."""

    name: str
    points: list[Point]


class Calibration(_Part):
    """A calibration file.

    Args:
        rows_hash, feature_hash: of the artifact's card.
        networks: by graph hash.
    """

    format_version: Literal[1]
    rows_hash: str
    feature_hash: Sha256
    networks: dict[Sha256, NetworkPoints] = {}


def read_points(path: str | Path, card: Card, graph_hash: str, name: str) -> tuple[MeasuredPoint, ...]:
    """The points of one network in a calibration file.

    Args:
        card: of the artifact that is to be calibrated.
        graph_hash, name: of the network; the name is for the message alone.

    Raises:
        CalibrationError: no such file or no calibration, made for another artifact, or without this network.
    """
    calibration = read_calibration(path, card)
    if graph_hash not in calibration.networks:
        there = ", ".join(sorted(entry.name for entry in calibration.networks.values())) or "no network"
        raise CalibrationError(
            f"{path}: has no points of {name}, it has those of {there}: calibrate {name} too"
        )
    return tuple(entry.measured() for entry in calibration.networks[graph_hash].points)


def save_points(
    path: str | Path, card: Card, graph_hash: str, name: str, points: Sequence[MeasuredPoint]
) -> None:
    """Write the points of one network, beside those of others that the file may have.

    What the file has of this network is replaced. An empty file counts as none. Of two processes that save
    at the same moment one may undo what the other wrote.

    Raises:
        CalibrationError: the file is no calibration, or one made for another artifact.
        RappError: it cannot be written.
    """
    file = Path(path)
    there = file.is_file() and file.stat().st_size > 0
    others = read_calibration(file, card).networks if there else {}
    entry = NetworkPoints(name=name, points=[Point.of(point) for point in points])
    calibration = Calibration(
        format_version=FORMAT_VERSION,
        rows_hash=card.rows_hash,
        feature_hash=card.feature_schema.hash,
        networks={**others, graph_hash: entry},
    )
    with atomic_path(file) as temporary:
        temporary.write_text(calibration.model_dump_json(indent=2) + "\n", "utf-8")


def read_calibration(path: str | Path, card: Card) -> Calibration:
    """Read a calibration file, and see that it was made for the artifact with this card.

    Raises:
        CalibrationError: no such file or no calibration, or made for another artifact.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        calibration = Calibration.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise CalibrationError(
            f"{path}: is no calibration of version {FORMAT_VERSION}: {where}{first['msg']}"
        ) from error
    made_for = calibration.rows_hash, calibration.feature_hash
    if made_for != (card.rows_hash, card.feature_schema.hash):
        raise CalibrationError(
            f"{path}: was made for another artifact, trained on rows {calibration.rows_hash[:12]},"
            f" not {card.rows_hash[:12]}: calibrate again"
            if calibration.rows_hash != card.rows_hash
            else f"{path}: was made with other features of a graph than this artifact's: calibrate again"
        )
    return calibration
