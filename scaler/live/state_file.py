"""The core's state in a file, so that a controller that was restarted goes on with what it had learned.

It is a help, not a need: without it the core goes on from what it observes. So whatever is wrong with the
file costs a warning, never the start.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from rapp.errors import RappError
from rapp.fileio import atomic_path
from scaler.core.state import CoreState

VERSION = 1
MOST_BYTES = 100_000_000
"""States have some kilobytes a function: a larger file is something else."""

_log = logging.getLogger(__name__)


class StateFile:
    """A state and whose it is.

    Args:
        path: the file, which appears whole or not at all.
        owner: what the state belongs to, that is the backend's name; one of another owner is not used.
    """

    def __init__(self, path: str | Path, owner: str) -> None:
        self.path, self.owner = Path(path), owner

    def read(self) -> dict[str, Any] | None:
        """The state; None, with a warning unless the file is absent, if there is none that can be used."""
        try:
            if self.path.stat().st_size > MOST_BYTES:
                raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
            content = json.loads(self.path.read_bytes())
            if not isinstance(content, dict) or content.get("version") != VERSION:
                raise ValueError(f"it is not of version {VERSION}")
            if content.get("owner") != self.owner:
                raise ValueError(f"it belongs to {content.get('owner')!r}, not to {self.owner!r}")
            state = content.get("state")
            if not isinstance(state, dict):
                raise ValueError("it holds no state")
            if content.get("sha256") != _sum(state):
                raise ValueError("its sum is wrong: it is damaged")
            return CoreState.of_json(state).to_json()
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RappError) as error:
            _log.warning("%s: not used, and written anew: %s", self.path, error)
            return None

    def write(self, state: dict[str, Any]) -> None:
        """Keep a state.

        Raises:
            RappError: it cannot be written.
        """
        content = {"version": VERSION, "owner": self.owner, "sha256": _sum(state), "state": state}
        with atomic_path(self.path) as temporary:
            temporary.write_text(json.dumps(content))


def _sum(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
