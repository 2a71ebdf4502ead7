"""The main job on real input: two networks of the `onnx` package, answered for by `models/v100`.

    make demo
    python scripts/demo.py [--artifact models/v100] [--slo-ms 60] [--rps 100] [--out out]

Each step shows a `rapp` command and runs it, so that every figure can be had again by pasting the line.
Writes out/demo.html and leaves the two networks in out/networks. Needs no GPU; takes seconds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

import onnx
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

import rapp
from rapp.cli.main import app
from rapp.cli.tables import ms, table
from rapp.errors import RappError
from rapp.recommend import Objective, Recommendation, recommend

NETWORKS = ("light_resnet50", "light_squeezenet")
"""Structure as published, weights constant: latency hangs on the structure alone."""

WIDTH = 80


class Demo:
    """The steps, in order; each says what it is about to do and does it."""

    steps = 5

    def __init__(self, options: argparse.Namespace) -> None:
        self.artifact, self.out, self.options = options.artifact, options.out, options
        self.report = options.out / "demo.html"
        width = min(WIDTH, Console().width)
        self.console = Console(width=width, highlight=False, emoji=False)
        os.environ["COLUMNS"] = str(width)  # the commands print for the same width
        self.step = 0

    def run(self) -> None:
        """All steps."""
        begun = time.monotonic()
        first, second = self.networks()
        self.console.print(
            "\nRaPP predicts how long a network takes on a share of a GPU: an SM partition, a time"
            " quota, a batch. Here a predictor trained on V100 profiles answers for two ONNX files; no GPU"
            " is asked."
        )
        self.head(
            "What a network computes",
            "Only the structure is read, weights are not. The counts hold for any batch (N).",
        )
        self.command("graph", first, "--top", "3")

        self.head(
            "How long it takes, as the profiles measured it",
            "The slower of two sets the pace: device time, which falls with more SMs, or host time, in"
            " which operators are launched. The profiles' quota gates launches, so it stretches host time"
            " alone.",
        )
        axes = ("--sm", "10,50,100", "--quota", "20,100", "--batch", "1,8")
        self.command("predict", self.artifact, first, *axes)

        self.head(
            "Another network, under a quota of device time",
            "Such a quota limits what is paid for, so prices go by it: half the quota, half the GPU.",
        )
        self.command("predict", self.artifact, second, *axes, "--quota-kind", "gpu_time")

        self.head(
            "What to run, for an objective and a load",
            "The cheapest configurations whose requests are answered in time, with as many instances as"
            " the load needs.",
        )
        asked = ("--slo-ms", f"{self.options.slo_ms:g}", "--rps", f"{self.options.rps:g}")
        self.command("recommend", self.artifact, first, *asked, "--report", self.report)

        self.head("Both networks, from Python", "What the commands call is what a scheduler imports.")
        self.python(asked)
        self.end(time.monotonic() - begun)

    def networks(self) -> list[Path]:
        """Copies of the package's files, where a command can name them on one line."""
        folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
        there = self.out / "networks"
        there.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copy(folder / f"{name}.onnx", there)) for name in NETWORKS]

    def head(self, title: str, text: str) -> None:
        """Announce the next step, and how to read its answer."""
        self.step += 1
        line = Text(f"{self.step} of {self.steps}  ", style="dim").append(title, style="bold cyan")
        self.console.print()
        self.console.print(Rule(line, align="left", style="dim"))
        self.console.print(text)
        self.console.print()

    def command(self, *arguments: str | Path) -> None:
        """Show a `rapp` command and run it in this process."""
        words = [str(argument) for argument in arguments]
        lines = ["$ rapp"]
        for word in words:
            # An option stays beside its value.
            joined = f"{lines[-1]} {word}"
            if len(joined) > WIDTH - 2 and word.startswith("--"):
                lines[-1] += " \\"
                lines.append(f"    {word}")
            else:
                lines[-1] = joined
        for line in lines:
            self.console.print(Text(line, style="green"), soft_wrap=True)
        self.console.print()
        app(args=words, standalone_mode=False)

    def python(self, asked: tuple[str, ...]) -> None:
        """Both networks under one objective, through the package."""
        code = (
            "import rapp",
            "from rapp.recommend import Objective, recommend",
            f'predictor = rapp.Predictor.load("{self.artifact}")',
            f'network = predictor.network("{self.out}/networks/{NETWORKS[0]}.onnx")',
            f"recommend(network, Objective(slo_ms={asked[1]}, rps={asked[3]})).best",
        )
        for line in code:
            self.console.print(Text(f">>> {line}", style="green"), soft_wrap=True)
        objective = Objective(self.options.slo_ms, self.options.rps)
        predictor = rapp.Predictor.load(self.artifact)
        files = [self.out / "networks" / f"{name}.onnx" for name in NETWORKS]
        found = [recommend(predictor.network(file), objective) for file in files]
        self.console.print()
        self.console.print(_side_by_side(found))

    def end(self, seconds: float) -> None:
        """Where the results are and what to do next."""
        steps = (
            (". .venv/bin/activate", "puts rapp on the path"),
            (f"rapp predict {self.artifact} net.onnx", "your own network"),
            (f"rapp calibrate {self.artifact} --list 5", "what to measure, to be surer"),
            ("rapp --help", "all commands"),
        )
        self.console.print()
        self.console.print(Rule(Text("Next", style="bold cyan"), align="left", style="dim"))
        column = 3 + max(len(command) for command, _ in steps)
        for command, what in steps:
            line = Text("$ ", style="dim").append(f"{command:{column}}", style="green")
            self.console.print(line.append(what, style="default"), soft_wrap=True)
        self.console.print("docs/predictor.md: asking from Python, Go and C++; README.md: all the rest")
        done = f"Done in {seconds:.1f} s. The recommendation as a page: {self.report}"
        self.console.print()
        self.console.print(Text(done, style="bold"), soft_wrap=True)


def _side_by_side(found: list[Recommendation]):  # type: ignore[no-untyped-def]
    shown = table("network", "SM %", "quota %", "batch", "n", "GPUs", "request ms", "execution ms")
    for one in found:
        best, config = one.best, one.best.config
        shown.add_row(
            Text(one.network), f"{config.sm_pct:g}", f"{config.quota_pct:g}", f"{config.batch}",
            f"{best.instances}", Text(f"{best.gpu_share:.2f}", style="bold"), ms(best.request_ms),
            ms(best.mean_ms),
        )  # fmt: skip
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", type=Path, default=Path("models/v100"), help="the predictor")
    parser.add_argument("--slo-ms", type=float, default=60.0, help="objective, ms")
    parser.add_argument("--rps", type=float, default=100.0, help="load, requests a second")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the page goes")
    options = parser.parse_args()
    try:
        Demo(options).run()
    except RappError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
