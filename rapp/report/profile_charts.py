"""Curves of a network's points: scaling over SM and quota, throughput over device share, device time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rapp.profiles.cells import Cells, State
from rapp.report.axis import linear, number, padded_log
from rapp.report.scale import thinned
from rapp.report.svg import Plot
from rapp.types import FloatArray

WIDTH, HEIGHT = 340, 250
"""Size of a plot in user units, so that three fill the width of a page."""
LEAST_STEP = 1.01
"""Of throughput: the least that a point must serve more than one with a smaller share, to be a step."""
MOST_DOTS = 30
"""Of the front in a plot of throughput; more would hide each other."""
COLOURS = 6
"""Batches have one colour and dash each; from the seventh on they begin anew."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One line over one axis.

    Args:
        batch: place of its batch among those of the network.
        x: values of the axis, ascending, shape (N,).
        latency_ms: mean latency, shape (N,), none NaN.
        derived: which points are computed from others, shape (N,).
    """

    batch: int
    x: FloatArray
    latency_ms: FloatArray
    derived: NDArray[np.bool_]


def over_sm(cells: Cells, latency_ms: FloatArray, width: int = WIDTH) -> tuple[float, str] | None:
    """Latency against SM partition at the largest quota, a line a batch: that quota, %, and the plot."""
    place = _last(cells.known, 1)
    curves = _curves(cells.grid.sm_pct, cells.state[:, place], latency_ms[:, place])
    plot = _scaling(curves, "SM partition, %", f"Latency of {cells.network} over SM partition", width)
    return (float(cells.grid.quota_pct[place]), plot) if plot else None


def over_quota(cells: Cells, latency_ms: FloatArray, width: int = WIDTH) -> tuple[float, str] | None:
    """Latency against quota at the largest SM partition, a line a batch: that partition, %, and the plot."""
    place = _last(cells.known, 0)
    curves = _curves(cells.grid.quota_pct, cells.state[place], latency_ms[place])
    plot = _scaling(curves, "time quota, %", f"Latency of {cells.network} over quota", width)
    return (float(cells.grid.sm_pct[place]), plot) if plot else None


def _last(known: NDArray[np.bool_], axis: int) -> int:
    """The last place along an axis of shape (S, Q, B) where there is a latency."""
    return int(np.nonzero(known)[axis].max())


def _curves(axis: object, state: NDArray[np.int8], latency_ms: FloatArray) -> list[Curve]:
    """A curve a batch from arrays of shape (N, B); batches without a point have none."""
    values, curves = np.asarray(axis, dtype=float), []
    for batch in range(state.shape[1]):
        own = state[:, batch] >= State.DERIVED
        if own.any():
            derived = state[own, batch] == State.DERIVED
            curves.append(Curve(batch, values[own], latency_ms[own, batch], derived))
    return curves


def _scaling(curves: list[Curve], label: str, title: str, width: int) -> str | None:
    """None where no curve has two points: it would say nothing that the map does not."""
    if not any(len(curve.x) > 1 for curve in curves):
        return None
    y = padded_log(np.concatenate([curve.latency_ms for curve in curves]), "latency, ms")
    plot = Plot(linear(0, 100, label), y, title=title, width=width, height=HEIGHT)
    for curve in curves:
        colour = f"b{curve.batch % COLOURS}"
        plot.line(curve.x, curve.latency_ms, f"line {colour}")
        plot.cloud(curve.x, curve.latency_ms, f"marks {colour}")
        plot.cloud(curve.x[curve.derived], curve.latency_ms[curve.derived], "marks hole")
    return plot.svg()


def throughput(cells: Cells, latency_ms: FloatArray, width: int = WIDTH) -> str:
    """The most requests a second that one instance serves with at most a share of the device, a line a
    batch.

    A batch of b requests every L ms serves 1000 b / L of them a second, at a share of SM x quota. Dots
    are configurations that no other one with as little share surpasses, at most `MOST_DOTS` of them.
    """
    axes = (cells.grid.sm_pct, cells.grid.quota_pct, cells.grid.batch)
    sm, quota, batch = np.meshgrid(*(np.asarray(axis, float) for axis in axes), indexing="ij")
    share, rps = sm * quota / 1e4, 1e3 * batch / latency_ms
    known = np.flatnonzero(cells.known)
    x = thinned(padded_log(share.flat[known], "device share, SM × quota"), 0.12)
    y = padded_log(rps.flat[known], "requests/s")
    plot = Plot(x, y, title=f"Throughput of {cells.network}", width=width, height=HEIGHT)
    place = np.broadcast_to(np.arange(len(axes[2])), share.shape)
    best = _front(known, share, rps)
    best = best[:: -(-len(best) // MOST_DOTS)]
    for index in range(len(axes[2])):
        own = known[place.flat[known] == index]
        if not own.size:
            continue
        front = _front(own, share, rps)
        steps = np.append(np.repeat(share.flat[front], 2)[1:], x.high), np.repeat(rps.flat[front], 2)
        plot.line(*steps, f"line b{index % COLOURS}")
        front = best[place.flat[best] == index]
        about = [
            f"{_three(share.flat[k])} of the device (SM {sm.flat[k]:g} %, quota {quota.flat[k]:g} %,"
            f" batch {batch.flat[k]:g}): {_three(rps.flat[k])} requests/s"
            for k in front
        ]
        plot.dots(share.flat[front], rps.flat[front], about, radius=2.6, style=f"dot b{index % COLOURS}")
    return plot.svg()


def _front(places: NDArray[np.intp], share: FloatArray, rps: FloatArray) -> NDArray[np.intp]:
    """Of these places, by share, those that serve more than all with less or the same share.

    A step smaller than `LEAST_STEP` is noise, and too small to be seen.
    """
    order = places[np.lexsort((-rps.flat[places], share.flat[places]))]
    kept: list[int] = []
    for place in order.tolist():
        if not kept or rps.flat[place] >= LEAST_STEP * rps.flat[kept[-1]]:
            kept.append(place)
    return np.array(kept, dtype=np.intp)


def _three(value: float) -> str:
    return number(float(f"{value:.3g}"))


def device_against_latency(
    cells: Cells, latency_ms: FloatArray, device_ms: FloatArray, width: int = WIDTH
) -> tuple[float, str] | None:
    """Latency against device time at the largest quota that has it: that quota, %, and the plot.

    A dot a measured point; None without one. On the line the device is busy all the time. Above it the
    host takes the rest, or the quota if that is under 100 %.
    """
    own = (cells.state == State.MEASURED) & np.isfinite(device_ms)
    if not own.any():
        return None
    quota = _last(own, 1)
    own &= np.arange(own.shape[1])[:, None] == quota
    device, latency = device_ms[own], latency_ms[own]
    both = np.concatenate([device, latency])
    x, y = padded_log(both, "device time, ms"), padded_log(both, "latency, ms")
    plot = Plot(x, y, title=f"Device time of {cells.network}", width=width, height=HEIGHT)
    plot.line([x.low, x.high], [x.low, x.high], "reference")
    batch = np.nonzero(own)[2]
    for index in np.unique(batch).tolist():
        plot.cloud(device[batch == index], latency[batch == index], f"marks b{index % COLOURS}")
    return float(cells.grid.quota_pct[quota]), plot.svg()
