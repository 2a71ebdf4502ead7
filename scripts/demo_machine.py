"""The first part of the demonstration: this machine is measured, learned, asked, and held to the answer."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

from demo_sweep import TRAINED, UNSEEN, Sweep
from demo_terminal import Terminal

from rapp import Predictor, ResourceConfig
from rapp.cli.tables import ms
from rapp.evaluation import Evaluation, evaluate
from rapp.evaluation.points import choose_points
from rapp.fileio import atomic_path
from rapp.profiles import ProfileTable
from rapp.profiles.campaigns import MOST_DRIFT_PCT
from rapp.profiles.summary import SettingSummary, summarise
from rapp.recommend import Objective, Recommendation, Risk, recommend
from rapp.runtime.cores import usable_cores
from rapp.types import QuotaKind, ResourceGrid

STEPS = 8

SLACK, LOAD = 3.0, 0.25
"""The objective is so many times what a batch takes on all cores, by the upper end of its interval, and the
load so large a share of what they serve. Both are predictions, so that some configuration meets them on any
machine, however noisy."""


@dataclass(frozen=True)
class Check:
    """The recommended configuration, measured afterwards: its mean latency and the half-width of its median's
    interval, ms; None: too few samples."""

    measured_ms: float
    half_width_ms: float | None

    def verdict(self, found: Recommendation) -> str:
        """One sentence, without a full stop."""
        best, slo_ms = found.best, found.objective.slo_ms
        off = 100 * (self.measured_ms / best.mean_ms - 1)
        inside = "inside" if best.low_ms <= self.measured_ms <= best.high_ms else "outside"
        kept = "meets" if self.measured_ms + best.fill_ms <= slo_ms else "misses"
        with_batching = f"with {ms(best.fill_ms)} ms of batching it" if best.fill_ms else "it"
        return (
            f"{ms(self.measured_ms)} ms, {off:+.0f} % off the prediction, {inside} its interval;"
            f" {with_batching} {kept} the objective of {slo_ms:g} ms"
        )


@dataclass(frozen=True)
class Findings:
    """What the page tells of this machine.

    Args:
        table: what was measured; with its summary, the only one.
        before, after: the unseen network's errors without a measured point of it, and with some.
        found: what is recommended for it.
        check: how that did.
        load: load averages of the machine at the beginning and at the end of the sweep; None: it was
            measured in an earlier run.
        drift_pct: of the anchors; None: none was measured twice.
    """

    table: ProfileTable
    summary: SettingSummary
    before: Evaluation
    after: Evaluation
    found: Recommendation
    check: Check
    load: tuple[float, float] | None
    drift_pct: float | None


class Machine:
    """Runs the steps.

    Args:
        terminal: shows them.
        sweep: what to measure, on these SM partitions, % as options are written.
        folder: of all files. graphs: of the networks.
        slo_ms, rps: objective and load; None: by the rule of `SLACK` and `LOAD`.
    """

    def __init__(
        self,
        terminal: Terminal,
        sweep: Sweep,
        sm_pct: tuple[str, ...],
        folder: Path,
        graphs: Path,
        slo_ms: float | None,
        rps: float | None,
    ) -> None:
        self._shown, self._sweep, self._sm_pct, self._graphs = terminal, sweep, sm_pct, graphs
        self._slo_ms, self._rps = slo_ms, rps
        self._folder, self._table = folder, folder / "profiles.parquet"
        self._run, self._artifact = folder / "run", folder / "predictor"
        self._points, self._calibration = folder / "points.csv", folder / "calibration.json"
        self._unseen = graphs / f"{UNSEEN}.onnx"
        self._data = ("--profiles", self._table, "--graphs", graphs)

    def run(self) -> Findings:
        """All steps."""
        load = self._measure()
        table = ProfileTable.read(self._table)
        (summary,) = summarise(table)
        drift_pct = self._look(summary, load)
        self._train()
        before, after = self._evaluate(table)
        self._calibrate(table)
        found = self._recommend()
        return Findings(table, summary, before, after, found, self._check(found), load, drift_pct)

    def _measure(self) -> tuple[float, float] | None:
        sweep, cores = self._sweep, len(usable_cores())
        of_each = len(self._sm_pct) * len(sweep.quota_pct) * len(sweep.batch)
        self._shown.head(
            "Measure three networks on this machine",
            f"An SM partition is here a share of the {cores} core{'s' * (cores > 1)}, a quota a share of"
            f" their time in each 40 ms. {of_each} points a network, and three times its anchor, which shows"
            " whether the machine changes. Stop it whenever you like: every point is safe, and the same"
            " command goes on.",
        )
        files = [self._graphs / f"{name}.onnx" for name in (*TRAINED, UNSEEN)]
        known = self._table.exists()
        before = os.getloadavg()[0]
        self._shown.command(
            "profile", *files, "--device", "cpu", *sweep.options(self._sm_pct), "--out", self._table
        )
        return None if known else (before, os.getloadavg()[0])

    def _look(self, summary: SettingSummary, load: tuple[float, float] | None) -> float | None:
        self._shown.head(
            "What was measured, and how quiet the machine was",
            "Noise is of the batches of one point. Drift is of the anchors, one configuration measured three"
            " times: what moves by itself, nothing can predict.",
        )
        self._shown.command("profiles", "show", self._table)
        drifts = [one.drift_pct for one in summary.campaigns if one.drift_pct is not None]
        drift_pct = max(drifts, default=None)
        if drift_pct is not None:
            quiet = drift_pct <= MOST_DRIFT_PCT
            told = (
                "the machine was quiet" if quiet else "it was not quiet, and the errors below hold that too"
            )
            loads = "" if load is None else f" Load average: {load[0]:.1f} before, {load[1]:.1f} after."
            self._shown.say(f"Anchors moved by up to {drift_pct:.1f} %: {told}.{loads}", "bold")
        return drift_pct

    def _train(self) -> None:
        self._shown.head(
            "Learn from two of them",
            f"{UNSEEN} is held out: the predictor sees no point of it. Two networks are very few, which the"
            " next step shows. The export is a folder of ONNX files with a card.",
        )
        settings = ("--steps", str(self._sweep.steps), "--members", "2", "--threads", "1")
        self._shown.command(
            "train", *self._data, "--out", self._run, "--holdout", UNSEEN, *settings, "--tracking", "none"
        )
        self._shown.command("export", self._run, "--out", self._artifact)

    def _evaluate(self, table: ProfileTable) -> tuple[Evaluation, Evaluation]:
        count = self._sweep.points
        self._shown.head(
            "Ask about the network that it has not seen",
            "From the graph alone, against all that was measured of it. The width of the interval says how"
            " little two networks teach.",
        )
        self._shown.command("evaluate", self._artifact, *self._data)
        self._shown.head(
            f"The same after {count} measured points",
            f"The artifact lists what is worth measuring. Its first {count} calibrate the answers for this"
            " network; the others are scored.",
        )
        self._shown.command("evaluate", self._artifact, *self._data, "--points", str(count))
        predictor = Predictor.load(self._artifact)
        before, after = (
            evaluate(predictor, table, self._graphs, points=points, artifact=self._artifact)
            for points in (0, count)
        )
        return before, after

    def _calibrate(self, table: ProfileTable) -> None:
        count = self._sweep.points
        self._shown.head(
            "Calibrate it",
            f"For a network of yours, measure what `--list` prints and fill it in. Here the {count} points"
            f" are in the table already; {self._points} takes them from there.",
        )
        self._shown.command("calibrate", self._artifact, "--list", str(count))
        rows = table.filter(network=UNSEEN, status="ok", anchor=False)
        wanted = Predictor.load(self._artifact).calibration_points(count)
        chosen, _ = choose_points(rows.points(UNSEEN), wanted, QuotaKind.GPU_TIME)
        with atomic_path(self._points) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("sm_pct", "quota_pct", "batch", "quota_kind", "latency_ms"))
            for one in (each.taken for each in chosen):
                at = one.config
                writer.writerow((at.sm_pct, at.quota_pct, at.batch, one.quota_kind.value, one.latency_ms))
        self._shown.command(
            "calibrate", self._artifact, self._unseen, "--points", self._points, "--out", self._calibration
        )

    def _recommend(self) -> Recommendation:
        network = Predictor.load(self._artifact).network(self._unseen, calibration=self._calibration)
        full = network.latency(ResourceConfig(100, 100, 1))
        slo_ms = self._slo_ms or _rounded(SLACK * full.high_ms)
        rps = self._rps or _rounded(LOAD * 1000 / full.mean_ms)
        rule = f"{SLACK:g} times what a batch takes on all cores, {100 * LOAD:g} % of what they serve"
        own = self._slo_ms is not None or self._rps is not None
        self._shown.head(
            "What to run, for an objective and a load",
            f"{slo_ms:g} ms and {rps:g} requests/s{'' if own else f': {rule}'}. With `--risk upper` the"
            " upper end of the interval has to meet it. Quotas between the measured ones are answered too."
            " A GPU is here the machine's cores, all of them: 0.5 is half.",
        )
        answered = self._sweep.answered(self._sm_pct)
        asked = ("--slo-ms", f"{slo_ms:g}", "--rps", f"{rps:g}", "--risk", Risk.UPPER.value)
        self._shown.command(
            "recommend", self._artifact, self._unseen, "--calibration", self._calibration, *asked, *answered
        )
        quota_pct = tuple(float(quota) for quota in range(min(self._sweep.quota_pct), 101, 5))
        grid = ResourceGrid(tuple(map(float, self._sm_pct)), quota_pct, self._sweep.batch)
        return recommend(network, Objective(slo_ms, rps, Risk.UPPER), grid)

    def _check(self, found: Recommendation) -> Check:
        best, config = found.best, found.best.config
        name = f"check-sm{config.sm_pct:g}-quota{config.quota_pct:g}-batch{config.batch}.parquet"
        out = self._folder / name
        self._shown.head(
            "Does it keep the promise?",
            f"An instance as recommended, measured: predicted are {ms(best.mean_ms)} ms,"
            f" {ms(best.low_ms)} to {ms(best.high_ms)}.",
        )
        where = (
            "--sm",
            f"{config.sm_pct:g}",
            "--quota",
            f"{config.quota_pct:g}",
            "--batch",
            str(config.batch),
        )
        rule = ("--no-anchors", "--max-samples", "50", "--max-seconds", f"{5 * self._sweep.max_seconds:g}")
        self._shown.command("profile", self._unseen, "--device", "cpu", *where, *rule, "--out", out)
        rows = ProfileTable.read(out).filter(status="ok")
        latency, low, high = (
            float(rows.column(name)[0]) for name in ("latency_ms", "median_low_ms", "median_high_ms")
        )
        check = Check(latency, (high - low) / 2 if high == high else None)
        self._shown.say(f"Measured: {check.verdict(found)}.", "bold")
        return check


def _rounded(value: float) -> float:
    """To two digits, as an objective is written."""
    return float(f"{value:.2g}")
