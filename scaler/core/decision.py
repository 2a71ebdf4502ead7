"""What the core wants changed at one tick, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from rapp.types import ResourceConfig


class Reason(StrEnum):
    """Why something changes; shown in logs, metrics and reports."""

    DEMAND_UP = "demand rises"
    DEMAND_DOWN = "demand falls"
    BACKLOG = "requests wait"
    LATE = "answers are late"
    MINIMUM = "below the minimum of instances"
    WAKE_UP = "first request after idling"
    IDLE = "no request for long"
    LOST = "an instance was lost"
    STUCK = "an instance did not start in time"
    REPACK = "the same load fits into less"
    OVERCOMMIT = "a row or GPU holds more than it has"
    STRANGER = "serves no function that is known"
    FOLLOW = "takes the place of an instance that goes"
    POLICY = "as the policy prescribes"


@dataclass(frozen=True, slots=True)
class Start:
    """Start an instance `id` of `function` in a row of a GPU; a row that is empty takes its SM partition."""

    id: str
    function: str
    gpu: str
    row: int
    config: ResourceConfig
    reason: Reason
    kind: Literal["start"] = "start"


@dataclass(frozen=True, slots=True)
class Resize:
    """Change quota and batch of an instance at once, without a restart; its SM partition stays."""

    id: str
    function: str
    quota_pct: float
    batch: int
    reason: Reason
    kind: Literal["resize"] = "resize"


@dataclass(frozen=True, slots=True)
class Drain:
    """Give an instance no new request, and stop it when it is empty."""

    id: str
    function: str
    reason: Reason
    kind: Literal["drain"] = "drain"


Action = Start | Resize | Drain


@dataclass(frozen=True, slots=True)
class FunctionOutlook:
    """What was believed of one function when it was decided.

    Args:
        rate_rps: arrivals a second over the last tick; None: not observed.
        forecast_rps: expected rate at the horizon. upper_rps: its upper quantile, which is planned for.
        capacity_rps: rate within the objective of what is ready and starting, after the decision.
        correction: factor on predicted execution times, learned from observed ones.
        unmet_rps: part of `upper_rps` for which there is no room; 0: none.
    """

    rate_rps: float | None
    forecast_rps: float
    upper_rps: float
    capacity_rps: float
    correction: float = 1.0
    unmet_rps: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """The changes of one tick.

    Args:
        actions: in the order in which they are to be made: room is made before it is used.
        outlook: by function, of those that were observed.
        dropped: changes that the policy wanted and that cannot be made, with why; they are not made.
    """

    actions: tuple[Action, ...] = ()
    outlook: Mapping[str, FunctionOutlook] = field(default_factory=dict)
    dropped: tuple[tuple[Action, str], ...] = ()
