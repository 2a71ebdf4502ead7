"""The main job on real input: this machine measured, a predictor trained on it, and `models/v100` asked.

    make demo
    python scripts/demo.py [--quick] [--only machine|v100] [--slo-ms MS] [--rps N] [--out out]

First this machine's cores play the GPU: three networks of the `onnx` package are profiled, a predictor
learns from two, is scored on the third, calibrated and asked for a configuration, which is then measured.
Then `models/v100` answers for a GPU. Needs no GPU; takes about three minutes, `--only v100` seconds.

Each step shows a `rapp` command and runs it, so that every figure can be had again by pasting the line.
Writes OUT/demo.html, and all files into OUT/demo. What was measured there is not measured again: delete the
folder to begin anew.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import demo_v100
import onnx
from demo_machine import STEPS, Findings, Machine
from demo_page import demo_html
from demo_sweep import FULL, QUICK, TRAINED, UNSEEN, partitions
from demo_terminal import Terminal

from rapp import Predictor
from rapp.errors import RappError
from rapp.fileio import atomic_path
from rapp.runtime.cores import usable_cores

MACHINE, V100 = "machine", "v100"


def main() -> None:
    options = _options()
    try:
        _run(options)
    except RappError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="a third of the points, less precise: one minute"
    )
    parser.add_argument("--only", choices=(MACHINE, V100), help="one of the two parts")
    parser.add_argument("--slo-ms", type=float, help="objective on this machine, ms; default: told by it")
    parser.add_argument("--rps", type=float, help="load on this machine, requests/s; default: told by it")
    parser.add_argument("--artifact", type=Path, default=Path("models/v100"), help="the V100's predictor")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where everything goes")
    return parser.parse_args()


def _run(options: argparse.Namespace) -> None:
    sweep = QUICK if options.quick else FULL
    with_machine, with_v100 = options.only != V100, options.only != MACHINE
    # What cannot work is told before anything is measured.
    sm_pct = partitions(len(usable_cores())) if with_machine else ()
    if with_v100:
        Predictor.load(options.artifact)
    folder, page = options.out / sweep.folder, options.out / "demo.html"
    graphs = _networks(folder / "graphs")

    terminal = Terminal(STEPS * with_machine + demo_v100.STEPS * with_v100)
    terminal.say(
        "\nRaPP predicts how long a network takes on a share of a GPU:"
        " an SM partition, a time quota, a batch."
    )
    findings: Findings | None = None
    if with_machine:
        terminal.say(
            "First this machine's cores play the GPU: measure, learn, ask, check."
            + (" Then a predictor trained on V100 profiles answers for a GPU." if with_v100 else "")
        )
        machine = Machine(terminal, sweep, sm_pct, folder, graphs, options.slo_ms, options.rps)
        findings = machine.run()
    if with_v100:
        first, second = (graphs / f"{name}.onnx" for name in (UNSEEN, TRAINED[-1]))
        own_page = page if findings is None else None
        found = demo_v100.run(terminal, options.artifact, first, second, own_page)
    if findings is not None:
        with atomic_path(page) as temporary:
            temporary.write_text(demo_html(findings, found if with_v100 else ()), "utf-8")
    _end(terminal, options, sweep.folder, page, measured=findings is not None)


def _networks(folder: Path) -> Path:
    """Copies of the package's files, where a command can name them on one line."""
    source = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*TRAINED, UNSEEN):
        shutil.copy(source / f"{name}.onnx", folder)
    return folder


def _end(terminal: Terminal, options: argparse.Namespace, folder: str, page: Path, *, measured: bool) -> None:
    again = f" {options.out / folder} keeps what was measured: without it all is measured anew."
    terminal.end(
        (
            (". .venv/bin/activate", "puts rapp on the path"),
            (f"rapp predict {options.artifact} net.onnx", "your own network"),
            ("rapp profile net.onnx --device cuda:0 --out my.parquet", "your own GPU"),
            (f"rapp calibrate {options.artifact} --list 5", "what to measure, to be surer"),
            ("rapp --help", "all commands"),
        ),
        "docs/predictor.md: asking from Python, Go and C++; README.md: all the rest",
        f"Done in {terminal.seconds:.0f} s.{again if measured else ''} The page: {page}",
    )


if __name__ == "__main__":
    main()
