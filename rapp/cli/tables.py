"""How the commands write tables and figures on a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# rich loads inside the functions, so that `rapp --help` stays fast.


def console(*, stderr: bool = False) -> Console:
    """A console that neither colours figures on its own nor makes a picture of `:100:`."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, stderr=stderr)


def table(*columns: str, left: tuple[int, ...] = (0,)) -> Table:
    """A table without a frame; figures to the right, the columns at `left` to the left.

    On a narrow terminal what is to the left is folded, so that figures are whole.
    """
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, name in enumerate(columns):
        if place in left:
            made.add_column(name, justify="left", overflow="fold")
        else:
            made.add_column(name, justify="right", no_wrap=True)
    return made


def ms(value: float) -> str:
    """Milliseconds with three digits that count: `0.512`, `5.12`, `51.2`, `512`, `5,120`."""
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"


def note(text: str) -> None:
    """A line on stderr, so that what a program reads from stdout stays clean."""
    console(stderr=True).print(text, style="yellow", markup=False, soft_wrap=True)
