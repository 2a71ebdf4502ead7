"""Processes of this user by name and environment, and their end; from /proc, so Linux alone."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

_POLL_S = 0.02


def processes_with(name: str, variable: str, value: str) -> set[int]:
    """Running processes of programs, or scripts, `name...` that were started with `variable=value`.

    Processes that have ended, and wait for their parent to notice, have no environment and do not count.
    """
    entry = os.fsencode(f"{variable}={value}")
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            # Gone in the meantime, or another user's.
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")[:3]
                named = any(os.fsdecode(word).rpartition("/")[2].startswith(name) for word in words)
                if named and entry in (folder / "environ").read_bytes().split(b"\0"):
                    found.add(int(folder.name))
    return found


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
