"""A plot as inline SVG: a few marks, styled by the page's CSS, so that it follows a light or dark theme.

A plotting library would bring an extra, half a megabyte a scatter plot, and colours of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from numpy.typing import ArrayLike

from rapp.report.axis import Axis, number
from rapp.types import FloatArray

LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 42
"""Margins for ticks and labels, in user units."""

COLOURS = """
--ink:#1d2329; --muted:#66717c; --line:#e3e6e9; --panel:#ffffff; --accent:#2b6cd4; --warm:#c96a12;
"""
STYLE = """
svg.plot { font: 11px system-ui, -apple-system, "Segoe UI", sans-serif; overflow: visible; }
svg.plot text { fill: var(--muted); }
svg.plot text.name { fill: var(--ink); }
svg.plot text.end { text-anchor: end; }
svg.plot text.middle { text-anchor: middle; }
svg.plot .grid { stroke: var(--line); stroke-width: 1; fill: none; }
svg.plot .line { stroke: var(--accent); stroke-width: 2; fill: none; stroke-linejoin: round; }
svg.plot .reference { stroke: var(--muted); stroke-width: 1; fill: none; stroke-dasharray: 4 4; }
svg.plot .goal { stroke: var(--warm); stroke-width: 1.5; fill: none; stroke-dasharray: 6 4; }
svg.plot .band { fill: var(--accent); opacity: .14; stroke: none; }
svg.plot .whisker { stroke: var(--accent); stroke-width: 3; fill: none; opacity: .3; }
svg.plot .dot { fill: var(--accent); stroke: var(--panel); stroke-width: 1; }
svg.plot .dot.warm { fill: var(--warm); }
svg.plot .ring { fill: none; stroke: var(--warm); stroke-width: 2.5; }
svg.plot .cloud { stroke: var(--accent); stroke-width: 3; stroke-linecap: round; fill: none; opacity: .35; }
svg.plot .cloud.pale { stroke: var(--muted); opacity: .22; }
svg.plot .cell { fill: var(--accent); }
svg.plot .cell.pale { fill: var(--muted); opacity: .12; }
"""


class Plot:
    """Marks over two axes, in the order in which they are added.

    Args:
        x, y: the axes.
        width, height: size in user units; the page scales it to the room there is.
        title: what it shows, for screen readers.
    """

    def __init__(self, x: Axis, y: Axis, *, title: str, width: int = 400, height: int = 280) -> None:
        self._x, self._y, self._title = x, y, title
        self._width, self._height = width, height
        self._marks: list[str] = []

    def line(self, x: ArrayLike, y: ArrayLike, style: str = "line") -> None:
        """A line through points; x and y of shape (N,)."""
        self._path(_joined(self._at(x, y)), style)

    def band(self, x: ArrayLike, low: ArrayLike, high: ArrayLike) -> None:
        """An area between two curves; x, low and high of shape (N,)."""
        there, back = self._at(x, low), self._at(x, high)[::-1]
        self._path(_joined(np.concatenate([there, back])) + "Z", "band")

    def dots(
        self, x: ArrayLike, y: ArrayLike, about: Sequence[str], *, radius: float = 3.5, style: str = "dot"
    ) -> None:
        """A dot a point, each with a text that shows under the pointer."""
        for (left, top), text in zip(self._at(x, y), about, strict=True):
            shape = f'<circle class="{style}" cx="{left:.1f}" cy="{top:.1f}" r="{radius:g}">'
            self._marks.append(f"{shape}<title>{escape(text)}</title></circle>")

    def cloud(self, x: ArrayLike, y: ArrayLike, style: str = "cloud") -> None:
        """Many points as one path: small, and without a text each."""
        dots = "".join(f"M{left:.1f} {top:.1f}h0" for left, top in self._at(x, y))
        if dots:
            self._path(dots, style)

    def cells(
        self, corners: FloatArray, strength: Sequence[float], about: Sequence[str] | None = None
    ) -> None:
        """Filled rectangles.

        Args:
            corners: x low, y low, x high, y high of each in units of the axes, shape (N, 4).
            strength: opacity of each, in [0, 1]; a negative one makes it pale.
            about: a text for each that shows under the pointer. Without, cells of one strength share a path.
        """
        first, last = self._at(corners[:, 0], corners[:, 1]), self._at(corners[:, 2], corners[:, 3])
        paths = [
            f"M{left:.1f} {bottom:.1f}H{right:.1f}V{top:.1f}H{left:.1f}Z"
            for (left, bottom), (right, top) in zip(first, last, strict=True)
        ]
        if about is None:
            groups: dict[float, str] = {}
            for path, opacity in zip(paths, strength, strict=True):
                groups[opacity] = groups.get(opacity, "") + path
            paths, strength = list(groups.values()), list(groups)
        for index, (path, opacity) in enumerate(zip(paths, strength, strict=True)):
            style = 'class="cell pale"' if opacity < 0 else f'class="cell" opacity="{opacity:.2f}"'
            title = f"<title>{escape(about[index])}</title>" if about else ""
            self._marks.append(f'<path {style} d="{path}">{title}</path>')

    def text(self, x: float, y: float, text: str, *, style: str = "", dx: float = 0, dy: float = 0) -> None:
        """A text at a point in units of the axes, moved by (dx, dy) user units."""
        left, top = self._at([x], [y])[0]
        self._marks.append(_text(left + dx, top + dy, text, style))

    def svg(self, *, alone: bool = False) -> str:
        """The SVG element; `alone`: with its colours, style and a ground, for a file of its own."""
        size = f'viewBox="0 0 {self._width} {self._height}"'
        head = f'<svg class="plot" {size} role="img" aria-label="{escape(self._title)}"'
        if alone:
            head += (
                f' xmlns="http://www.w3.org/2000/svg" width="{2 * self._width}" height="{2 * self._height}"'
            )
            ground = f'<rect width="{self._width}" height="{self._height}" fill="#ffffff"/>'
            style = f"<style>svg.plot {{{COLOURS}}}{STYLE}</style>"
            return f"{head}>{style}{ground}{''.join([*self._frame(), *self._marks])}</svg>\n"
        return f"{head}>{''.join([*self._frame(), *self._marks])}</svg>"

    def _frame(self) -> Iterable[str]:
        bottom, right = self._height - BOTTOM, self._width - RIGHT
        for value, place in zip(self._x.ticks, self._x.place(self._x.ticks), strict=True):
            left = LEFT + place * (right - LEFT)
            yield f'<path class="grid" d="M{left:.1f} {TOP}V{bottom}"/>'
            yield _text(left, bottom + 16, number(value), "middle")
        for value, place in zip(self._y.ticks, self._y.place(self._y.ticks), strict=True):
            top = bottom - place * (bottom - TOP)
            yield f'<path class="grid" d="M{LEFT} {top:.1f}H{right}"/>'
            yield _text(LEFT - 7, top + 4, number(value), "end")
        yield _text((LEFT + right) / 2, self._height - 6, self._x.label, "middle name")
        middle = (TOP + bottom) / 2
        turned = f'transform="rotate(-90 9 {middle:.1f})"'
        yield f'<text class="middle name" x="9" y="{middle:.1f}" {turned}>{escape(self._y.label)}</text>'

    def _at(self, x: ArrayLike, y: ArrayLike) -> FloatArray:
        """Points in user units, shape (N, 2); what lies beyond the axes is put just outside the frame."""
        across, up = (np.clip(axis.place(v), -0.02, 1.02) for axis, v in ((self._x, x), (self._y, y)))
        left = LEFT + across * (self._width - RIGHT - LEFT)
        top = self._height - BOTTOM - up * (self._height - BOTTOM - TOP)
        return np.stack([np.atleast_1d(left), np.atleast_1d(top)], axis=1)

    def _path(self, path: str, style: str) -> None:
        self._marks.append(f'<path class="{style}" d="{path}"/>')


def _joined(points: FloatArray) -> str:
    return "M" + "L".join(f"{left:.1f} {top:.1f}" for left, top in points)


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
