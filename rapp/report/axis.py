"""Axes of a plot: where a value lies, and which ticks are shown."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rapp.types import FloatArray


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear or logarithmic axis.

    Args:
        low, high: its ends, low < high; both > 0 on a logarithmic axis.
        label: what it shows, with the unit.
        ticks: the values that are marked.
        log: whether it is logarithmic.
    """

    low: float
    high: float
    label: str
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, values: ArrayLike) -> FloatArray:
        """Where values lie: 0 at `low`, 1 at `high`; beyond them below 0 or above 1. The shape stays."""
        array = np.asarray(values, dtype=float)
        if self.log:
            span = math.log(self.high / self.low)
            return np.asarray(np.log(np.maximum(array, 1e-300) / self.low) / span)
        return np.asarray((array - self.low) / (self.high - self.low))


def linear(low: float, high: float, label: str, *, count: int = 5, ticks: ArrayLike | None = None) -> Axis:
    """A linear axis over [low, high], ticks at about `count` round numbers unless they are given."""
    if not high > low:
        low, high = low - 1, high + 1
    marked = _round_numbers(low, high, count) if ticks is None else tuple(np.asarray(ticks, float).tolist())
    return Axis(low, high, label, marked)


def logarithmic(low: float, high: float, label: str, *, ticks: ArrayLike | None = None) -> Axis:
    """A logarithmic axis over [low, high], ticks at powers of ten, and between them where there is room."""
    if not high > low:
        low, high = low / 2, high * 2
    marked = _powers(low, high) if ticks is None else tuple(np.asarray(ticks, float).tolist())
    return Axis(low, high, label, marked, log=True)


def padded_log(values: ArrayLike, label: str, *, by: float = 0.05) -> Axis:
    """A logarithmic axis over positive values, longer by the share `by` on either side."""
    array = np.asarray(values, dtype=float)
    low, high = float(array.min()), float(array.max())
    margin = (high / low) ** by if high > 1.001 * low else 1.5
    return logarithmic(low / margin, high * margin, label)


def number(value: float) -> str:
    """A short text for a tick: `0.05`, `20`, `1,500`."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def _round_numbers(low: float, high: float, count: int) -> tuple[float, ...]:
    rough = (high - low) / max(count, 1)
    power = 10 ** math.floor(math.log10(rough))
    step = power * min((1, 2, 2.5, 5, 10), key=lambda factor: abs(math.log(factor * power / rough)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(round(index * step, 10) for index in range(first, last + 1))


def _powers(low: float, high: float) -> tuple[float, ...]:
    decades = math.log10(high / low)
    factors = (1, 1.5, 2, 3, 4, 5, 7) if decades <= 1 else (1, 2, 5) if decades <= 3 else (1,)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marked = [factor * 10.0**exponent for exponent in exponents for factor in factors]
    inside = tuple(value for value in marked if low * (1 - 1e-9) <= value <= high * (1 + 1e-9))
    return inside if len(inside) > 1 else _round_numbers(low, high, 4)
