"""How fast an artifact answers, on one thread.

    python scripts/bench_predictor.py [--artifact models/v100] [--json out/bench.json] [--write README.md]

Wall time. The machine should be idle: the load is printed, and beside each median the fastest run. Questions
are timed after a warm-up. Loading is timed in fresh processes, whose imports count and whose interpreter
start is told apart. Networks: resnet50 of the training, by name, and light_resnet50.onnx of the `onnx`
package, which is new to the artifact.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from rich.text import Text

import rapp
from rapp import MeasuredPoint, Predictor, QuotaKind, ResourceConfig, ResourceGrid
from rapp.cli.tables import console, table
from rapp.errors import RappError
from rapp.fileio import atomic_path

NETWORK = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_resnet50.onnx"
KNOWN = "resnet50"
POINTS = 11
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

# What a scheduler pays once: imports, artifact, graph, encoder. CLOCK_MONOTONIC is one for all processes.
FRESH = """
import sys, time
begun = time.monotonic()
import rapp, rapp.predictor, rapp.graph, onnx, onnxruntime
imported = time.monotonic()
predictor = rapp.Predictor.load(sys.argv[2])
loaded = time.monotonic()
network = predictor.network(sys.argv[3])
read = time.monotonic()
started = begun - float(sys.argv[1])
print(started, imported - begun, loaded - imported, read - loaded, read - begun)
"""
STAGES = (
    "start of the interpreter",
    "import rapp, onnx, onnxruntime",
    "load and verify the artifact",
    "read and encode light_resnet50.onnx",
    "all but the interpreter's start",
)


@dataclass(frozen=True)
class Figure:
    """One figure; times in ms.

    Args:
        what: was timed.
        median_ms, fastest_ms: of `runs`.
        goal_ms: the most it should take; None: no goal.
    """

    what: str
    median_ms: float
    fastest_ms: float
    runs: int
    goal_ms: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the median is within the goal."""
        return None if self.goal_ms is None else self.median_ms <= self.goal_ms


