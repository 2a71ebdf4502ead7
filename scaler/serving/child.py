"""How child processes find the modules of this one."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, with its path of modules, whoever changed that.

    Args:
        extra: variables to set on top.
    """
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = [entry for entry in dict.fromkeys([*given, *sys.path]) if entry]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), **(extra or {})}
