"""`rapp evaluate`: an artifact against measured profiles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rapp.cli.tables import console, table
from rapp.fileio import atomic_path

if TYPE_CHECKING:
    from rapp.evaluation import Evaluation
    from rapp.evaluation.evaluate import Progress

# onnx, onnxruntime, pyarrow and jinja2 load inside the functions, so that `rapp --help` stays fast.


def evaluate(
    artifact: Annotated[
        Path,
        typer.Argument(help="A predictor artifact, or a training run's folder.", show_default=False),
    ],
    profiles: Annotated[Path, typer.Option(help="The profile table, *.parquet.", show_default=False)],
    graphs: Annotated[Path, typer.Option(help="Folder of <network>.onnx.", show_default=False)],
    networks: Annotated[
        str | None, typer.Option(help="Score these alone: a,b,c.", show_default=False)
    ] = None,
    points: Annotated[
        int, typer.Option(min=0, help="Measured points of each network that calibrate first, not scored.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap intervals over networks.")] = 0,
    include_trained: Annotated[
        bool, typer.Option("--include-trained", help="Score what the artifact was trained on too; marked.")
    ] = False,
    as_json: Annotated[
        Path | None, typer.Option("--json", help="Write the scores as JSON.", show_default=False)
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report.", show_default=False)] = None,
) -> None:
    """Score an artifact on the measured points of a profile table.

    Networks that the artifact was trained on are marked and left out. With
    --points K, the first K of the artifact's list calibrate the answers for
    each network; a configuration that the table lacks gives way to the nearest
    one in log2 of SM partition, quota and batch. All figures are in %; the
    interval score is that of the logarithm, times 100.
    """
    from rapp.evaluation import artifact_folder
    from rapp.evaluation import evaluate as run
    from rapp.predictor import Predictor
    from rapp.profiles import ProfileTable

    names = None if networks is None else [name.strip() for name in networks.split(",") if name.strip()]
    folder = artifact_folder(artifact)
    predictor = Predictor.load(folder)
    measured = ProfileTable.read(profiles)
    with _progress() as progress:
        found = run(
            predictor, measured, graphs, networks=names, points=points, seed=seed,
            include_trained=include_trained, artifact=artifact, progress=progress,
        )  # fmt: skip
    if as_json:
        with atomic_path(as_json) as temporary:
            temporary.write_text(json.dumps(found.to_dict(), indent=2, allow_nan=False) + "\n", "utf-8")
    if report:
        from rapp.report.evaluation import evaluation_html

        with atomic_path(report) as temporary:
            temporary.write_text(evaluation_html(found), "utf-8")
    _print(found)
    for written in filter(None, (as_json, report)):
        console().print(f"written: {written}", markup=False, soft_wrap=True)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on stderr, if that is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    err = console(stderr=True)
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("")
        yield lambda name, done, total: bar.update(task, description=name, completed=done, total=total)


def _print(found: Evaluation) -> None:
    from rich.text import Text

    out, content = console(), found.to_dict()
    setting = (found.device, found.runtime, found.precision, *found.quota_kinds)
    out.print(Text(" · ".join(setting), style="bold"))
    calibrated = f"calibrated by {found.points} points of each, not scored"
    how = calibrated if found.points else "no measured points"
    networks = "1 network" if len(found.scored) == 1 else f"{len(found.scored)} networks"
    out.print(Text(f"{len(found.rows):,} rows of {networks}; {how}"))
    if found.left_out:
        trained = sum(one.trained for one in found.left_out)
        count = "1 network" if len(found.left_out) == 1 else f"{len(found.left_out)} networks"
        told = f"left out: {count}, {trained} trained on"
        out.print(Text(told, style="yellow"))
    if found.other_rows:
        out.print(Text(f"left out: {found.other_rows:,} rows of other settings", style="yellow"))

    shown = table("network", "rows", "error", "median", "95 %", "bias", "coverage", "width", "score")
    for one, scores in sorted(found.scored, key=lambda pair: -pair[1].mape):
        name = Text(one.network, overflow="ellipsis")
        name.truncate(24, overflow="ellipsis")
        if one.trained:
            name.append(" †", style="yellow")
        shown.add_row(
            name,
            f"{scores.n_rows:,}",
            Text(f"{scores.mape:.1f}", style="bold"),
            f"{scores.median_ape:.1f}",
            f"{scores.p95_ape:.1f}",
            f"{scores.bias:+.1f}",
            f"{scores.coverage:.0f}",
            f"{scores.width:.0f}",
            f"{scores.interval_score:.0f}",
        )
    out.print(shown)
    if any(one.trained for one, _ in found.scored):
        out.print(Text("† trained on: its error says nothing of new networks", style="yellow"))
    _print_headline(found, content)


def _print_headline(found: Evaluation, content: dict[str, float]) -> None:
    out = console()
    low, high = found.mape_interval
    cover_low, cover_high = found.coverage_interval
    several = len(found.scored) > 1  # of one network there is nothing to say over networks
    over_networks = (
        ("mean error over networks", content["mape_mean"], f"95 %: {low:.2f} to {high:.2f} %"),
        ("median over networks", content["mape_median"], ""),
        ("95th percentile", content["mape_p95"], ""),
    )
    lines = (
        *(over_networks if several else ()),
        ("mean error over rows", content["mape_rows"], ""),
        ("within the 90 % interval", content["coverage_90"],
         f"95 %: {cover_low:.2f} to {cover_high:.2f} %, by network" if several else ""),
        ("mean width of it", found.pooled.width, f"interval score {content['interval_score']:.1f}"),
    )  # fmt: skip
    for label, value, more in lines:
        out.print(f"{label:<26}{value:6.2f} %   {more}".rstrip(), markup=False)
