"""Decisions left with the backend, where it has a page that shows them (`rapp serve` has one)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from scaler.core.codec import decision_to_json
from scaler.errors import BackendError
from scaler.live.tick import Happening, Tick

EVERY_S = 5.0
"""A decision that changes nothing is left this often: for its forecasts, and so that older changes stay."""

_log = logging.getLogger(__name__)


@runtime_checkable
class Records(Protocol):
    """A backend that keeps records for people."""

    def record(self, content: Mapping[str, Any]) -> None:
        """Keep a JSON object; `decision` in it, if there, is one.

        Raises:
            BackendError: it cannot be kept.
        """


class Recorder:
    """Leaves records. That one cannot be left is said once, and stops nothing.

    Args:
        backend: where.
    """

    def __init__(self, backend: Records) -> None:
        self._backend, self._works, self._last_s = backend, True, -float("inf")

    def on_tick(self, tick: Tick) -> None:
        """As `Reporter.on_tick`."""
        now_s = tick.seen.now_s
        if not tick.decision.actions and now_s - self._last_s < EVERY_S:
            return
        self._last_s = now_s
        self._record({
            "event": "decision",
            "mode": tick.mode.value,
            "now_s": now_s,
            "decision": json.loads(decision_to_json(tick.decision)),
            "refused": [{"id": id_, "why": why} for id_, why in tick.refused],
        })  # fmt: skip

    def on_happening(self, what: Happening, detail: str, number: int = 1) -> None:
        """As `Reporter.on_happening`."""
        if what in (Happening.LEADS, Happening.LOST_LEASE, Happening.SKIPPED):
            self._record({"event": what.value, "detail": detail})

    def _record(self, content: dict[str, Any]) -> None:
        try:
            self._backend.record(content)
            self._works = True
        except BackendError as error:
            if self._works:
                _log.warning("the backend's page lacks decisions: %s", error)
            self._works = False
