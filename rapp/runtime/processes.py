"""Processes of this user by name and environment, and their end; from /proc, so Linux alone."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

_POLL_S = 0.02


def processes_named(name: str) -> set[int]:
    """Running processes, of whomever, of programs or scripts `name...`."""
    return {int(folder.name) for folder in _folders() if _is_named(folder, name)}


def processes_with(name: str, variable: str, value: str) -> set[int]:
    """As `processes_named`, those alone that were started with `variable=value`, and may be looked at.

    Processes that have ended, and wait for their parent to notice, have no environment and do not count.
    """
    entry = os.fsencode(f"{variable}={value}")
    found = set()
    for folder in _folders():
        # Gone in the meantime, or another user's.
        with contextlib.suppress(OSError):
            if _is_named(folder, name) and entry in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
    return found


def _folders() -> list[Path]:
    return list(Path("/proc").glob("[0-9]*"))  # none where there is no /proc


def _is_named(folder: Path, name: str) -> bool:
    """Whether program or script of a process begins so; False for one that is gone."""
    with contextlib.suppress(OSError):
        # A script follows its interpreter, and that one's options.
        words = (folder / "cmdline").read_bytes().split(b"\0")[:3]
        return any(os.fsdecode(word).rpartition("/")[2].startswith(name) for word in words)
    return False


def end_processes(running: Callable[[], set[int]], grace_s: float) -> set[int]:
    """Send SIGTERM, after `grace_s` SIGKILL, to those that `running` names; those that survive both."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in running():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        deadline_s = time.monotonic() + grace_s
        while running():
            if time.monotonic() > deadline_s:
                break
            time.sleep(_POLL_S)
        else:
            return set()
    return running()
