"""`rapp recommend`: the cheapest configurations for a latency objective."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rapp.cli.loading import Artifact, Calibration, Network, grid_of, load
from rapp.cli.ranges import batches, percents
from rapp.cli.tables import console, ms, note, table
from rapp.errors import ConfigError
from rapp.fileio import atomic_path
from rapp.recommend import Choice, Objective, Recommendation, Risk, recommend
from rapp.types import QuotaKind

if TYPE_CHECKING:
    from rich.table import Table

# onnx, onnxruntime, jinja2 and matplotlib load inside the function, so that `rapp --help` stays fast.

MOST_FRONT = 8
"""Points of the Pareto front on the terminal; plot, report and --json have them all."""


def recommend_command(
    artifact: Artifact,
    network: Network,
    slo_ms: Annotated[
        float, typer.Option(help="Objective for batching and execution, ms.", show_default=False)
    ],
    rps: Annotated[float, typer.Option(help="Load, requests a second.", show_default=False)],
    risk: Annotated[
        Risk, typer.Option(help="Which latency has to meet it: the mean, or its interval's upper end.")
    ] = Risk.MEAN,
    utilisation: Annotated[float, typer.Option(help="Largest busy share of an instance, in (0, 1].")] = 0.8,
    sm: Annotated[str, typer.Option(help="SM partitions to choose from, %.")] = "5:100:5",
    quota: Annotated[str, typer.Option(help="Time quotas to choose from, %.")] = "10:100:10",
    batch: Annotated[str | None, typer.Option(help="Batches to choose from.", show_default="1,2,4,8")] = None,
    calibration: Calibration = None,
    quota_kind: Annotated[
        QuotaKind, typer.Option(help="The law of the quota; launch_gate gives no fair price.")
    ] = QuotaKind.GPU_TIME,
    top: Annotated[int, typer.Option(min=1, help="How many configurations to show.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Write the Pareto front as .svg or .png.", show_default=False)
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report.", show_default=False)] = None,
) -> None:
    """Find the cheapest configurations that meet a latency objective under a load.

    A configuration is priced by the GPU share of the instances that the load
    needs: n x SM x quota, with n = ceil(rps x L / (1000 batch x utilisation))
    and L the latency of a batch, of gpu_time quotas unless told otherwise.
    A request takes the time until its batch is full, plus L. Waiting behind
    uneven arrivals is not in it. Exit code 2 if no configuration meets the
    objective; the message names the nearest.
    """
    objective = Objective(slo_ms, rps, risk, utilisation)
    axes = percents(sm, "--sm"), percents(quota, "--quota")
    chosen = None if batch is None else batches(batch, "--batch")
    if plot and plot.suffix.lower() not in (".svg", ".png"):
        raise ConfigError(f"--plot {plot}: its name must end in .svg or .png")
    predictor, answering = load(artifact, network, calibration)
    grid = grid_of(answering, *axes, chosen, default=(1, 2, 4, 8))
    found = recommend(answering, objective, grid, top=top, quota_kind=quota_kind)
    if quota_kind == QuotaKind.LAUNCH_GATE:
        note("warning: a launch_gate quota does not limit device time: these shares are no price")
    if plot:
        _write_plot(found, plot)
    if report:
        from rapp.report.recommendation import recommendation_html

        with atomic_path(report) as temporary:
            page = recommendation_html(found, artifact=str(artifact), device=predictor.card.device)
            temporary.write_text(page, "utf-8")
    if as_json:
        typer.echo(json.dumps(_content(found, predictor.card.device), indent=2))
    else:
        _print(found, predictor.card.device)
        for written in filter(None, (plot, report)):
            console().print(f"written: {written}", markup=False, soft_wrap=True)


def _write_plot(found: Recommendation, plot: Path) -> None:
    with atomic_path(plot) as temporary:
        if plot.suffix.lower() == ".png":
            from rapp.report.png import write_front_png

            write_front_png(found, temporary)
        else:
            from rapp.report.recommendation import front_svg

            temporary.write_text(front_svg(found, alone=True), "utf-8")


def _content(found: Recommendation, device: str) -> dict[str, Any]:
    return {
        "version": 1,
        "network": found.network,
        "device": device,
        "objective": asdict(found.objective),
        "quota_kind": found.quota_kind.value,
        "configurations": len(found.options),
        "meeting": int(found.options.meets.sum()),
        "choices": [_flat(one) for one in found.choices],
        "pareto_front": [
            _flat(one) | {"meets": one.request_ms <= found.objective.slo_ms} for one in found.front
        ],
    }


def _flat(one: Choice) -> dict[str, Any]:
    content = asdict(one)
    config: dict[str, Any] = content.pop("config")
    return config | content


def _print(found: Recommendation, device: str) -> None:
    from rich.text import Text

    out, objective = console(), found.objective
    best = found.best
    out.print(Text(f"{found.network} on {device}", style="bold"))
    bound = "upper end of the 90 % interval" if objective.risk == Risk.UPPER else "mean latency"
    asked = f"{objective.rps:g} requests/s within {objective.slo_ms:g} ms"
    out.print(Text(f"{asked} · {bound} · {found.quota_kind.value} quota"))
    meeting = f"{int(found.options.meets.sum()):,} of {len(found.options):,} configurations meet it"
    out.print(Text(f"{meeting}; the cheapest sets aside {best.gpu_share:.2f} GPUs", style="green"))
    out.print(_table(list(found.choices), objective.slo_ms))

    front = _thinned(list(found.front), best)
    shown = f"{len(front)} of {len(found.front)} points" if len(front) < len(found.front) else "all points"
    out.print(Text(f"Pareto front of GPU share against latency ({shown})", style="bold"))
    out.print(_table(front, objective.slo_ms))
    out.print("n instances; request = fill (until its batch is full) + execution, ms")
    if any(one.extrapolated for one in (*found.choices, *front)):
        out.print(Text("* extrapolated: outside what the artifact was trained on", style="yellow"))
    if any(one.request_ms > objective.slo_ms for one in front):
        out.print(Text("dim: misses the objective", style="dim"))


def _table(choices: list[Choice], slo_ms: float) -> Table:
    from rich.text import Text

    made = table("SM %", "quota %", "batch", "n", "GPUs", "cores", "request", "fill", "mean", "90 %, ms",
                 left=())  # fmt: skip
    for one in choices:
        made.add_row(
            f"{one.config.sm_pct:g}",
            f"{one.config.quota_pct:g}",
            f"{one.config.batch}",
            f"{one.instances}",
            Text(f"{one.gpu_share:.2f}", style="bold"),
            f"{one.host_cores:.1f}",
            ms(one.request_ms),
            ms(one.fill_ms) if one.fill_ms else "-",
            ms(one.mean_ms),
            f"{ms(one.low_ms)}-{ms(one.high_ms)}{'*' if one.extrapolated else ' '}",
            style="dim" if one.request_ms > slo_ms else "",
        )
    return made


def _thinned(front: list[Choice], best: Choice) -> list[Choice]:
    """At most `MOST_FRONT` points, spread evenly over the front, the best among them."""
    if len(front) <= MOST_FRONT:
        return front
    step = (len(front) - 1) / (MOST_FRONT - 1)
    places = {round(index * step) for index in range(MOST_FRONT)}
    own = next((place for place, one in enumerate(front) if one.config == best.config), None)
    if own is not None and own not in places:
        inner = places - {0, len(front) - 1}
        places = (places - {min(inner, key=lambda place: abs(place - own))}) | {own}
    return [front[place] for place in sorted(places)]
