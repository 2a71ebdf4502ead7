"""`rapp profiles`: import, check and show profile tables."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from rapp.errors import ConfigError

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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Show the networks of a table: coverage of the grid, range of latency, and noise.

    Noise is the mean deviation of a point from the line through its two
    neighbouring SM partitions, from SM 50 % on: a proxy for the error of
    repeating a measurement.
    """
    from rapp.profiles import ProfileTable
    from rapp.profiles.summary import summarise

    table = ProfileTable.read(file)
    summaries = summarise(table)
    if as_json:
        from rapp.profiles.summary import summary_json

        typer.echo(json.dumps(summary_json(table, summaries), indent=2))
        return
    from rapp.profiles.view import print_summaries

    print_summaries(table, summaries)
