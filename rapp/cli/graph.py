"""`rapp graph`: what a network computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rapp.errors import ConfigError

# onnx loads inside the function, so that `rapp --help` stays fast.


def graph(
    file: Annotated[Path, typer.Argument(help="An ONNX file; it may lack its weights.", show_default=False)],
    batch: Annotated[
        int | None, typer.Option(min=1, help="Requests executed together; default: the file's, or 1.")
    ] = None,
    dim: Annotated[
        list[str] | None,
        typer.Option(help="Number for an open dimension that is not the batch: seq=128. May be repeated."),
    ] = None,
    top: Annotated[int, typer.Option(min=0, help="How many of the heaviest operators to show.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Show a network's operators: how many of each type, multiply-adds, bytes, hash.

    Multiply-adds are those of convolutions and matrix products. Left out is what
    a runtime settles before it runs: constants, arithmetic on shapes.
    """
    dims = dict(_dim(entry) for entry in dim or [])
    from rapp.graph import OperatorGraph
    from rapp.graph.view import print_summary, summary

    network = OperatorGraph.from_onnx(file, dims=dims)
    chosen = batch or network.fixed_batch or 1
    if as_json:
        typer.echo(json.dumps(summary(network, chosen, top), indent=2))
    else:
        print_summary(network, chosen, top)


def _dim(entry: str) -> tuple[str, int]:
    name, _, number = entry.partition("=")
    if not name or not number.isdecimal() or int(number) < 1:
        raise ConfigError(f"--dim {entry}: write it as name=number, such as seq=128")
    return name, int(number)
