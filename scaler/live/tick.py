"""What a controller did at one tick, for those who report it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from scaler.core.decision import Decision
from scaler.core.observation import Observation


class Mode(StrEnum):
    """What became of a decision."""

    ADVICE = "advice"
    """Nothing: this controller only says what it would do."""

    STANDBY = "standby"
    """Nothing: another controller leads."""

    APPLIED = "applied"
    """Its changes were ordered, besides those that were refused."""

    FAILED = "failed"
    """The backend could not be reached; it is decided anew from what is observed then."""


class Happening(StrEnum):
    """What may happen besides decisions."""

    STARTED = "started"
    STOPPED = "stopped"
    LEADS = "leads"
    LOST_LEASE = "lost the lease"
    NO_LEASE = "the lease cannot be asked for"
    SKIPPED = "ticks were skipped"
    BLIND = "nothing could be observed"
    UNSEEN = "functions that are not observed"
    NOT_APPLIED = "changes could not be made"
    STATE_DROPPED = "the state was dropped"
    STATE_NOT_KEPT = "the state could not be kept"


@dataclass(frozen=True, slots=True)
class Tick:
    """One decision and what became of it.

    Args:
        number: of the tick since the controller started.
        seen: what the core saw. decision: what it decided. mode: what became of it.
        refused: changes that the backend could not make: (id of the instance, why).
        took_s: from the observation's begin to the end, s.
    """

    number: int
    seen: Observation
    decision: Decision
    mode: Mode
    refused: tuple[tuple[str, str], ...]
    took_s: float


class Reporter(Protocol):
    """Is told what a controller does, as it does it."""

    def on_tick(self, tick: Tick) -> None:
        """A decision was taken."""

    def on_happening(self, what: Happening, detail: str, number: int = 1) -> None:
        """Something else happened. number: of what is counted, as of ticks that were skipped."""
