"""The plots of an evaluation."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rapp.evaluation import Evaluation, ScoredRows
from rapp.report.axis import Axis, linear, logarithmic, number, padded_log
from rapp.report.svg import Plot
from rapp.types import FloatArray

MOST_DOTS = 2_500
"""With more rows than this they are shown as counts: dots would hide each other, and make a large file."""
FEW_DOTS = 100
"""Rows up to which each has its interval and a text under the pointer."""
WIDTH_GROUPS = 10


def predicted_against_measured(rows: ScoredRows) -> str:
    """Each row's prediction against its measured latency, both logarithmic; the lines are 0 and 20 % off.

    A bar is the predicted interval; rows of more than `FEW_DOTS` have none.
    """
    both = np.concatenate([rows.measured_ms, rows.mean_ms])
    x, y = padded_log(both, "measured, ms"), padded_log(both, "predicted, ms")
    plot = Plot(x, y, title="Predicted against measured latency", width=500, height=480)
    if len(rows) > MOST_DOTS:
        plot.cells(*_counts(rows, x))
    elif len(rows) > FEW_DOTS:
        plot.cloud(rows.measured_ms, rows.mean_ms)
    ends = np.array([x.low, x.high])
    plot.line(ends, ends, "goal")
    plot.line([x.low, x.high / 1.2], [1.2 * x.low, x.high], "reference")
    plot.line([x.low / 0.8, x.high], [x.low, 0.8 * x.high], "reference")
    if len(rows) <= FEW_DOTS:
        _intervals(plot, rows)
    return plot.svg()


def _intervals(plot: Plot, rows: ScoredRows) -> None:
    """A dot a row, on a bar from the lower end of its interval to the upper."""
    ends = zip(rows.measured_ms, rows.low_ms, rows.high_ms, strict=True)
    for measured, low, high in ends:
        plot.line([measured, measured], [low, high], "whisker")
    about = [
        f"{rows.network[i]}, SM {rows.sm_pct[i]:g} %, quota {rows.quota_pct[i]:g} %, batch {rows.batch[i]}:"
        f" measured {rows.measured_ms[i]:,.1f} ms, predicted {rows.mean_ms[i]:,.1f}"
        f" ({rows.low_ms[i]:,.1f} to {rows.high_ms[i]:,.1f}) ms"
        for i in range(len(rows))
    ]
    plot.dots(rows.measured_ms, rows.mean_ms, about)


def _counts(rows: ScoredRows, axis: Axis) -> tuple[FloatArray, list[float]]:
    """Rows counted on a square of 72 x 72 cells; strength grows with the logarithm of the count."""
    edges = np.geomspace(axis.low, axis.high, 73)
    counts, _, _ = np.histogram2d(rows.measured_ms, rows.mean_ms, bins=(edges, edges))
    i, j = np.nonzero(counts)
    level = np.minimum(np.floor(np.log2(counts[i, j])), 6)
    return np.stack([edges[i], edges[j], edges[i + 1], edges[j + 1]], axis=1), list(0.22 + 0.13 * level)


def error_by(evaluation: Evaluation) -> dict[str, str]:
    """The error over SM partition, quota and batch, on one scale: its mean, and where half the rows lie."""
    rows = evaluation.rows
    error = np.abs(rows.error)
    axes = {"sm_pct": "SM partition, %", "quota_pct": "time quota, %", "batch": "batch"}
    groups = {name: _groups(getattr(rows, name), error) for name in axes}
    highest = max(max(*one[:, 2], *one[:, 3]) for one in groups.values())
    y = linear(0, 1.08 * max(float(highest), 0.1), "error, %")
    charts = {}
    for name, label in axes.items():
        values, mean, low, high, count = groups[name].T
        x = _axis(values, label, log=name == "batch")
        plot = Plot(x, y, title=f"Error by {label}", width=310, height=230)
        plot.band(values, low, high)
        plot.line(values, mean)
        about = [
            f"{label.split(',')[0]} {value:g}: mean {m:.1f} %, half of {n:,.0f} rows in {a:.1f} to {b:.1f} %"
            for value, m, a, b, n in zip(values, mean, low, high, count, strict=True)
        ]
        plot.dots(values, mean, about)
        charts[name] = plot.svg()
    return charts


def _groups(values: ArrayLike, error: FloatArray) -> FloatArray:
    """A row a distinct value: value, mean error, its quartiles, number of rows; shape (G, 5)."""
    array = np.asarray(values, dtype=float)
    rows = []
    for value in np.unique(array):
        own = error[array == value]
        rows.append([value, own.mean(), *np.percentile(own, [25, 75]), len(own)])
    return np.array(rows)


def _axis(values: FloatArray, label: str, *, log: bool) -> Axis:
    if log:
        margin = 1.15
        few = values if len(values) <= 8 else None
        return logarithmic(values.min() / margin, values.max() * margin, label, ticks=few)
    return linear(0, 100, label)


def error_shares(evaluation: Evaluation) -> str:
    """The share of rows whose error is below a value, up to the 99th percentile."""
    error = np.sort(np.abs(evaluation.rows.error))
    share = 100 * np.arange(1, len(error) + 1) / len(error)
    end = max(float(np.percentile(error, 99)), 0.1)
    x, y = linear(0, end, "error below, %"), linear(0, 100, "share of rows, %")
    plot = Plot(x, y, title="Distribution of the error", width=500, height=290)
    # 200 points carry the curve, however many rows there are.
    at = np.linspace(0, end, 200)
    plot.line(at, np.interp(at, error, share, left=0))
    marks = np.percentile(error, [50, 90])
    about = [
        f"{level} % of the rows are less than {mark:.1f} % off"
        for level, mark in zip((50, 90), marks, strict=True)
    ]
    plot.dots(marks, [50, 90], about, radius=4.5)
    for level, mark in zip((50, 90), marks, strict=True):
        # Beside the curve, on the side that has the room.
        side = {"dx": 9.0, "dy": 13.0} if mark < 0.6 * end else {"dx": -9.0, "dy": -7.0}
        style = "" if mark < 0.6 * end else "end"
        plot.text(float(mark), level, f"{level} % below {mark:.1f} %", style=style, **side)
    return plot.svg()


def coverage_by_network(evaluation: Evaluation) -> str:
    """Each network's coverage, from the lowest on."""
    ordered = sorted((scores.coverage, one.network, scores) for one, scores in evaluation.scored)
    values = np.array([coverage for coverage, _, _ in ordered])
    places = np.arange(1, len(values) + 1)
    x = linear(0, len(values) + 1, "networks, from the lowest coverage on", ticks=[])
    y = linear(min(50.0, 10 * np.floor(values.min() / 10)), 100, "measured within interval, %")
    plot = Plot(x, y, title="Coverage of each network", width=500, height=290)
    plot.line([0, len(values) + 1], [90, 90], "goal")
    about = [
        f"{name}: {coverage:.1f} % of {scores.n_rows:,} rows, mean width {scores.width:.0f} %"
        for coverage, name, scores in ordered
    ]
    plot.dots(places, values, about)
    plot.text(1, float(values[0]), ordered[0][1], dx=8, dy=4)
    return plot.svg()


