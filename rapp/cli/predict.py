"""`rapp predict`: the latency of a network over resource configurations."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rapp.cli.loading import Artifact, Calibration, Kind, Network, grid_of, load
from rapp.cli.ranges import batches, percents
from rapp.cli.tables import console, ms, note, table
from rapp.errors import ConfigError
from rapp.types import LatencyGrid, QuotaKind

if TYPE_CHECKING:
    from rapp.predictor import NetworkPredictor, Predictor

# onnx and onnxruntime load inside the function, so that `rapp --help` stays fast.

_FIELDS = ("mean_ms", "low_ms", "high_ms", "device_ms", "host_ms")


def predict(
    artifact: Artifact,
    network: Network,
    sm: Annotated[
        str, typer.Option(help="SM partitions, %: 50, or 25,50, or first:last:step.")
    ] = "25:100:25",
    quota: Annotated[str, typer.Option(help="Time quotas, %, written alike.")] = "25:100:25",
    batch: Annotated[
        str | None, typer.Option(help="Requests executed together, such as 1,2,4,8.", show_default="1")
    ] = None,
    calibration: Calibration = None,
    quota_kind: Kind = None,
    idle_ms: Annotated[
        float | None,
        typer.Option(
            help="Pause between two batches, ms; default: that of the profiles.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, one line a configuration.")] = False,
) -> None:
    """Predict the latency of one batch: mean, its 90 % interval, device time and host time.

    The interval says where the mean lies with 90 %; single batches scatter
    more widely. Rows marked with * are extrapolated: they lie outside what
    the artifact was trained on, and their interval does not cover that.
    """
    if as_json and as_csv:
        raise ConfigError("--json and --csv exclude each other")
    axes = percents(sm, "--sm"), percents(quota, "--quota")
    chosen = None if batch is None else batches(batch, "--batch")
    predictor, answering = load(artifact, network, calibration)
    kind = quota_kind or predictor.default_quota_kind
    grid = grid_of(answering, *axes, chosen, default=(1,))
    answer = answering.latency_grid(grid, quota_kind=kind, idle_ms=idle_ms)
    if as_json:
        typer.echo(json.dumps(_content(artifact, predictor, answering, kind, answer), indent=2))
    elif as_csv:
        names = ["sm_pct", "quota_pct", "batch", "quota_kind", *_FIELDS, "extrapolated"]
        writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
        writer.writeheader()
        for row in _rows(answer):
            texts = {name: f"{row[name]:g}" for name in ("sm_pct", "quota_pct", "batch")}
            flag = "true" if row["extrapolated"] else "false"
            writer.writerow(row | texts | {"quota_kind": kind.value, "extrapolated": flag})
    else:
        _print(artifact, predictor, answering, kind, answer)


def _rows(answer: LatencyGrid) -> list[dict[str, Any]]:
    columns = {name: getattr(answer, name).ravel().tolist() for name in (*_FIELDS, "extrapolated")}
    return [
        {"sm_pct": config.sm_pct, "quota_pct": config.quota_pct, "batch": config.batch}
        | {name: values[index] for name, values in columns.items()}
        for index, config in enumerate(answer.grid)
    ]


def _content(
    artifact: Path, predictor: Predictor, network: NetworkPredictor, kind: QuotaKind, answer: LatencyGrid
) -> dict[str, Any]:
    card = predictor.card
    return {
        "version": 1,
        "artifact": str(artifact),
        "device": card.device,
        "runtime": card.runtime,
        "precision": card.precision,
        "network": network.name,
        "graph_hash": network.graph_hash,
        "known": network.known,
        "measured_points": len(network.points),
        "quota_kind": kind.value,
        "estimates": _rows(answer),
    }


def _print(
    artifact: Path, predictor: Predictor, network: NetworkPredictor, kind: QuotaKind, answer: LatencyGrid
) -> None:
    from rich.text import Text

    out, card = console(), predictor.card
    out.print(Text(f"{network.name} on {card.device}", style="bold"))
    out.print(Text(" · ".join((card.runtime, card.precision, f"{kind.value} quota", _basis(network)))))
    shown = table("SM %", "quota %", "batch", "mean ms", "90 % interval, ms", "device ms", "host ms", "",
                  left=())  # fmt: skip
    for row in _rows(answer):
        shown.add_row(
            f"{row['sm_pct']:g}",
            f"{row['quota_pct']:g}",
            f"{row['batch']}",
            Text(ms(row["mean_ms"]), style="bold"),
            f"{ms(row['low_ms'])} to {ms(row['high_ms'])}",
            ms(row["device_ms"]),
            ms(row["host_ms"]),
            Text("*" if row["extrapolated"] else "", style="yellow"),
        )
    out.print(shown)
    if answer.extrapolated.any():
        out.print(Text("* extrapolated: outside what the artifact was trained on", style="yellow"))
    if not (network.known or network.points):
        note(f"measured points make this answer better: `rapp calibrate {artifact} --list 5` says which")


def _basis(network: NetworkPredictor) -> str:
    if network.points:
        return f"{len(network.points)} measured point{'s' if len(network.points) > 1 else ''}"
    return "in the artifact's training" if network.known else "new to the artifact"
