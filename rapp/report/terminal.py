"""Heat maps of a network's latency on a terminal: in colour where it has 256 colours, else in digits.

    batch 1                  batch 8
     100 5544332211000000     100 9887766554433222
      50 7766554433222222      50 9988877766555444
         5            100         5            100

Where the cells are few, their latencies are written in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from rapp.profiles.cells import Cells, State
from rapp.report.axis import number
from rapp.report.scale import STEPS, VIRIDIS, Scale, latency_scale
from rapp.types import FloatArray

LABEL, GAP, FIGURE = 5, 2, 6
"""Columns of the quota before a line, between two maps, and of a cell with its latency."""
_SIGNS = {State.MISSING: "-", State.SKIPPED: "s", State.FAILED: "x", State.DERIVED: "·"}
# Terminals are mostly dark: bright is slow.
_COLOURS = VIRIDIS[::-1]


@dataclass(frozen=True, slots=True)
class _Style:
    """How the maps are drawn: with colour or not, columns a cell, every how many-th SM partition."""

    colour: bool
    wide: int
    every: int

    def width(self, count: int) -> int:
        """Columns of a map of `count` SM partitions."""
        return LABEL + self.wide * -(-count // self.every)


def print_latency_map(console: Console, cells: Cells, latency_ms: FloatArray) -> None:
    """Print a map over SM partition and quota for each batch, and what its colours or digits mean.

    Args:
        latency_ms: mean latency on the grid of `cells`, shape (S, Q, B), NaN where there is none.
    """
    if not cells.known.any():
        console.print(Text(f"{cells.network}: no point has a latency", style="yellow"))
        return
    count, batches = len(cells.grid.sm_pct), len(cells.grid.batch)
    style = _style(console, count, batches)
    scale = latency_scale(latency_ms[cells.known])
    maps = [_map(cells, latency_ms, batch, scale, style) for batch in range(batches)]
    step = style.width(count) + GAP
    across = max((console.width + GAP) // step, 1)
    across = -(-batches // -(-batches // across))  # four maps where three fit become two lines of two
    for first in range(0, batches, across):
        for lines in zip(*maps[first : first + across], strict=True):
            console.print(_beside(lines, step), soft_wrap=True)
    if style.colour or style.wide < FIGURE:
        console.print(_legend(scale, style.colour))
    for note in _notes(cells, style):
        console.print(Text(note))


def _style(console: Console, count: int, batches: int) -> _Style:
    """The widest cells that leave room for two maps side by side, or for the only one."""
    colour = console.color_system in ("truecolor", "256")
    side_by_side = min(batches, 2)
    for wide in (FIGURE, 2, 1):
        if side_by_side * (LABEL + wide * count + GAP) - GAP <= console.width:
            return _Style(colour, wide, 1)
    return _Style(colour, 1, max(-(-count // max(console.width - LABEL, 1)), 1))


def _map(cells: Cells, latency_ms: FloatArray, batch: int, scale: Scale, style: _Style) -> list[Text]:
    """A heading, a line a quota from the greatest down, and the axis."""
    sms, quotas = cells.grid.sm_pct[:: style.every], cells.grid.quota_pct
    values, state = latency_ms[:: style.every, :, batch], cells.state[:: style.every, :, batch]
    step = scale.step(values)
    lines = [Text(f"batch {cells.grid.batch[batch]}", style="bold")]
    for j in reversed(range(len(quotas))):
        line = Text(f"{quotas[j]:>{LABEL - 1}g} ")
        for i in range(len(sms)):
            line.append_text(_cell(State(state[i, j]), float(values[i, j]), int(step[i, j]), style))
        lines.append(line)
    if style.wide == FIGURE:
        axis = "".join(f"{sm:>{FIGURE}g}" for sm in sms)
    else:
        low, high = f"{sms[0]:g}", f"{sms[-1]:g}"
        axis = low.ljust(max(style.wide * len(sms) - len(high), len(low) + 1)) + high if len(sms) > 1 else low
    lines.append(Text(" " * LABEL + axis, style="dim"))
    return lines


def _cell(state: State, latency_ms: float, step: int, style: _Style) -> Text:
    if step < 0:
        sign = state.name.lower()[:4].rjust(FIGURE) if style.wide == FIGURE else _SIGNS[state] * style.wide
        return Text(sign, style="red" if state == State.FAILED else "dim")
    if style.wide == FIGURE:
        text = f"{latency_ms:.{2 if latency_ms < 10 else 1 if latency_ms < 100 else 0}f}"
        text = (f"·{text}" if state == State.DERIVED else text).rjust(FIGURE)
    elif style.colour:
        text = ("·" if state == State.DERIVED else " ").ljust(style.wide)
    else:
        text = f"{step}" * style.wide
    ink = "black" if step >= STEPS // 2 else "white"
    return Text(text, style=f"{ink} on {_COLOURS[step]}" if style.colour else "")


def _beside(lines: Sequence[Text], step: int) -> Text:
    line = Text()
    for index, part in enumerate(lines):
        line.append_text(part)
        if index < len(lines) - 1:
            line.append(" " * (step - len(part)))
    return line


def _legend(scale: Scale, colour: bool) -> Text:
    edges = [number(float(f"{edge:.3g}")) for edge in scale.edges()]
    if colour:
        line = Text(f"{edges[0]} ms ")
        for shade in _COLOURS:
            line.append("  ", style=f"on {shade}")
        return line.append(f" {edges[-1]} ms, logarithmic")
    steps = [f"{step} to {edge}" for step, edge in enumerate(edges[1:])]
    half = len(steps) // 2
    return Text(f"ms: {', '.join(steps[:half])},\n    {', '.join(steps[half:])}")


def _notes(cells: Cells, style: _Style) -> list[str]:
    latency = "latency, ms; " if style.wide == FIGURE else ""
    alone = "" if style.every == 1 else f" (one in {style.every} is shown)"
    notes = [f"{latency}across: SM partition, %{alone}; up: time quota, %"]
    derived, known = int((cells.state == State.DERIVED).sum()), int(cells.known.sum())
    if derived:
        marked = ", marked ·" if style.colour or style.wide == FIGURE else ""
        notes.append(f"{derived:,} of {known:,} points are derived{marked}")
    signs = [
        f"{sign} {state.name.lower()}"
        for state, sign in _SIGNS.items()
        if state != State.DERIVED and (cells.state == state).any()
    ]
    return [*notes, ", ".join(signs)] if signs and style.wide < FIGURE else notes
