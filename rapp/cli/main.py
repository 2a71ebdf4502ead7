"""Entry point of `rapp`: collects the commands and turns expected outcomes into one line and exit code 2."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from rich.console import Console

from rapp import __version__
from rapp.cli import graph, profiles
from rapp.errors import RappError

app = typer.Typer(
    name="rapp",
    help="Predict DNN inference latency over SM partition, time quota and batch.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(profiles.app, name="profiles")
app.command("graph")(graph.graph)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"rapp {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run `rapp`. An expected outcome prints one line and exits with 2; a bug keeps its traceback."""
    try:
        app()
    except RappError as error:
        message = " ".join(str(error).split())
        Console(stderr=True, soft_wrap=True).print("error:", message, style="red", markup=False, highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output went away (`rapp ... | head`): not our error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