def timed(what: str, question: Callable[[], object], runs: int, goal_ms: float | None = None) -> Figure:
    """Time a question after a tenth as many runs to warm up."""
    for _ in range(max(runs // 10, 1)):
        question()
    times = np.empty(runs)
    for run in range(runs):
        begun = time.perf_counter()
        question()
        times[run] = 1e3 * (time.perf_counter() - begun)
    return Figure(what, float(np.median(times)), float(times.min()), runs, goal_ms)


def fresh(artifact: Path, runs: int) -> list[Figure]:
    """Time a new process from its start to the first network; a run that warms the disk cache goes before."""
    rows = []
    for _ in range(runs + 1):
        command = [sys.executable, "-c", FRESH, str(time.monotonic()), str(artifact), str(NETWORK)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RappError(f"a fresh process failed: {done.stderr.strip().splitlines()[-1]}")
        rows.append([1e3 * float(value) for value in done.stdout.split()])
    stages = np.array(rows[1:]).T
    goals = (None, None, None, None, 1000.0)
    return [
        Figure(what, float(np.median(times)), float(times.min()), runs, goal)
        for what, times, goal in zip(STAGES, stages, goals, strict=True)
    ]


def questions(artifact: Path) -> list[Figure]:
    """Time what a scheduler asks again and again, and a calibration."""
    predictor = Predictor.load(artifact)
    names = [one.name for one in predictor.card.networks]
    known = predictor.known_network(KNOWN if KNOWN in names else names[0])
    new = predictor.network(NETWORK)
    grid, config = ResourceGrid(), ResourceConfig(50, 40, 4)
    # The answers themselves, 10 % off by turns: as good as measured ones for what a calibration takes.
    kind = predictor.default_quota_kind
    points = [
        MeasuredPoint(one, new.latency(one).mean_ms * (1.1 if place % 2 else 0.9), kind)
        for place, one in enumerate(predictor.calibration_points(POINTS))
    ]

    def calibrate() -> object:
        return new.calibrated(points).latency(config)

    count = f"{len(grid)} configurations"
    return [
        timed(f"{count}, {known.name}, known", lambda: known.latency_grid(grid), 200, 2.0),
        timed(f"{count}, {new.name}, new", lambda: new.latency_grid(grid), 200, 2.0),
        timed(
            f"{count}, quota of device time",
            lambda: known.latency_grid(grid, quota_kind=QuotaKind.GPU_TIME),
            200,
            2.0,
        ),
        timed("one configuration", lambda: known.latency(config), 1000),
        timed(f"calibration with {POINTS} points, first answer", calibrate, 20, 1000.0),
    ]


def machine() -> dict[str, object]:
    """Where the figures are from."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [
            line.partition(":")[2].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        cpu = models[0] if models else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "rapp": rapp.__version__,
    }


def show(figures: list[Figure], about: dict[str, object]) -> None:
    """Print the table."""
    out = console()
    busy = float(str(about["load_1min"])) > 0.5
    out.print(Text(f"{about['cpu']}, one thread", style="bold"))
    versions = " · ".join(f"{name} {about[name]}" for name in ("python", "numpy", "onnxruntime", "rapp"))
    out.print(Text(versions))
    load = f"load {about['load_1min']} on {about['cores']} cores before the start"
    out.print(
        Text(
            load + (": the machine is busy, medians are too high" if busy else ""),
            style="yellow" if busy else "",
        )
    )
    shown = table("wall time, ms", "median", "fastest", "runs", "goal", "")
    for one in figures:
        verdict = "" if one.met is None else "pass" if one.met else "miss"
        shown.add_row(
            one.what, Text(_ms(one.median_ms), style="bold"), _ms(one.fastest_ms), f"{one.runs}",
            "" if one.goal_ms is None else f"{one.goal_ms:,.0f}",
            Text(verdict, style="green" if one.met else "bold red"),
        )  # fmt: skip
    out.print(shown)


def write_table(page: Path, figures: list[Figure], about: dict[str, object]) -> None:
    """Put the table between the markers of a page."""
    rows = ["| wall time, ms | median | fastest | runs | goal |", "|---|--:|--:|--:|--:|"]
    for one in figures:
        goal = "" if one.goal_ms is None else f"{one.goal_ms:,.0f}, {'met' if one.met else 'missed'}"
        rows.append(f"| {one.what} | {_ms(one.median_ms)} | {_ms(one.fastest_ms)} | {one.runs} | {goal} |")
    where = f"{about['cpu']}, load {about['load_1min']} on {about['cores']} cores before the start"
    versions = ", ".join(f"{name} {about[name]}" for name in ("python", "numpy", "onnxruntime"))
    text = page.read_text("utf-8")
    head, begin, rest = text.partition("<!-- speed:begin -->")
    _, end, tail = rest.partition("<!-- speed:end -->")
    if not (begin and end):
        raise RappError(f"{page}: has no markers <!-- speed:begin --> and <!-- speed:end -->")
    table = "\n".join([*rows, "", f"{where}; {versions}."])
    with atomic_path(page) as temporary:
        temporary.write_text(f"{head}{begin}\n{table}\n{end}{tail}", "utf-8")


def _ms(value: float) -> str:
    return f"{value:,.3f}" if value < 10 else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", type=Path, default=Path("models/v100"), help="the predictor")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--write", type=Path, help="put the table between the markers of this page")
    options = parser.parse_args()
    if any(os.environ.get(name) != "1" for name in ONE_THREAD):
        # BLAS reads them when numpy loads, which it has.
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ONE_THREAD)
    about = machine()
    try:
        figures = [*questions(options.artifact), *fresh(options.artifact, 5)]
        show(figures, about)
        if options.json:
            content = {
                "version": 1,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "machine": about,
                "figures": [asdict(one) | {"met": one.met} for one in figures],
            }
            with atomic_path(options.json) as temporary:
                temporary.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
        if options.write:
            write_table(options.write, figures, about)
    except RappError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    for written in filter(None, (options.json, options.write)):
        console().print(f"written: {written}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
