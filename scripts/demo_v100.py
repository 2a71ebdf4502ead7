"""The second part of the demonstration: `models/v100` answers for a GPU that is not here."""

from __future__ import annotations

from pathlib import Path

from demo_terminal import Terminal
from rich.table import Table
from rich.text import Text

import rapp
from rapp.cli.tables import ms, table
from rapp.recommend import Objective, Recommendation, recommend

STEPS = 5

SLO_MS, RPS = 60.0, 100.0


def run(
    terminal: Terminal, artifact: Path, first: Path, second: Path, page: Path | None
) -> tuple[Recommendation, ...]:
    """All steps; returns what is recommended for the two networks.

    Args:
        terminal: shows them.
        artifact: the predictor.
        first, second: the networks.
        page: where `rapp recommend` writes its report; None: nowhere.
    """
    terminal.head(
        "What a network computes",
        "Only the structure is read, weights are not. The counts hold for any batch (N).",
    )
    terminal.command("graph", first, "--top", "3")

    terminal.head(
        "How long it takes on a V100, as the profiles measured it",
        "The slower of two sets the pace: device time, which falls with more SMs, or host time, in"
        " which operators are launched. The profiles' quota gates launches, so it stretches host time"
        " alone.",
    )
    axes = ("--sm", "10,50,100", "--quota", "20,100", "--batch", "1,8")
    terminal.command("predict", artifact, first, *axes)

    terminal.head(
        "Another network, under a quota of device time",
        "Such a quota limits what is paid for, so prices go by it: half the quota, half the GPU.",
    )
    terminal.command("predict", artifact, second, *axes, "--quota-kind", "gpu_time")

    terminal.head(
        "What to run, for an objective and a load",
        "The cheapest configurations whose requests are answered in time, with as many instances as"
        " the load needs.",
    )
    report = ("--report", page) if page is not None else ()
    terminal.command("recommend", artifact, first, "--slo-ms", f"{SLO_MS:g}", "--rps", f"{RPS:g}", *report)

    terminal.head("Both networks, from Python", "What the commands call is what a scheduler imports.")
    terminal.python(
        "import rapp",
        "from rapp.recommend import Objective, recommend",
        f'predictor = rapp.Predictor.load("{artifact}")',
        f'network = predictor.network("{first}")',
        f"recommend(network, Objective(slo_ms={SLO_MS:g}, rps={RPS:g})).best",
    )
    predictor = rapp.Predictor.load(artifact)
    found = tuple(recommend(predictor.network(file), Objective(SLO_MS, RPS)) for file in (first, second))
    terminal.show(_side_by_side(found))
    return found


def _side_by_side(found: tuple[Recommendation, ...]) -> Table:
    shown = table("network", "SM %", "quota %", "batch", "n", "GPUs", "request ms", "execution ms")
    for one in found:
        best, config = one.best, one.best.config
        shown.add_row(
            Text(one.network), f"{config.sm_pct:g}", f"{config.quota_pct:g}", f"{config.batch}",
            f"{best.instances}", Text(f"{best.gpu_share:.2f}", style="bold"), ms(best.request_ms),
            ms(best.mean_ms),
        )  # fmt: skip
    return shown
