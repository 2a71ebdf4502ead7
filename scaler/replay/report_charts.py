"""The plots over time of a replay's report, and that of cost against violations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from rapp.report.axis import Axis, linear, padded_log
from rapp.report.scale import thinned
from rapp.report.svg import Plot
from rapp.types import FloatArray
from scaler.replay.chaos import Disturbance
from scaler.replay.result import FunctionResult, ReplayResult
from scaler.replay.series import Series

MOST_POINTS = 360
"""Of a line over time: more than the page has room for would only make it large."""

MOST_DISTURBANCES = 24
"""Disturbances up to which each has a line."""

WIDTH, HEIGHT = 560, 230


class Clock:
    """Time of a replay for plots: its unit, and ticks of the core taken together to at most `MOST_POINTS`.

    Args:
        at_s: (T,) ends of the ticks, s. end_s: length of the trace, s.
    """

    def __init__(self, at_s: FloatArray, end_s: float) -> None:
        self.unit, self.seconds = next(
            (unit, seconds)
            for unit, seconds, least in (("h", 3600.0, 3 * 3600.0), ("min", 60.0, 600.0), ("s", 1.0, 0.0))
            if end_s >= least
        )
        self.end_s = end_s
        self._first = np.unique(np.linspace(0, len(at_s), MOST_POINTS + 1).astype(int)[:-1])
        last = np.append(self._first[1:], len(at_s)) - 1
        begin = np.concatenate([[0.0], at_s])[self._first]
        self.middle = (begin + at_s[last]) / 2 / self.seconds
        self.ticks = last - self._first + 1

    @property
    def axis(self) -> Axis:
        """The time axis."""
        return linear(0, self.end_s / self.seconds, f"time, {self.unit}", count=7)

    def mean(self, values: FloatArray) -> FloatArray:
        """(P,) means of what is known; NaN: nothing is."""
        known = np.isfinite(values)
        sums = np.add.reduceat(np.where(known, values, 0.0), self._first)
        counts = np.add.reduceat(known.astype(np.float64), self._first)
        return np.asarray(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))

    def greatest(self, values: FloatArray) -> FloatArray:
        """(P,) largest of what is known; NaN: nothing is."""
        found = np.maximum.reduceat(np.where(np.isfinite(values), values, -np.inf), self._first)
        return np.where(np.isfinite(found), found, np.nan)

    def total(self, values: FloatArray) -> FloatArray:
        """(P,) sums; what is not known counts as 0."""
        return np.asarray(np.add.reduceat(np.nan_to_num(values), self._first))


def load_chart(
    series: Series, function: str, clock: Clock, tick_s: float, had: Sequence[Disturbance] = ()
) -> str:
    """The rate that came, the forecast's upper end that is planned for, and the capacity that there was."""
    rate = clock.mean(_of(series, "arrivals", function)) / tick_s
    upper, capacity = (clock.mean(_of(series, name, function)) for name in ("upper_rps", "capacity_rps"))
    most = _most(rate, 1.0)
    # A capacity far above the load would press the load into a corner.
    shown = min(max(_most(upper, 0.0), _most(capacity, 0.0), most), 3 * most)
    y = linear(0, 1.05 * shown, "requests/s")
    plot = Plot(clock.axis, y, title=f"Load of {function}", width=WIDTH, height=HEIGHT)
    _disturbances(plot, clock, y, had)
    _line(plot, clock, capacity, "line capacity")
    _line(plot, clock, rate, "line load")
    _line(plot, clock, upper, "line forecast")
    return plot.svg()


def latency_chart(series: Series, one: FunctionResult, clock: Clock, had: Sequence[Disturbance] = ()) -> str:
    """The observed quantile of latency against the objective, and where requests violated it."""
    observed = clock.greatest(_of(series, "latency_ms", one.function))
    known = observed[np.isfinite(observed)]
    values = np.concatenate([known, [one.slo_ms, one.base_ms]])
    y = thinned(padded_log(np.maximum(values, 1e-3), "latency, ms"), 0.1)
    plot = Plot(clock.axis, y, title=f"Latency of {one.function}", width=WIDTH, height=HEIGHT)
    came = clock.total(_of(series, "arrivals", one.function))
    bad = clock.total(_of(series, "violations", one.function))
    share = np.divide(bad, came, out=np.zeros(len(bad)), where=came > 0)
    at = np.flatnonzero(share > 0)
    half = clock.end_s / clock.seconds / len(clock.middle) / 2
    corners = np.stack(
        [clock.middle[at] - half, np.full(len(at), y.low), clock.middle[at] + half, np.full(len(at), y.high)],
        axis=1,
    )
    if len(at):
        about = [
            f"{100 * value:.2g} % of the requests around here violate the objective" for value in share[at]
        ]
        plot.cells(corners, [float(value) for value in 0.12 + 0.5 * np.sqrt(share[at])], about)
    _disturbances(plot, clock, y, had)
    plot.line([0, clock.axis.high], [one.slo_ms, one.slo_ms], "goal")
    _line(plot, clock, observed, "line")
    return plot.svg()


