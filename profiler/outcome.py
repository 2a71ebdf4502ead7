"""`Outcome`: how a planned point ended; and what one failure tells about points not yet tried."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from profiler.device import Failure, MeasureError
from profiler.measure import Measurement
from profiler.plan import Point
from rapp.types import ResourceConfig


class Status(StrEnum):
    """The column `status` of the profile table."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


class Stage(StrEnum):
    """How far a point came: a session for its partition, the network at its batch, its quota."""

    OPEN = "open"
    PREPARE = "prepare"
    RUN = "run"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a point ended.

    Args:
        status: see `Status`.
        reason: for a person; None if ok.
        failure: the kind of failure behind the reason; None if ok, or if nothing was tried.
        stage: how far it came before it failed; None unless it was tried and failed.
        started_at: when it was begun, UTC; None: it never was.
        seconds: what it cost: wall time, on a device with virtual time the time of the batches it ran.
        sm_count: streaming multiprocessors, or cores, that the session got; None: unknown.
        peak_memory_mib: most that the session had used until then, MiB; None: unknown.
        device_uuid: which device measured it, where a campaign has several; None: the campaign's.
        outputs_compared: its batch gave the same outputs as at SM 100 %.
        measurement: None unless ok.
    """

    point: Point
    status: Status
    reason: str | None = None
    failure: Failure | None = None
    stage: Stage | None = None
    started_at: datetime | None = None
    seconds: float = 0.0
    sm_count: int | None = None
    peak_memory_mib: float | None = None
    device_uuid: str | None = None
    outputs_compared: bool = False
    measurement: Measurement | None = None

    @classmethod
    def failed(
        cls, point: Point, error: MeasureError, stage: Stage, started_at: datetime, seconds: float
    ) -> Outcome:
        """A point that was tried in vain."""
        return cls(point, Status.FAILED, str(error), error.failure, stage, started_at, seconds)

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON, without what is null; `from_json` is the inverse."""
        content = asdict(self)
        content["point"] = {"network": self.point.network, **asdict(self.point.config)}
        if self.point.anchor is not None:
            content["point"]["anchor"] = self.point.anchor
        if self.started_at is not None:
            content["started_at"] = self.started_at.isoformat()
        return {name: value for name, value in content.items() if value is not None}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Outcome:
        """The outcome that `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError, RappError: it is something else.
        """
        fields = dict(content)
        place = dict(fields["point"])
        network, anchor = place.pop("network"), place.pop("anchor", None)
        fields["point"] = Point(network, ResourceConfig(**place), anchor)
        fields["status"] = Status(fields["status"])
        for name, kind in (("failure", Failure), ("stage", Stage), ("started_at", datetime.fromisoformat)):
            if name in fields:
                fields[name] = kind(fields[name])
        if "measurement" in fields:
            fields["measurement"] = Measurement(**fields["measurement"])
        return cls(**fields)


def foregone(point: Point, ended: Iterable[Outcome]) -> Outcome | None:
    """How a point will end, as far as failures of the same network and partition tell; None: try it.

    Without a session nothing runs, and what cannot be prepared at a batch cannot be under any quota. What
    did not fit, or took too long, does so with every larger batch. A run that took too long takes no less
    under a lower quota; under a higher one a larger batch may still be in time.

    Args:
        ended: outcomes of grid points of the same network and SM partition. Anchors tell nothing: each
            has a session of its own.
    """
    config = point.config
    for other in ended:
        if other.stage is None or other.failure is None:
            continue
        same_batch, larger = config.batch == other.point.config.batch, config.batch > other.point.config.batch
        lower = config.quota_pct <= other.point.config.quota_pct
        if other.stage == Stage.OPEN or (other.stage == Stage.PREPARE and same_batch):
            return Outcome(
                point, Status.FAILED, other.reason, other.failure,
                started_at=other.started_at, sm_count=other.sm_count,
            )  # fmt: skip
        timed_out = other.failure == Failure.TIMEOUT
        if other.failure == Failure.OUT_OF_MEMORY and larger:
            return _skipped(point, other, f"batch {other.point.config.batch}")
        if timed_out and other.stage == Stage.PREPARE and larger:
            return _skipped(point, other, f"batch {other.point.config.batch}")
        if timed_out and other.stage == Stage.RUN and lower and (larger or same_batch):
            quota = f"{other.point.config.quota_pct:g} %"
            return _skipped(point, other, f"batch {other.point.config.batch} at quota {quota}")
    return None


def _skipped(point: Point, other: Outcome, which: str) -> Outcome:
    return Outcome(point, Status.SKIPPED, f"{which} ended with: {other.reason}", other.failure)
