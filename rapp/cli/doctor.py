"""`rapp doctor`: what works on this machine, and the next action for what does not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rapp.doctor_check import Check

# rich and the checks load inside the functions, so that `rapp --help` stays fast.

_COLOURS = {"ok": "green", "missing": "yellow", "problem": "bold red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
    gpu: Annotated[
        bool | None,
        typer.Option(
            "--gpu/--no-gpu",
            help="Try things out on each GPU, or do not: CUDA, a network, SM partitions, clocks."
            " Default: if there is a GPU.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Tell what works here: ONNX Runtime, training, GPUs, MPS; with the next action for the rest.

    What killed commands left on a GPU (an MPS daemon, locked clocks) is undone.

    Exit code 2 when something is broken; what is only missing gives 0.
    """
    from rapp.doctor import examine, exit_code

    checks = examine(gpu)
    if as_json:
        content = {"version": 1, "checks": [asdict(check) for check in checks]}
        typer.echo(json.dumps(content, indent=2))
    else:
        print_checks(checks)
    raise typer.Exit(exit_code(checks))


def print_checks(checks: Sequence[Check]) -> None:
    """Print a table that fits the terminal (80 columns where there is none), the problems counted below."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("check", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("found, and what to do")
    for check in checks:
        found = Text(check.found)
        if check.action:
            found.append(f" → {check.action}", style="cyan")
        table.add_row(check.name, Text(check.state, style=_COLOURS[check.state]), found)
    console = Console(highlight=False)
    console.print(table)
    console.print(_verdict(checks))


def _verdict(checks: Sequence[Check]) -> str:
    count = {state: sum(check.state == state for check in checks) for state in _COLOURS}
    return f"{count['ok']} ok, {count['missing']} missing, {count['problem']} to repair"
