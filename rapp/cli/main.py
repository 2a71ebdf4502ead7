"""Entry point of `rapp`: collects the commands and turns expected outcomes into one line and exit code 2."""

from __future__ import annotations

import os
import select
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from rapp import __version__
from rapp.cli import (
    autoscale,
    calibrate,
    doctor,
    evaluate,
    forecast,
    graph,
    live,
    load,
    predict,
    profile,
    profiles,
    recommend,
    replay,
    serve,
    train,
)
from rapp.errors import RappError


class _Commands(TyperGroup):
    """Ends an interrupted run and a run without a reader, before Typer does so without a word or a code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            sys.exit(130)
        except BrokenPipeError as error:
            if not _output_has_no_reader():
                raise RuntimeError("a pipe broke that is not the output of this command") from error
            # `rapp ... | head` is not our error. What is still buffered goes nowhere, or Python would
            # complain of it at exit; 141 is what a shell shows for a program that SIGPIPE ended.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)


def _output_has_no_reader() -> bool:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # errors and hang-ups are reported unasked
    return bool(poll.poll(0))


app = typer.Typer(
    cls=_Commands,
    name="rapp",
    help="Predict DNN inference latency over SM partition, time quota and batch.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(profiles.app, name="profiles")
app.command("profile")(profile.profile)
app.command("graph")(graph.graph)
app.command("predict")(predict.predict)
app.command("calibrate")(calibrate.calibrate)
app.command("recommend")(recommend.recommend_command)
app.command("evaluate")(evaluate.evaluate)
app.command("train")(train.train)
app.command("tune")(train.tune)
app.command("export")(train.export)
app.command("ui")(train.ui)
app.add_typer(forecast.app, name="forecast")
app.command("serve")(serve.serve)
app.command("replay")(replay.replay)
app.command("load")(load.load)
app.command("live")(live.live)
app.command("autoscale")(autoscale.autoscale)
app.command("doctor")(doctor.doctor)


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
        console = Console(stderr=True, soft_wrap=True)
        console.print("error:", message, style="red", markup=False, highlight=False, emoji=False)
        sys.exit(2)
