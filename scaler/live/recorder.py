"""Decisions left with the backend, where it has a page that shows them (`rapp serve` has one)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from scaler.core.codec import decision_to_json
from scaler.errors import BackendError
from scaler.live.lease import holder_name
from scaler.live.tick import Happening, Mode, Tick

EVERY_S = 5.0
"""A decision that changes nothing is left this often: for its forecasts, and so that older changes stay."""

_UNREACHABLE = (Happening.BLIND, Happening.NOT_APPLIED)
"""A backend that is not there would only be waited for once more."""

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
        controller: name of the controller, that of its lease; None: one of this process. policy: that it has.
        every_s: a decision that changes nothing is left this often, s; a controller of which nothing came for
            three times as long is shown as silent.
    """

    def __init__(
        self,
        backend: Records,
        *,
        controller: str | None = None,
        policy: str = "",
        every_s: float = EVERY_S,
    ) -> None:
        self._backend, self._works, self._last_s = backend, True, -float("inf")
        name = holder_name() if controller is None else controller
        self._every_s = every_s
        self._about = {"controller": name, "policy": policy, "every_s": every_s}

    def on_tick(self, tick: Tick) -> None:
        """As `Reporter.on_tick`."""
        now_s = tick.seen.now_s
        if tick.mode == Mode.STANDBY:
            # The one that leads says what is done.
            return
        if not tick.decision.actions and now_s - self._last_s < self._every_s:
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
        if what not in _UNREACHABLE:
            self._record({"event": what.value, "detail": detail})

    def _record(self, content: dict[str, Any]) -> None:
        try:
            self._backend.record({**content, **self._about})
            self._works = True
        except BackendError as error:
            if self._works:
                _log.warning("the backend's page lacks decisions: %s", error)
            self._works = False
