"""CPU cores as a resource: which this process may use, and a share of them as an SM partition.

A core is a logical CPU, as the kernel counts them. Cores that share hardware stand next to each other, so
that two partitions share a physical core at most where they meet.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rapp.errors import RappError
from rapp.runtime.cgroup import core_limit

SLACK_PCT = 0.05 + 1e-9
"""What a percentage may be off from a whole number of cores: half the last digit of 33.3 %, and rounding."""


def usable_cores(root: Path = Path("/")) -> tuple[int, ...]:
    """Numbers of the cores that this process may use, in the order in which partitions take them.

    The process's affinity says which; a limit of its control group says how many of them: 2.5 cores are 2.

    Args:
        root: what stands for `/`, for tests.

    Raises:
        RappError: this system has no affinity, or the control group allows less than one core.
    """
    if not hasattr(os, "sched_getaffinity"):
        raise RappError("cores cannot be assigned on this system: SM partitions of a CPU need Linux")
    allowed = sorted(os.sched_getaffinity(0), key=lambda core: _place(core, root))
    limit = core_limit(root)
    if limit is None or limit >= len(allowed):
        return tuple(allowed)
    if limit < 1:
        raise RappError(
            f"the control group of this process allows {limit:g} cores: a partition needs a whole one"
        )
    return tuple(allowed[: int(limit)])


def cores_of_share(sm_pct: float, n_cores: int) -> int | None:
    """How many of `n_cores` are `sm_pct` percent; None if no whole number is."""
    if not 0 < sm_pct <= 100:
        return None
    count = round(sm_pct / 100 * n_cores)
    return count if 1 <= count <= n_cores and abs(sm_pct - 100 * count / n_cores) <= SLACK_PCT else None


def why_no_share(sm_pct: float, n_cores: int) -> str | None:
    """Why `sm_pct` percent of `n_cores` are no partition, with the nearest that are; None if they are one."""
    if cores_of_share(sm_pct, n_cores) is not None:
        return None
    if not 0 < sm_pct <= 100:
        return f"{sm_pct:g} % is no share: it must lie in (0, 100]"
    exact = sm_pct / 100 * n_cores
    nearest = [count for count in (int(exact), int(exact) + 1) if 1 <= count <= n_cores]
    choices = " and ".join(f"{_percent(count, n_cores)} %" for count in nearest)
    whole = f"{n_cores} core{'s' * (n_cores > 1)}"
    return f"{sm_pct:g} % of {whole} is {exact:.3g}, not a whole number of cores: nearest {choices}"


def _percent(count: int, n_cores: int) -> str:
    return f"{100 * count / n_cores:.1f}".removesuffix(".0")


def pin(cores: Sequence[int]) -> None:
    """Keep this thread, and those that it will start, to these cores.

    Raises:
        RappError: the system does not let it.
    """
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        raise RappError(f"cores {list(cores)} cannot be had: {error.strerror}") from error
    if os.sched_getaffinity(0) != set(cores):
        raise RappError(f"cores {list(cores)} were asked for, but it got {sorted(os.sched_getaffinity(0))}")


def _place(core: int, root: Path) -> tuple[int, int, int, int]:
    """Package, die, physical core and number of a core; 0 where the kernel does not say."""
    folder = root / f"sys/devices/system/cpu/cpu{core}/topology"
    place = []
    for name in ("physical_package_id", "die_id", "core_id"):
        value = 0
        with suppress(OSError, ValueError):
            value = int((folder / name).read_text())
        place.append(value)
    return place[0], place[1], place[2], core
