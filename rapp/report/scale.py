"""A scale of colours: which of a few steps a value belongs to, and where the steps end."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rapp.report.axis import Axis, linear, logarithmic
from rapp.types import FloatArray

STEPS = 10
"""More could not be told apart in a map of small cells."""

VIRIDIS = (
    "#fde725", "#b5de2b", "#6ece58", "#35b779", "#1f9e89", "#26828e", "#31688e", "#3e4989", "#482878",
    "#440154",
)  # fmt: skip
"""Ten even steps of matplotlib's viridis (CC0), from its light end: monotone in lightness, so that colour
blindness and a printer without colour leave the order."""


def thinned(axis: Axis, least: float) -> Axis:
    """The axis with fewer ticks: no two closer than the share `least` of it; the rounder one stays."""
    places = axis.place(axis.ticks)
    kept: list[int] = []
    # The fewer digits a number has, the rounder it is; of equal ones 1 comes before 5 and 2.
    rank = {1: 0, 5: 1, 2: 2}
    digits = [f"{tick:.6e}".partition("e")[0].rstrip("0").rstrip(".") for tick in axis.ticks]
    order = sorted(range(len(places)), key=lambda k: (len(digits[k]), rank.get(int(digits[k][0]), 3)))
    for index in order:
        if all(abs(places[index] - places[other]) >= least for other in kept):
            kept.append(index)
    return replace(axis, ticks=tuple(axis.ticks[index] for index in sorted(kept)))


@dataclass(frozen=True, slots=True)
class Scale:
    """`STEPS` steps along an axis.

    Args:
        axis: from the least value to the greatest; greater ones belong to the last step.
    """

    axis: Axis

    def step(self, values: ArrayLike) -> NDArray[np.int64]:
        """The step of each value, 0 to STEPS - 1, -1 for NaN; the shape stays."""
        place = self.axis.place(values)
        step = np.clip(np.floor(np.nan_to_num(place) * STEPS), 0, STEPS - 1)
        return np.where(np.isnan(place), -1, step).astype(np.int64)

    def edges(self) -> FloatArray:
        """Where the steps end, shape (STEPS + 1,)."""
        low, high = self.axis.low, self.axis.high
        return np.geomspace(low, high, STEPS + 1) if self.axis.log else np.linspace(low, high, STEPS + 1)


def latency_scale(latency_ms: ArrayLike, *, least_span: float = 1.25) -> Scale:
    """A logarithmic scale over latencies in ms; values under `least_span` apart do not fill it with noise."""
    known = np.asarray(latency_ms, dtype=float)
    known = known[np.isfinite(known)]
    low, high = float(known.min()), float(known.max())
    widen = max(least_span / (high / low), 1.0) ** 0.5
    return Scale(logarithmic(low / widen, high * widen, "latency, ms"))


def noise_scale(relative: ArrayLike, label: str) -> Scale:
    """A linear scale over noise in %, from 0 to what 98 % of the points stay below, or twice their median.

    Args:
        relative: 0.03 is 3 %.
    """
    known = np.asarray(relative, dtype=float)
    middle, most = np.quantile(known[np.isfinite(known)], (0.5, 0.98))
    return Scale(linear(0.0, max(100 * float(max(most, 2 * middle)), 0.1), label))
