"""`rapp load`: send a trace to a server, and see how it does."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rapp.cli.tables import console, ms, note, table

if TYPE_CHECKING:
    from scaler.live.load import LoadProgress
    from scaler.live.load_report import LoadFigures, LoadReport

# numpy and the scaler load inside the function, so that `rapp --help` stays fast.


def load(
    trace: Annotated[
        Path, typer.Option(help="A trace, *.csv, *.json or *.json#workload.", show_default=False)
    ],
    url: Annotated[str, typer.Option(help="The server, http://HOST:PORT.")] = "http://127.0.0.1:8000",
    function: Annotated[
        list[str] | None,
        typer.Option(
            help="A function to send to; repeat it. Default: those of the trace.", show_default=False
        ),
    ] = None,
    scale: Annotated[float, typer.Option(help="How many times as many requests.")] = 1.0,
    arrivals: Annotated[
        str, typer.Option(help="How they come at a given rate: even or poisson.")
    ] = "poisson",
    seed: Annotated[int, typer.Option(min=0, help="Of the arrivals and inputs.")] = 0,
    from_s: Annotated[
        float | None,
        typer.Option("--from", help="Begin of the part to use, s of the file.", show_default=False),
    ] = None,
    to_s: Annotated[
        float | None, typer.Option("--to", help="End of the part to use, s of the file.", show_default=False)
    ] = None,
    timeout_ms: Annotated[float, typer.Option(help="A request without an answer ends then, ms.")] = 10_000.0,
    slo_ms: Annotated[
        list[str] | None,
        typer.Option(help="Objective, ms: 60, or NAME=60; repeat it.", show_default=False),
    ] = None,
    connections: Annotated[int, typer.Option(min=1, help="At most so many at once.")] = 1024,
    out: Annotated[
        Path | None, typer.Option(help="CSV with a row for each request.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Send a trace to a server, open loop.

    Each request leaves when it is due, whether those before are answered or
    not, and its latency counts from then. It speaks KServe's protocol v2 with
    binary tensors, of shapes that the server tells. A violation is a request
    answered after the objective, or not at all. Ctrl-C ends it early and
    prints what there is.
    """
    from rapp.errors import ConfigError
    from scaler.live.load import LoadOptions, run_load
    from scaler.live.load_plan import functions_of, objectives
    from scaler.trace import ArrivalProcess, Trace

    if arrivals not in tuple(ArrivalProcess):
        raise ConfigError(f"--arrivals {arrivals}: it is even or poisson")
    used = Trace.read(trace).window(from_s, to_s).scaled(scale)
    names = functions_of(used, function or [])
    report = run_load(
        url,
        {
            name: used.arrivals([*used.functions, *names], ArrivalProcess(arrivals), seed)[name]
            for name in names
        },
        used.duration_s,
        slo_ms=objectives(slo_ms or [], names),
        options=LoadOptions(timeout_ms=timeout_ms, connections=connections, seed=seed),
        on_progress=_show if sys.stderr.isatty() else None,
    )
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    if out is not None:
        report.records.write_csv(out)
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2))
    else:
        _print(report, f"{trace.name} to {url}")
    if report.warning is not None:
        note(report.warning)
    if report.interrupted:
        note(f"interrupted after {report.records.intended_s[-1] if len(report.records) else 0:.1f} s")
        raise typer.Exit(130)


def _show(now: LoadProgress) -> None:
    # One plain line: a bar that draws itself would take the processor from the requests.
    line = (
        f"{now.passed_s:,.0f} of {now.duration_s:,.0f} s · {now.sent:,} sent · {now.answered:,} answered"
        f" · {now.refused:,} refused · {now.failed:,} failed · {now.in_flight:,} on the way"
    )
    sys.stderr.write(f"\r\033[K{line[:79]}")
    sys.stderr.flush()


def _print(report: LoadReport, title: str) -> None:
    from rich.text import Text

    out = console()
    total = report.total
    out.print(Text(title, style="bold"))
    made = table("function", "requests", "answered", "violations", "p50", "p95", "p99", "max", "of")
    rows = dict(report.functions)
    if len(rows) > 1:
        rows["all"] = total
    for name, one in rows.items():
        made.add_row(
            name[:20],
            f"{one.requests:,}",
            f"{one.answered:,}",
            f"{100 * one.violation_share:.2f} %",
            *("-" if value is None else ms(value) for value in _latencies(one)),
        )
    out.print(made)
    out.print("latencies of answers in ms, from the intended send time; `of`: the objective")
    problems = ([f"{total.refused:,} refused (429)"] if total.refused else []) + [
        f"{count:,} {kind if not kind.isdigit() else f'answered with {kind}'}"
        for kind, count in total.errors.items()
    ]
    if total.unfinished:
        problems.append(f"{total.unfinished:,} unfinished when it was stopped")
    out.print(f"not answered: {', '.join(problems) or 'none'}", soft_wrap=True)
    out.print(
        f"rate: {total.intended_rps:,.1f} rps intended, {total.sent_rps:,.1f} sent,"
        f" {total.answered_rps:,.1f} answered"
    )
    lags = [report.lag_p50_ms, report.lag_p99_ms, report.lag_max_ms]
    shown = ", ".join("-" if lag is None else f"{lag:.2f}" for lag in lags)
    out.print(f"sent late by {shown} ms (p50, p99, max); generator: {report.cpu_cores:.2f} cores")


def _latencies(one: LoadFigures) -> list[float | None]:
    return [one.p50_ms, one.p95_ms, one.p99_ms, one.max_ms, one.slo_ms]