def allocation_chart(series: Series, function: str, clock: Clock) -> str:
    """GPUs' worth that its instances have, SM share x quota, and how many instances are ready."""
    share = clock.mean(_of(series, "gpu_share", function))
    y = linear(0, 1.08 * _most(share, 0.01), "GPUs, SM × quota")
    plot = Plot(clock.axis, y, title=f"Allocation of {function}", width=WIDTH, height=HEIGHT)
    plot.band(clock.middle, np.zeros(len(share)), np.nan_to_num(share))
    _line(plot, clock, share, "line")
    return plot.svg()


def instances_chart(series: Series, function: str, clock: Clock) -> str:
    """Instances that are ready, and those with the ones that start."""
    ready = clock.mean(_of(series, "ready", function))
    starting = ready + clock.mean(_of(series, "starting", function))
    y = linear(0, 1.08 * _most(starting, 1.0), "instances")
    plot = Plot(clock.axis, y, title=f"Instances of {function}", width=WIDTH, height=HEIGHT)
    _line(plot, clock, starting, "line forecast")
    _line(plot, clock, ready, "line load")
    return plot.svg()


def front_chart(by_policy: Mapping[str, Sequence[ReplayResult]]) -> str:
    """GPU-seconds per 1,000 requests against violations: the mean of each policy, and its seeds."""
    cost = [one.total.gpu_seconds_per_1000 for results in by_policy.values() for one in results]
    share = [100 * one.total.violation_share for results in by_policy.values() for one in results]
    x = thinned(padded_log(np.maximum(cost, 1e-6), "GPU-seconds per 1,000 requests", by=0.12), 0.1)
    top = 1.1 * max(*share, 0.1)
    # Room below 0 for names, and for what lies on it.
    y = replace(linear(0, top, "violations, % of arrivals"), low=-0.06 * top)
    plot = Plot(x, y, title="Cost against violations", width=640, height=360)
    means = {
        policy: (
            float(np.mean([one.total.gpu_seconds_per_1000 for one in results])),
            float(np.mean([100 * one.total.violation_share for one in results])),
        )
        for policy, results in by_policy.items()
    }
    front = _front(list(means.values()))
    if len(front) > 1:
        left, top = np.array(front).T
        plot.line(np.repeat(left, 2)[1:], np.repeat(top, 2)[:-1], "reference")
    named: list[tuple[float, float]] = []
    for number, (policy, results) in enumerate(by_policy.items()):
        style = f"dot p{number % 8}"
        if len(results) > 1:
            plot.dots(
                [one.total.gpu_seconds_per_1000 for one in results],
                [100 * one.total.violation_share for one in results],
                [f"{policy}, seed {one.seed}" for one in results],
                radius=2.5,
                style=f"{style} pale",
            )
        at, up = means[policy]
        about = f"{policy}: {at:.4g} GPU-seconds per 1,000 requests, {up:.3g} % violations"
        plot.dots([at], [up], [about], radius=6, style=style)
        place = float(x.place(at)), float(y.place(up))
        # To the left where there is no room to the right, and below where another name is beside it.
        at_end = place[0] > 0.75
        near = any(abs(place[0] - one[0]) < 0.2 and abs(place[1] - one[1]) < 0.09 for one in named)
        named.append(place)
        dx, dy = (-10 if at_end else 10), (16 if near else -6)
        plot.text(at, up, policy, style="name end" if at_end else "name", dx=dx, dy=dy)
    return plot.svg()


def _disturbances(plot: Plot, clock: Clock, y: Axis, had: Sequence[Disturbance]) -> None:
    """A line where each begins, where they are few enough to be told apart."""
    if len(had) <= MOST_DISTURBANCES:
        for one in had:
            at = one.at_s / clock.seconds
            plot.line([at, at], [y.low, y.high], "reference")


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, violations), those that no other is as good as in both, by cost."""
    kept: list[tuple[float, float]] = []
    for cost, share in sorted(points):
        if not kept or share < kept[-1][1]:
            kept.append((cost, share))
    return kept


def _of(series: Series, name: str, function: str) -> FloatArray:
    return series.column(name, function).astype(np.float64)


def _most(values: FloatArray, least: float) -> float:
    known = values[np.isfinite(values)]
    return max(float(known.max(initial=least)), least)


def _line(plot: Plot, clock: Clock, values: FloatArray, style: str) -> None:
    """A line that breaks off where nothing is known."""
    known = np.flatnonzero(np.isfinite(values))
    for part in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1):
        if len(part):
            plot.line(clock.middle[part], values[part], style)
