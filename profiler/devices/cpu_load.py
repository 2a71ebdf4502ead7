"""Did others take time of our cores while a block ran?

On one core the runs themselves tell: a run that computes all the time has as much CPU time as wall time, and
what is missing went to another process. On several cores threads also wait for each other, so the kernel's
count of busy ticks on these cores is compared with the CPU time of our process.

What others do while we pause harms nobody. Nor does it harm a batch whose result the quota holds afterwards:
undisturbed it would have been held for longer, and handed out at the same moment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from profiler.devices.host import busy_and_stolen_ticks

OTHER_PROCESS = "other process"
STOLEN = "time stolen by the hypervisor"

WORST_SHARE = 0.05
"""Of a block's time on its cores. One preemption of a few ms in a block of ten batches of 10 ms is under it,
and does not move the median; a process that shares a core is far above it."""

_TICK_MS = 1e3 / os.sysconf("SC_CLK_TCK")

_HELD_SHARE, _HELD_MS = 0.01, 0.1
"""A result is held by the quota if it waits longer than this: the gate itself takes some 10 us."""


@dataclass(frozen=True, slots=True)
class BlockLoad:
    """What was seen during a block.

    Args:
        n_cores: cores of the partition.
        elapsed_ms: from the block's beginning to its end.
        running_ms: sum of the runs' wall times, without the waiting for the quota.
        exposed_ms: the part of it in runs whose results the quota did not hold.
        exposed_cpu_ms: CPU time of our process in those, over all cores.
        cpu_ms: CPU time of our process in the whole block, over all cores.
        busy_ms: time that the cores worked for anyone, over all cores; None: unknown.
        stolen_ms: time that the hypervisor kept from them; None: unknown.
    """

    n_cores: int
    elapsed_ms: float
    running_ms: float
    exposed_ms: float
    exposed_cpu_ms: float
    cpu_ms: float
    busy_ms: float | None
    stolen_ms: float | None


def disturbance(load: BlockLoad) -> str | None:
    """Why the block cannot be trusted; None: nothing was seen."""
    exposed = load.exposed_ms / load.running_ms if load.running_ms > 0 else 0.0
    allowed_ms = WORST_SHARE * load.n_cores * load.running_ms
    # Each count of ticks can be off by one at either end, on each core.
    slack_ms = 2 * load.n_cores * _TICK_MS
    if load.stolen_ms is not None and exposed * (load.stolen_ms - slack_ms) > allowed_ms:
        return STOLEN
    if load.n_cores == 1:
        taken_ms = load.exposed_ms - load.exposed_cpu_ms
    elif load.busy_ms is not None:
        pauses_ms = load.elapsed_ms - load.running_ms
        taken_ms = exposed * (load.busy_ms - load.cpu_ms - load.n_cores * pauses_ms - slack_ms)
    else:
        return None
    return OTHER_PROCESS if taken_ms > allowed_ms else None


class LoadMeter:
    """Watches one block, from the moment it is made.

    Args:
        cores: of the partition.
    """

    def __init__(self, cores: Sequence[int]) -> None:
        self._cores = cores
        self._ticks = busy_and_stolen_ticks(cores)
        self._running_ms = self._exposed_ms = self._exposed_cpu_ms = 0.0
        self._cpu_ns, self._began_ns = time.process_time_ns(), time.perf_counter_ns()

    def add_run(self, running_ms: float, cpu_ms: float, wall_ms: float) -> None:
        """Count a run.

        Args:
            running_ms: its wall time without waiting for the quota.
            cpu_ms: CPU time of this process in it, over all cores.
            wall_ms: its wall time until the quota let its result go.
        """
        self._running_ms += running_ms
        if wall_ms - running_ms <= _HELD_SHARE * wall_ms + _HELD_MS:
            self._exposed_ms += running_ms
            self._exposed_cpu_ms += cpu_ms

    def end(self) -> BlockLoad:
        """What was seen since the beginning."""
        elapsed_ms = (time.perf_counter_ns() - self._began_ns) / 1e6
        cpu_ms = (time.process_time_ns() - self._cpu_ns) / 1e6
        busy_ms = stolen_ms = None
        ticks = busy_and_stolen_ticks(self._cores)
        if self._ticks is not None and ticks is not None:
            busy_ms, stolen_ms = (
                (now - before) * _TICK_MS for now, before in zip(ticks, self._ticks, strict=True)
            )
        return BlockLoad(
            n_cores=len(self._cores),
            elapsed_ms=elapsed_ms,
            running_ms=self._running_ms,
            exposed_ms=self._exposed_ms,
            exposed_cpu_ms=self._exposed_cpu_ms,
            cpu_ms=cpu_ms,
            busy_ms=busy_ms,
            stolen_ms=stolen_ms,
        )
