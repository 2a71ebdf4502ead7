"""`rapp calibrate`: measured points of a network make its answers better."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rapp.cli.loading import Artifact, load
from rapp.cli.tables import console, ms, table
from rapp.errors import ConfigError
from rapp.types import MeasuredPoint

if TYPE_CHECKING:
    from rapp.predictor import NetworkPredictor

# onnx, onnxruntime and pyarrow load inside the functions, so that `rapp --help` stays fast.

MOST_ROWS = 20
"""Points shown one by one on the terminal."""


def calibrate(
    artifact: Artifact,
    network: Annotated[
        Path | None,
        typer.Argument(help="The network that was measured, an ONNX file.", show_default=False),
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option(
            help="Measured points: .csv or .json with sm_pct, quota_pct, batch, latency_ms[, quota_kind];"
            " or a profile table, .parquet.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write, a JSON file; other networks in it stay.", show_default=False),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--network",
            help="Name of the network in the profile table; default: the one with the same graph.",
            show_default=False,
        ),
    ] = None,
    listed: Annotated[
        int | None,
        typer.Option(
            "--list",
            min=1,
            help="Print the first so many configurations that are worth measuring, as CSV to fill in.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Calibrate an artifact's answers for one network with measured points of it.

    First `--list 5` tells which configurations to measure, then `--points`
    reads the measured latencies and writes a calibration, which `predict`
    and `recommend` take with `--calibration`. One file can hold several
    networks.
    """
    if listed is not None:
        if points or out:
            raise ConfigError("--list prints configurations to measure and takes neither --points nor --out")
        _print_list(artifact, listed)
        return
    if network is None or points is None or out is None:
        raise ConfigError("give a network with --points and --out, or --list to see what to measure")
    predictor, before = load(artifact, network)
    if points.suffix.lower() == ".parquet":
        from rapp.measured import table_points

        measured = table_points(points, predictor.card, before.graph_hash, before.name, name)
    else:
        from rapp.measured import read_points

        if name is not None:
            raise ConfigError("--network chooses from a profile table: --points is no .parquet")
        measured = read_points(points, predictor.default_quota_kind)
    after = before.calibrated(measured)
    after.save_calibration(out)
    _print_effect(before, after, measured)
    console().print(f"written: {out}", markup=False, soft_wrap=True)


def _print_list(artifact: Path, count: int) -> None:
    from rapp.evaluation.source import artifact_folder
    from rapp.predictor import Predictor

    predictor = Predictor.load(artifact_folder(artifact))
    kind = predictor.default_quota_kind.value
    lines = [f"{c.sm_pct:g},{c.quota_pct:g},{c.batch},{kind}," for c in predictor.calibration_points(count)]
    typer.echo("\n".join(["sm_pct,quota_pct,batch,quota_kind,latency_ms", *lines]))


def _print_effect(
    before: NetworkPredictor, after: NetworkPredictor, measured: tuple[MeasuredPoint, ...]
) -> None:
    from rich.text import Text

    shown = table("SM %", "quota %", "batch", "measured ms", "before ms", "error", "after ms", "error",
                  left=())  # fmt: skip
    errors = []
    for point in measured:
        cells, error = [], []
        for network in (before, after):
            mean = network.latency(point.config, quota_kind=point.quota_kind).mean_ms
            error.append((mean - point.latency_ms) / point.latency_ms)
            cells += [ms(mean), f"{error[-1]:+.1%}"]
        errors.append(error)
        config = point.config
        shown.add_row(
            f"{config.sm_pct:g}", f"{config.quota_pct:g}", f"{config.batch}", ms(point.latency_ms), *cells
        )
    out = console()
    count = "1 measured point" if len(measured) == 1 else f"{len(measured)} measured points"
    out.print(Text(f"{after.name}: {count}", style="bold"))
    if len(measured) <= MOST_ROWS:
        out.print(shown)
    mean_before, mean_after = (sum(abs(error[side]) for error in errors) / len(errors) for side in (0, 1))
    out.print(Text(f"mean error at these points: {mean_before:.1%} before, {mean_after:.1%} after"))