def coverage_by_width(rows: ScoredRows) -> str:
    """The coverage of tenths of the rows, by the width that was predicted: 90 % is right for each of them."""
    width = 100 * (rows.high_ms - rows.low_ms) / rows.mean_ms
    inside = (rows.low_ms <= rows.measured_ms) & (rows.measured_ms <= rows.high_ms)
    # Equal widths stay together; rounded, since a constant width scatters in its last bits.
    width = np.round(width, 6)
    edges = np.unique(np.quantile(width, np.linspace(0, 1, WIDTH_GROUPS + 1)[1:-1]))
    group = np.searchsorted(edges, width, side="right")
    parts = [np.flatnonzero(group == number) for number in np.unique(group)]
    middle = np.array([np.median(width[part]) for part in parts])
    share = np.array([100 * inside[part].mean() for part in parts])
    x = padded_log(np.maximum(middle, 1e-3), "predicted width of the interval, %", by=0.08)
    y = linear(min(50.0, 10 * np.floor(share.min() / 10)), 100, "measured within interval, %")
    plot = Plot(x, y, title="Coverage by predicted width", width=500, height=290)
    plot.line([x.low, x.high], [90, 90], "goal")
    plot.line(middle, share)
    about = [
        f"{len(part):,} rows with a width about {number(float(f'{w:.3g}'))} %: {s:.1f} % within"
        for part, w, s in zip(parts, middle, share, strict=True)
    ]
    plot.dots(middle, share, about)
    return plot.svg()
