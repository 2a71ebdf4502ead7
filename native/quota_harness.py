"""Runs the workload program on the simulated device, with and without the quota library, and measures.

Used by `scripts/bench_native.py` and by the tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapp.errors import RappError
from rapp.runtime.quota import QuotaBlock, QuotaStatistics, default_folder
from rapp.runtime.quota_layout import QuotaMode

NATIVE = Path(__file__).parent
WINDOW_MS = 40.0

# Name -> arguments of the workload, and its device time, ms.
WORKLOADS: dict[str, tuple[tuple[str, ...], float]] = {
    "160 x 50 us": (("--kernels", "160", "--ns", "50000"), 8.0),
    "20 x 3 ms": (("--kernels", "20", "--ns", "3000000"), 60.0),
    "one 8 ms graph": (("--api", "graph", "--kernels", "160", "--ns", "50000"), 8.0),
}
GRAPH = "one 8 ms graph"


@dataclass(frozen=True)
class Built:
    """What was built: the library, the folder of the stub `libcuda.so.1`, and the program."""

    library: Path
    stub: Path
    workload: Path


@dataclass(frozen=True, eq=False)
class Measured:
    """One run of the program.

    Args:
        runs: (N, 4) of each run of it: thread, start, everything launched, end; CLOCK_MONOTONIC, ns.
        busy: (M, 2) start and end of each kernel and graph on the simulated device, likewise, as launched.
        statistics: of the control block afterwards; None: it ran without the library.
    """

    runs: NDArray[np.int64]
    busy: NDArray[np.int64]
    statistics: QuotaStatistics | None

    def share(self, skip_s: float, length_s: float) -> float:
        """Part of the time in which the device was busy, from `skip_s` after the first launch on."""
        begin = int(self.busy[:, 0].min()) + round(skip_s * 1e9)
        end = begin + round(length_s * 1e9)
        return busy_ns(self.busy, begin, end) / (end - begin)


def build(folder: Path, *options: str) -> Built:
    """Build library, stub and program into `folder`; `options` go to make.

    Raises:
        RappError: there is no make or C compiler, or the build fails; the message ends with the first error.
    """
    for tool in ("make", os.environ.get("CC", "cc")):
        if shutil.which(tool) is None:
            raise RappError(f"no {tool} on this machine: the quota library needs make and a C compiler")
    command = ["make", "-C", str(NATIVE), f"OUT={folder.resolve()}", *options, "quota", "stub"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        first = next((line for line in lines if "error" in line), lines[-1])
        raise RappError(f"make in {NATIVE} failed: {first}")
    return Built(folder / "librapp_quota.so", folder / "stub", folder / "workload")


def busy_ns(busy: NDArray[np.int64], begin_ns: int, end_ns: int) -> int:
    """Length of the union of the intervals `busy` (M, 2) within [begin_ns, end_ns), ns."""
    inside = np.clip(busy[np.argsort(busy[:, 0])], begin_ns, end_ns)
    reached = np.maximum.accumulate(inside[:, 1])
    from_ns = np.maximum(inside[:, 0], np.concatenate(([begin_ns], reached[:-1])))
    return int(np.clip(inside[:, 1] - from_ns, 0, None).sum())


def read_log(path: Path) -> NDArray[np.int64]:
    """Intervals that the stub wrote to RAPP_STUB_LOG (stub.h, `struct stub_log`): (M, 2), ns."""
    words = np.memmap(path, dtype=np.int64, mode="r")
    count = int(words[0])
    if count > 1 << 20:
        raise RappError(
            f"{path}: {count} intervals, of which only the last 2**20 are kept: run for less long"
        )
    return np.array(words[1 : 1 + 2 * count]).reshape(-1, 2)


def environment(built: Built, block: QuotaBlock | None, log: Path | None = None) -> dict[str, str]:
    """The variables of a process under the stub and, with a block, under the library."""
    added = {"LD_LIBRARY_PATH": str(built.stub)}
    if log is not None:
        added["RAPP_STUB_LOG"] = str(log)
    if block is not None:
        added |= {
            "LD_PRELOAD": str(built.library),
            "RAPP_QUOTA_BLOCK": str(block.path),
            "RAPP_QUOTA_REQUIRED": "1",
        }
    return {**os.environ, **added}


@contextmanager
def started(
    built: Built, block: QuotaBlock | None, *arguments: str, variables: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """The program, running, and the path of the device's log; it is ended when the block is left."""
    # Shared memory: the first write to a page of a file on disk can take milliseconds.
    with tempfile.TemporaryDirectory(dir=default_folder()) as folder:
        log = Path(folder) / "log"
        process = subprocess.Popen(
            [built.workload, *arguments],
            env={**environment(built, block, log), **(variables or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process, log
        finally:
            process.kill()
            process.communicate()


def result(process: subprocess.Popen[str], log: Path, block: QuotaBlock | None) -> Measured:
    """Wait for a started program.

    Raises:
        RappError: it failed.
    """
    out, errors = process.communicate()
    if process.returncode:
        raise RappError(f"the workload ended with status {process.returncode}: {errors.strip()}")
    runs = np.array([line.split() for line in out.splitlines()], dtype=np.int64).reshape(-1, 4)
    return Measured(runs, read_log(log), block.statistics if block else None)


def measure(
    built: Built, block: QuotaBlock | None, *arguments: str, variables: Mapping[str, str] | None = None
) -> Measured:
    """Run the program to its end; arguments as in native/stub/workload.c."""
    with started(built, block, *arguments, variables=variables) as (process, log):
        return result(process, log, block)


@contextmanager
def quota(quota_pct: float, group_ms: float = 1.0) -> Iterator[QuotaBlock]:
    """A control block that is removed afterwards."""
    with QuotaBlock.create(quota_pct=quota_pct, window_ms=WINDOW_MS, group_ms=group_ms) as block:
        try:
            yield block
        finally:
            block.unlink()


def launch_ns(built: Built, quota_pct: float | None, group_ms: float = 1.0, repeats: int = 20) -> float:
    """Host time of one launch of an empty kernel, ns: median of runs of 5,000.

    Args:
        quota_pct: None: without the library; 0: with it and the gate off.
    """
    arguments = ("--kernels", "5000", "--ns", "1", "--runs", str(repeats), "--seconds", "60")
    if quota_pct is None:
        runs = measure(built, None, *arguments).runs
    else:
        with quota(quota_pct or 100, group_ms) as block:
            if quota_pct == 0:
                block.mode = QuotaMode.OFF
            runs = measure(built, block, *arguments).runs
    return float(np.median((runs[:, 2] - runs[:, 1]) / 5000))


def closed_loop(
    built: Built, name: str, quota_pct: float, idle_ms: float, seconds: float
) -> tuple[float, float]:
    """Mean latency of runs one after another with `idle_ms` between them, and what the law says; ms."""
    arguments, device_ms = WORKLOADS[name]
    idle = ("--idle-us", str(round(1e3 * idle_ms)))
    with quota(quota_pct) as block:
        runs = measure(built, block, *arguments, *idle, "--seconds", str(seconds)).runs
    # The bucket begins full, and is in balance after it.
    late = runs[:, 1] >= runs[0, 1] + seconds * 0.3e9
    share = quota_pct / 100
    law_ms = max(device_ms, device_ms / share - min(idle_ms, WINDOW_MS))
    return float((runs[late, 3] - runs[late, 1]).mean() / 1e6), law_ms


def reactions_ms(built: Built, low_pct: float, high_pct: float, count: int) -> NDArray[np.float64]:
    """How long after each of `count` changes of the quota it is obeyed, with 8 ms graphs: (2, count), ms.

    A change shows as a kink in the work done over time, where two lines meet whose slopes are the quotas
    before and after it (their heights are medians over 0.35 s). First row: the work that was let in. A graph
    begins when the debt of those before it is repaid, so in steady state its begin lies on the line. Second
    row: the work that the device has done. That is a staircase below the line, by half of what a graph owes
    when it ends; so even a gate that obeys at once shows its kink half a graph late, here 4 ms.
    """
    arguments, device_ms = WORKLOADS[GRAPH]
    written, rng, every_s = [], np.random.default_rng(0), 0.45
    seconds = 0.8 + (every_s + 0.04) * (count + 1)
    with (
        quota(low_pct) as block,
        started(built, block, *arguments, "--seconds", str(seconds)) as (process, log),
    ):
        time.sleep(0.5)
        for change in range(count):
            time.sleep(every_s + 0.04 * rng.random())
            quota_pct = low_pct if change % 2 else high_pct
            written.append((time.monotonic_ns(), block.quota_pct / 100, quota_pct / 100))
            block.quota_pct = quota_pct
        time.sleep(every_s)
        busy = result(process, log, None).busy
    work_ns = np.arange(len(busy) + 1) * device_ms * 1e6
    grid = np.arange(busy[0, 0], busy[-1, 1], 200_000)
    done_ns = np.interp(grid, busy.ravel(), np.column_stack((work_ns[:-1], work_ns[1:])).ravel())
    return np.array(
        [
            [_kink_ms(busy[:, 0] - at_ns, work_ns[:-1], before, after) for at_ns, before, after in written],
            [_kink_ms(grid - at_ns, done_ns, before, after) for at_ns, before, after in written],
        ]
    )


def _kink_ms(since_ns: NDArray[Any], work_ns: NDArray[Any], before: float, after: float) -> float:
    old, new = (since_ns < 0) & (since_ns > -0.35e9), (since_ns >= 0) & (since_ns < 0.35e9)
    height = np.median(work_ns[old] - before * since_ns[old]), np.median(work_ns[new] - after * since_ns[new])
    return float(height[0] - height[1]) / (after - before) / 1e6
