"""`rapp profiles`: import, check and show profile tables."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rapp.cli.progress import stages
from rapp.cli.tables import console
from rapp.errors import ConfigError

if TYPE_CHECKING:
    from rapp.profiles import ProfileTable

# pyarrow loads inside the functions, so that `rapp --help` stays fast.

app = typer.Typer(help="Import, check and show profile tables.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="A profile table, *.parquet.", show_default=False)]


@app.command("import-has-gpu")
def import_has_gpu(
    src: Annotated[
        Path, typer.Argument(help="A clone of KontonGu/RaPP, or the data folder in it.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The profile table to write.", show_default=False)],
    graphs: Annotated[
        Path | None,
        typer.Option(help="Folder of <network>.onnx, for graph_hash; null without.", show_default=False),
    ] = None,
    networks: Annotated[
        str | None, typer.Option(help="Import these alone: a,b,c.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing table.")] = False,
) -> None:
    """Import the public V100 profiles of HAS-GPU.

    Writes --out whole or not at all, and refuses to replace it without --force.
    Incomplete networks are kept and named.
    """
    if out.is_dir():
        raise ConfigError(f"{out} is a folder: --out names the file to write")
    if not force and os.path.lexists(out):
        raise ConfigError(f"{out} exists: give --force to replace it, or another --out")
    names = None if networks is None else [name.strip() for name in networks.split(",") if name.strip()]
    from rapp.profiles import has_gpu

    table = has_gpu.import_has_gpu(src, graphs, names)
    table.write(out)
    typer.echo(
        f"{out}: {len(table):,} points of {len(table.networks())} networks; rows hash {table.rows_hash()}"
    )


@app.command()
def check(file: File) -> None:
    """Check a table: its format, and every value. Exit code 2 names the first row that is wrong."""
    from rapp.profiles import ProfileTable

    table = ProfileTable.read(file)
    typer.echo(
        f"{file}: valid; {len(table):,} rows, {len(table.networks())} networks; rows hash {table.rows_hash()}"
    )


@app.command()
def show(
    file: File,
    networks: Annotated[str | None, typer.Option(help="Show these alone: a,b,c.", show_default=False)] = None,
    network: Annotated[
        str | None,
        typer.Option(help="Draw the latency of this network over SM and quota.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML report with plots.", show_default=False)
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Write a PNG a network into this folder; needs matplotlib.", show_default=False),
    ] = None,
) -> None:
    """Show a table: its campaigns; coverage, latency and noise of its networks.

    Noise is the half-width of the median's confidence interval where most
    points have one, or else their median absolute deviation, both relative to
    the median. Without either it is the mean deviation of a point from the
    line through its two neighbouring SM partitions, from SM 50 % on: a proxy
    for the error of repeating a measurement.
    """
    from rapp.profiles import ProfileTable
    from rapp.profiles.summary import chosen, summarise

    table = ProfileTable.read(file)
    if networks is not None:
        table = chosen(table, [name.strip() for name in networks.split(",") if name.strip()])
    if network is not None:
        table = chosen(table, [network])
    summaries = summarise(table)
    if report:
        from rapp.fileio import atomic_path
        from rapp.report.profiles import profiles_html

        with atomic_path(report) as temporary:
            temporary.write_text(profiles_html(table, summaries), "utf-8")
    if plot:
        from rapp.report.profiles_png import write_profile_pngs

        with stages() as progress:
            write_profile_pngs(table, plot, lambda done, total: progress("plots", done, total, math.nan))
    if as_json:
        from rapp.profiles.summary import summary_json

        typer.echo(json.dumps(summary_json(table, summaries), indent=2))
        return
    if network is not None:
        _print_maps(table)
    else:
        from rapp.profiles.view import print_summaries

        print_summaries(table, summaries)
    for written in filter(None, (report, plot)):
        console().print(f"written: {written}", markup=False, soft_wrap=True)


def _print_maps(table: ProfileTable) -> None:
    """A map of the latency of the table's one network, for each setting."""
    from rich.text import Text

    from rapp.profiles.cells import cells
    from rapp.profiles.summary import settings
    from rapp.report.terminal import print_latency_map

    out = console()
    for setting, rows in settings(table):
        out.print(Text(" · ".join((*table.networks(), *setting.values())), style="bold"))
        for one in cells(rows):
            print_latency_map(out, one, one.values(rows.column("latency_ms")))
