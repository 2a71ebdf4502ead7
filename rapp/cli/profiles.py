"""`rapp profiles`: import, check and show profile tables."""

from __future__ import annotations

import typer

app = typer.Typer(help="Import, check and show profile tables.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass
