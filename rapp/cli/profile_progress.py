"""What `rapp profile` shows while it measures: a bar on a terminal, lines elsewhere; all on stderr."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from profiler.campaign import Brake, Watcher
from profiler.outcome import Outcome, Status
from profiler.plan import Point
from rapp.cli.tables import console

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

LINE_EVERY_S = 10.0
"""Between lines where there is no terminal."""

MOST_FAILURES = 20
"""Failed points with a line of their own."""


class Progress(Watcher):
    """Counts what happens and shows it.

    Args:
        total: points of the campaign.
        done: outcomes of earlier runs.
        brake: says whether the campaign is about to stop.
        at_most: the total is an upper bound.

    `tried` counts the points of this run, `virtual_s` their cost.
    """

    def __init__(self, total: int, done: Iterable[Outcome], brake: Brake, *, at_most: bool = False) -> None:
        self._total, self._brake, self._at_most = total, brake, at_most
        self._counts = Counter(outcome.status.value for outcome in done)
        self.tried = 0
        self._failures = 0
        self.virtual_s = 0.0
        self._started_s = self._told_s = time.monotonic()
        self._point: Point | None = None
        self._out: Console = console(stderr=True)
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show it while the campaign runs."""
        if not self._out.is_terminal:
            self._out.print(self._line(), markup=False, soft_wrap=True)
            yield
            return
        from rich.live import Live

        with Live(
            console=self._out, get_renderable=self._render, refresh_per_second=4, transient=True
        ) as self._live:
            yield

    def begin(self, point: Point) -> None:
        """As `Watcher.begin`."""
        self._point = point

    def ended(self, outcome: Outcome) -> None:
        """As `Watcher.ended`; a point that was tried and failed is a line of its own."""
        self._counts[outcome.status.value] += 1
        if outcome.stage is not None:
            self._failures += 1
            if self._failures <= MOST_FAILURES:
                self._tell(f"failed: {outcome.point}: {outcome.reason}")
            elif self._failures == MOST_FAILURES + 1:
                self._tell("more points failed: the table has the reason of each")
        if outcome.started_at is not None:
            self.tried += 1
            self.virtual_s += outcome.seconds
        if self._live is None and time.monotonic() - self._told_s >= LINE_EVERY_S:
            self._told_s = time.monotonic()
            self._out.print(self._line(), markup=False, soft_wrap=True)

    def _tell(self, text: str) -> None:
        self._out.print(text, style="yellow", markup=False, soft_wrap=True)

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self._started_s

    @property
    def _done(self) -> int:
        return sum(self._counts.values())

    def _left(self) -> str:
        """The time left at the pace of this run; empty before the first point."""
        if self._brake.halt is not None:
            return "stopping after this point"
        if not self.tried:
            return ""
        left_s = self.seconds / self.tried * max(self._total - self._done, 0)
        return f"{duration(left_s)} left" if not self._at_most else f"at most {duration(left_s)} left"

    def _line(self) -> str:
        counts = [
            f"{self._counts[status.value]:,} {status.value}"
            for status in Status
            if self._counts[status.value]
        ]
        point = str(self._point) if self._point is not None else ""
        parts = [f"{self._done:,} of {self._total:,} points", *counts, self._left(), point]
        return " · ".join(part for part in parts if part)

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        bar = Table.grid(padding=(0, 1))
        counts = Text(f"{self._counts['ok']:,} ok", style="green")
        if self._counts["failed"]:
            counts.append(f" {self._counts['failed']:,} failed", style="red")
        if self._counts["skipped"]:
            counts.append(f" {self._counts['skipped']:,} skipped", style="yellow")
        bar.add_row(
            ProgressBar(total=max(self._total, 1), completed=self._done, width=20),
            f"{self._done:,}/{self._total:,}",
            counts,
            Text(self._left(), style="cyan"),
        )
        return Group(bar, Text(str(self._point or ""), style="dim", no_wrap=True, overflow="ellipsis"))


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
