"""Progress of long work in stages: a bar each, with the time left and the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rapp.cli.tables import console


@contextmanager
def stages() -> Iterator[Callable[[str, int, int, float], None]]:
    """Yield a function (stage, done, total, loss) that shows how far each stage is; NaN is no loss.

    On stderr, from the first call on: a command that fails before has its one line alone.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:24}"), BarColumn(bar_width=20), MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    progress = Progress(*columns, console=console(stderr=True))
    tasks: dict[str, TaskID] = {}

    def show(stage: str, done: int, total: int, loss: float) -> None:
        progress.start()
        if stage not in tasks:
            # A resumed stage begins where it was: what was done before says nothing of the pace.
            tasks[stage] = progress.add_task(stage, total=total, completed=max(done - 1, 0), note="")
        progress.update(tasks[stage], completed=done, note="" if loss != loss else f"loss {loss:.4f}")

    try:
        yield show
    finally:
        if tasks:
            progress.stop()
