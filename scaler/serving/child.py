"""What child processes of the gateway have in common: how they find its modules, and when they end."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, with its path of modules, whoever changed that.

    Args:
        extra: variables to set on top.
    """
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = [entry for entry in dict.fromkeys([*given, *sys.path]) if entry]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), **(extra or {})}


def die_with(parent: int) -> None:
    """Let the kernel end this process when the thread that started it ends.

    Args:
        parent: process id of who started it; it may have ended before.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def give_way_for_memory() -> None:
    """Where memory runs out, better this process, which is started again, than the gateway."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
