"""Heat maps as inline SVG: one rectangle a point, all of one size, however its axes are spaced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from rapp.report.axis import number
from rapp.report.scale import STEPS, Scale, thinned

LEFT, RIGHT, TOP, BOTTOM = 38, 8, 4, 32
"""Margins for ticks and labels, in user units."""
ACROSS, UP = 240, 180
"""Room for the cells; whole numbers of units for 5, 10 and 20 of them."""
MOST_HIGH = 34
LEAST_FIGURE_WIDE, LEAST_FIGURE_HIGH = 33, 12
"""Size of a cell from which on its value is written in it."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where the cells lie: columns from left to right, rows from the bottom up."""

    columns: Sequence[float]
    rows: Sequence[float]

    @property
    def wide(self) -> int:
        return max(ACROSS // len(self.columns), 1)

    @property
    def high(self) -> int:
        return max(min(UP // len(self.rows), MOST_HIGH), 3)

    @property
    def bottom(self) -> int:
        return TOP + self.high * len(self.rows)

    @property
    def size(self) -> str:
        across = max(self.wide * len(self.columns), ACROSS)
        return f"0 0 {LEFT + across + RIGHT} {self.bottom + BOTTOM}"

    @property
    def transform(self) -> str:
        """From units of one cell, the origin at the bottom left, to those of the map."""
        return f"translate({LEFT} {self.bottom}) scale({self.wide} -{self.high})"

    def corner(self, i: int, j: int) -> tuple[int, int]:
        """Left and top of a cell."""
        return LEFT + self.wide * i, self.bottom - self.high * (j + 1)


def heat_map(
    columns: Sequence[float],
    rows: Sequence[float],
    step: NDArray[np.int64],
    *,
    title: str,
    palette: str,
    labels: tuple[str, str] = ("SM partition, %", "quota, %"),
    about: Sequence[Sequence[str]] | None = None,
    figures: Sequence[Sequence[str]] | None = None,
    hatched: Mapping[str, Mask] | None = None,
    dotted: Mask | None = None,
) -> str:
    """An SVG element; C and R are the numbers of columns and rows.

    Args:
        columns, rows: what the cells stand for, ascending.
        step: the step of each cell on a `Scale`, -1 without a value, shape (C, R).
        title: what it shows, for screen readers.
        palette: `h` (viridis) or `n` (one hue).
        labels: of the two axes.
        about: a text for each cell that shows under the pointer, C lists of R. Without, cells of one
            step share a path.
        figures: a text for each cell, written in it where cells are large enough, C lists of R.
        hatched: cells that are drawn as `missing`, `skipped` or `failed`, shape (C, R) each.
        dotted: cells that are marked as derived, shape (C, R).
    """
    frame = _Frame(columns, rows)
    parts = [f'<svg class="map" viewBox="{frame.size}" role="img" aria-label="{escape(title)}">']
    parts += _cells(frame, step, palette, about)
    for name, mask in (hatched or {}).items():
        strokes = "".join(_hatch(frame, name, i, j) for i, j in np.argwhere(mask).tolist())
        if strokes:
            parts.append(f'<path class="hatch {name}" d="{strokes}"/>')
    if dotted is not None:
        parts += _dots(frame, step, dotted)
    if figures is not None and frame.wide >= LEAST_FIGURE_WIDE and frame.high >= LEAST_FIGURE_HIGH:
        parts += _figures(frame, step, palette, figures)
    return "".join([*parts, *_axes(frame, labels), "</svg>"])


def legend(scale: Scale, palette: str, *, beyond: bool = False) -> str:
    """The colours of a scale as an SVG element, with the ticks of its axis.

    Args:
        beyond: the last step holds greater values too, and says so.
    """
    axis = thinned(scale.axis, 0.11)
    wide, left, high = 28, 12, 12
    across = wide * STEPS
    right = 56 if beyond else left
    size = f'width="{left + across + right}" height="30" viewBox="0 0 {left + across + right} 30"'
    parts = [f'<svg class="map legend" {size} role="img" aria-label="{escape(scale.axis.label)}">']
    parts += [
        f'<path class="{palette}{step}" d="M{left + wide * step} 0h{wide}v{high}h-{wide}z"/>'
        for step in range(STEPS)
    ]
    for value, place in zip(axis.ticks, axis.place(axis.ticks), strict=True):
        at = left + across * place
        parts.append(f'<path class="hatch" d="M{at:.1f} {high}v3"/>')
        parts.append(f'<text x="{at:.1f}" y="{high + 13}">{number(value)}</text>')
    if beyond:
        parts.append(f'<text class="start" x="{left + across + 4}" y="{high - 2}">and more</text>')
    return "".join([*parts, "</svg>"])


def _cells(
    frame: _Frame, step: NDArray[np.int64], palette: str, about: Sequence[Sequence[str]] | None
) -> Iterator[str]:
    """Cells of one step together, in units of one cell: every byte is there 45,000 times in a large page."""
    yield f'<g class="cells" transform="{frame.transform}">'
    for value in np.unique(step).tolist():
        found = np.argwhere(step == value).tolist()
        style = f"{palette}{value}" if value >= 0 else "none"
        if about is None:
            yield f'<path class="{style}" d="{"".join(_square(i, j) for i, j in found)}"/>'
            continue
        each = (f'<path d="{_square(i, j)}"><title>{escape(about[i][j])}</title></path>' for i, j in found)
        yield f'<g class="{style}">{"".join(each)}</g>'
    yield "</g>"


def _square(i: int, j: int) -> str:
    return f"M{i} {j}h1v1H{i}z"


def _hatch(frame: _Frame, name: str, i: int, j: int) -> str:
    """A cross for `failed`, two strokes for `skipped`, one for `missing`."""
    (left, top), wide, high = frame.corner(i, j), frame.wide, frame.high
    if name == "failed":
        return f"M{left} {top}l{wide} {high}m0-{high}l-{wide} {high}"
    rising = f"M{left} {top + high}l{wide}-{high}"
    if name == "missing":
        return rising
    half = f"l{wide / 2:g}-{high / 2:g}"
    return f"{rising}M{left} {top + high / 2:g}{half}M{left + wide / 2:g} {top + high}{half}"


def _dots(frame: _Frame, step: NDArray[np.int64], dotted: Mask) -> Iterator[str]:
    """In a corner where the cell is large, so that its value can be read."""
    across = 5.0 if frame.wide >= LEAST_FIGURE_WIDE else frame.wide / 2
    down = 4.5 if frame.wide >= LEAST_FIGURE_WIDE else frame.high / 2
    for ink, mask in (("on-low", step < STEPS // 2), ("on-high", step >= STEPS // 2)):
        corners = (frame.corner(i, j) for i, j in np.argwhere(dotted & mask).tolist())
        path = "".join(f"M{left + across:g} {top + down:g}h0" for left, top in corners)
        if path:
            yield f'<path class="derived {ink}" d="{path}"/>'


def _figures(
    frame: _Frame, step: NDArray[np.int64], palette: str, figures: Sequence[Sequence[str]]
) -> Iterator[str]:
    yield f'<g class="figures {palette}">'
    for i, j in np.argwhere(step >= 0).tolist():
        left, top = frame.corner(i, j)
        ink = "on-low" if step[i, j] < STEPS // 2 else "on-high"
        place = f'x="{left + frame.wide / 2:g}" y="{top + frame.high / 2 + 3.5:g}"'
        yield f'<text class="{ink}" {place}>{escape(figures[i][j])}</text>'
    yield "</g>"


def _axes(frame: _Frame, labels: tuple[str, str]) -> Iterator[str]:
    """Ticks from the last column and the top row on, as many as there is room for, and the labels."""
    for i in range(len(frame.columns) - 1, -1, -max(-(-24 // frame.wide), 1)):
        at = LEFT + frame.wide * (i + 0.5)
        yield f'<text x="{at:g}" y="{frame.bottom + 12}">{frame.columns[i]:g}</text>'
    for j in range(len(frame.rows) - 1, -1, -max(-(-11 // frame.high), 1)):
        at = frame.bottom - frame.high * (j + 0.5) + 3.5
        yield f'<text class="end" x="{LEFT - 4}" y="{at:g}">{frame.rows[j]:g}</text>'
    across, up = LEFT + frame.wide * len(frame.columns) / 2, (TOP + frame.bottom) / 2
    yield f'<text class="label" x="{across:g}" y="{frame.bottom + 26}">{escape(labels[0])}</text>'
    turned = f'transform="rotate(-90 8 {up:g})"'
    yield f'<text class="label" x="8" y="{up:g}" {turned}>{escape(labels[1])}</text>'
