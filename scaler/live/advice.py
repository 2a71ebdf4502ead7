"""What a controller does as JSON lines: short ones for people and pipes, full ones to be looked at later.

    {"event":"decision","time":"2026-01-31T12:00:00.000+00:00","mode":"advice","actions":[...],...}
    {"event":"leads","time":"...","detail":"..."}

A full line holds the observation and the decision as `scaler.core.codec` writes them, so that what a
controller saw can be given to another core, or to the same one again.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from rapp.errors import RappError
from scaler.core.codec import decision_to_json, observation_to_json
from scaler.core.decision import Action
from scaler.live.tick import Happening, Tick

_log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


class Advice:
    """Writes a line for each decision and each happening.

    Args:
        stream: where to; each line is flushed.
        each_tick: also ticks at which nothing is to be changed; otherwise they say nothing.
        wall: time of day.
    """

    def __init__(
        self, stream: TextIO, *, each_tick: bool = True, wall: Callable[[], datetime] = _now
    ) -> None:
        self._stream, self._each_tick, self._wall = stream, each_tick, wall

    def on_tick(self, tick: Tick) -> None:
        """As `Reporter.on_tick`."""
        decision = tick.decision
        if not (self._each_tick or decision.actions or decision.dropped):
            return
        self._write({
            "event": "decision",
            "time": self._time(),
            "mode": tick.mode.value,
            "now_s": round(tick.seen.now_s, 3),
            "actions": [action_to_dict(action) for action in decision.actions],
            "refused": [{"id": id_, "why": why} for id_, why in tick.refused],
            "dropped": [action_to_dict(action) | {"why": why} for action, why in decision.dropped],
            "functions": {
                name: {key: _rounded(value) for key, value in asdict(outlook).items()}
                for name, outlook in decision.outlook.items()
            },
            "instances": len(tick.seen.instances),
            "took_ms": round(1e3 * tick.took_s, 1),
        })  # fmt: skip

    def on_happening(self, what: Happening, detail: str, number: int = 1) -> None:
        """As `Reporter.on_happening`."""
        line: dict[str, Any] = {"event": what.value, "time": self._time(), "detail": detail}
        if what == Happening.SKIPPED:
            line["ticks"] = number
        self._write(line)

    def _time(self) -> str:
        return self._wall().isoformat(timespec="milliseconds")

    def _write(self, line: dict[str, Any]) -> None:
        self._stream.write(json.dumps(line, allow_nan=False, separators=(",", ":")) + "\n")
        self._stream.flush()


class FullLog:
    """Appends everything that a controller saw and decided to a file, one JSON object a line.

    Args:
        path: the file. A line that a killed process left unfinished stays one broken line.

    Raises:
        RappError: it cannot be opened.
    """

    def __init__(self, path: str | Path) -> None:
        self._path, self._is_whole = Path(path), True
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            size = os.fstat(self._file).st_size
            if size and os.pread(self._file, 1, size - 1) != b"\n":
                os.write(self._file, b"\n")
        except OSError as error:
            raise RappError(f"{path}: cannot be written: {error.strerror or error}") from error

    def on_tick(self, tick: Tick) -> None:
        """As `Reporter.on_tick`."""
        self._write(
            '{"event":"decision",'
            f'"time":{json.dumps(_now().isoformat(timespec="milliseconds"))},'
            f'"mode":{json.dumps(tick.mode.value)},'
            f'"observation":{observation_to_json(tick.seen)},'
            f'"decision":{decision_to_json(tick.decision)},'
            f'"refused":{json.dumps(tick.refused)}}}'
        )

    def on_happening(self, what: Happening, detail: str, number: int = 1) -> None:
        """As `Reporter.on_happening`."""
        line = {
            "event": what.value,
            "time": _now().isoformat(timespec="milliseconds"),
            "detail": detail,
            "number": number,
        }
        self._write(json.dumps(line))

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _write(self, line: str) -> None:
        data = memoryview(f"{line}\n".encode())
        try:
            while data:
                data = data[os.write(self._file, data) :]
            self._is_whole = True
        except OSError as error:
            # Controlling is worth more than its log: go on, and say so once.
            if self._is_whole:
                _log.warning("%s: lines are missing: %s", self._path, error.strerror or error)
            self._is_whole = False


def action_to_dict(action: Action) -> dict[str, Any]:
    """A change as JSON, its reason in words."""
    return {key: _rounded(value) for key, value in asdict(action).items()} | {"reason": action.reason.value}


def _rounded(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value
