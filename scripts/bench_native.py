"""How well and how cheaply the quota library for CUDA programs works, on a simulated device.

    python scripts/bench_native.py [--seconds 2] [--build native/build]

Builds `native/` (needs a C compiler) and runs its workload program under the library and the stub driver,
whose kernels only take time. So the figures say what the library does, and nothing of a physical GPU. The
machine should be idle: the load is printed.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.text import Text

from rapp.cli.tables import console, table
from rapp.errors import RappError

sys.path.insert(0, str(Path(__file__).parents[1] / "native"))

from quota_harness import (
    NATIVE,
    WINDOW_MS,
    WORKLOADS,
    Built,
    build,
    closed_loop,
    launch_ns,
    measure,
    quota,
    reactions_ms,
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each run, s (default 2)")
    parser.add_argument("--build", type=Path, default=NATIVE / "build", help="where to build")
    options = parser.parse_args()
    out = console()
    out.print(f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores before the start\n")
    built = build(options.build)
    show_shares(built, out, options.seconds)
    show_latencies(built, out, options.seconds)
    show_costs(built, out)
    show_reactions(built, out)


def show_shares(built: Built, out: Console, seconds: float) -> None:
    """Device time against the quota, saturated."""
    quotas_pct = range(10, 100, 10)
    shown = table("error, points", *map(str, quotas_pct), "max", "goal", "")
    for name, (arguments, _) in WORKLOADS.items():
        errors = []
        for quota_pct in quotas_pct:
            # The bucket begins full, and what it held is used up only slowly if the quota is large.
            skip_s = max(0.5, 1.5e-3 * WINDOW_MS * quota_pct / (100 - quota_pct))
            with quota(quota_pct) as block:
                done = measure(built, block, *arguments, "--seconds", str(seconds + skip_s))
            errors.append(100 * done.share(skip_s, seconds * 0.95) - quota_pct)
        cells = (f"{abs(error):.1f}" for error in errors)
        shown.add_row(name, *cells, *_judged(max(map(abs, errors)), 2.5, ".1f"))
    out.print(shown)


def show_latencies(built: Built, out: Console, seconds: float) -> None:
    """Latency of the closed loop against the law."""
    shown = table("closed loop", "quota, %", "idle, ms", "latency, ms", "law, ms", "error, %", "goal", "")
    for name in WORKLOADS:
        for quota_pct in (20, 50, 80):
            for idle_ms in (0.0, 5.0):
                mean_ms, law_ms = closed_loop(built, name, quota_pct, idle_ms, seconds)
                cells = f"{quota_pct}", f"{idle_ms:g}", f"{mean_ms:.2f}", f"{law_ms:.2f}"
                shown.add_row(name, *cells, *_judged(100 * abs(mean_ms / law_ms - 1), 5, ".1f"))
    out.print(shown)


def show_costs(built: Built, out: Console) -> None:
    """What the library adds to a launch."""
    alone = launch_ns(built, None)
    shown = table("host time of a launch, ns", "median", "added", "goal", "")
    shown.add_row("without the library", f"{alone:.0f}")
    for label, quota_pct, group_ms, goal in (
        ("gate off", 0, 1.0, 100),
        ("gate on, groups of 1 ms", 100, 1.0, 2000),
        ("gate on, groups of 8 launches", 100, 0.0008, 2000),
    ):
        found = launch_ns(built, quota_pct, group_ms)
        shown.add_row(label, f"{found:.0f}", *_judged(found - alone, goal, ".0f"))
    out.print(shown)


def show_reactions(built: Built, out: Console) -> None:
    """How soon a new quota holds."""
    shown = table("20 changes, 20 <-> 80 %, 8 ms graphs: kink, ms", "10 %", "90 %", "median", "goal", "")
    admitted_ms, done_ms = reactions_ms(built, 20, 80, 20)
    cells = (f"{value:.1f}" for value in np.percentile(admitted_ms, [10, 90]))
    shown.add_row("work let in", *cells, *_judged(float(np.median(admitted_ms)), 5, ".1f"))
    cells = (f"{value:.1f}" for value in np.percentile(done_ms, [10, 90]))
    shown.add_row("work done (4 ms if obeyed at once)", *cells, f"{np.median(done_ms):.1f}")
    out.print(shown)


def _judged(value: float, goal: float, form: str) -> tuple[str, str, Text]:
    met = value <= goal
    return (
        f"{value:{form}}",
        f"{goal:g}",
        Text("pass" if met else "miss", style="green" if met else "bold red"),
    )


if __name__ == "__main__":
    try:
        main()
    except RappError as error:
        sys.exit(f"bench_native: {error}")
