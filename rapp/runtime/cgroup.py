"""What the control group of this process allows: cores and memory, in versions 1 and 2 of cgroups.

A limit holds for a group and all below it, so the least on the way up to the mounted root counts. Files that
a container does not show are no limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_NO_LIMIT_BYTES = 1 << 60
"""Version 1 writes `no limit` as the largest number of whole pages, about 2^63."""


def core_limit(root: Path = Path("/")) -> float | None:
    """Cores that the group may use at a time, on average over a period; None: no limit.

    Args:
        root: what stands for `/`, for tests.
    """
    limits = []
    for folder in _folders("cpu", root):
        with suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            if quota != "max":
                limits.append(int(quota) / int(period))
        with suppress(OSError, ValueError):
            quota_us = int((folder / "cpu.cfs_quota_us").read_text())
            if quota_us > 0:
                limits.append(quota_us / int((folder / "cpu.cfs_period_us").read_text()))
    return min(limits, default=None)


def memory_limit_mib(root: Path = Path("/")) -> float | None:
    """Memory that the group may use, MiB; None: no limit.

    Args:
        root: what stands for `/`, for tests.
    """
    limits = []
    for folder in _folders("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):
                limits.append(int((folder / name).read_text()))
    least = min(limits, default=_NO_LIMIT_BYTES)
    return least / 2**20 if least < _NO_LIMIT_BYTES else None


def _folders(controller: str, root: Path) -> Iterator[Path]:
    """The folders of this process's groups that may limit `controller`, and those above them."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return
    paths = {}
    for line in groups:
        _, controllers, own = line.split(":", 2)
        # Version 2 has one hierarchy, with number 0 and no controllers named.
        for name in controllers.split(",") if controllers else ["cgroup2"]:
            paths[name] = PurePosixPath(own)
    for line in mounts:
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ")[:3]
        shown, mounted_at = left.split(" ")[3:5]
        key = controller if kind == "cgroup" and controller in options.split(",") else kind
        if key not in (controller, "cgroup2") or key not in paths:
            continue
        top = root / mounted_at.lstrip("/")
        path = paths[key]
        # A container may see its own group as the root of the mount.
        inside = path.relative_to(shown) if path.is_relative_to(shown) else PurePosixPath()
        for folder in (inside, *inside.parents):
            yield top / folder
