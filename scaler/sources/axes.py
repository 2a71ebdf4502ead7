"""Where questions lie on the axes of a table of times, and the times read there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rapp.errors import ConfigError
from rapp.types import FloatArray

IndexArray = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Axes:
    """Axes of a table.

    Args:
        log_sm: (S,) logarithms of SM partitions, ascending. batch: (B,) batches, ascending.
        last_step: from the last batch but one to the last, 1 where there is one alone.
    """

    log_sm: FloatArray
    batch: FloatArray
    last_step: float

    @classmethod
    def of(cls, sm_pct: FloatArray, batch: FloatArray) -> Axes:
        """Of SM partitions (S,), %, and batches (B,)."""
        return cls(np.log(sm_pct), batch, float(batch[-1] - batch[-2]) if len(batch) > 1 else 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Questions on the axes of a table; arrays of their shape.

    Between knots times are straight in log-log over the SM partition and straight over the batch.

    Args:
        knots: S and B.
        sm, batch: index of the knot below. sm_share, batch_share: share of the way to the next.
        short_of_sm: factor by which the SM partition is below the first knot, >= 1.
        beyond_batch: how far the batch is above the last knot, in steps between the last two.
    """

    knots: tuple[int, int]
    sm: IndexArray
    sm_share: FloatArray
    short_of_sm: FloatArray
    batch: IndexArray
    batch_share: FloatArray
    beyond_batch: FloatArray

    @classmethod
    def of(cls, axes: Axes, sm_pct: ArrayLike, batch: ArrayLike) -> Place:
        """The place of questions on axes.

        Raises:
            ConfigError: a value out of its range.
        """
        sm, batches = np.asarray(sm_pct, np.float64), np.asarray(batch, np.float64)
        if not ((sm > 0) & (sm <= 100)).all() or not (batches >= 1).all():
            raise ConfigError("an SM partition must lie in (0, 100] %, and a batch must be 1 or more")
        at_sm, sm_share, short, _ = on_axis(axes.log_sm, np.log(sm))
        at_batch, batch_share, _, beyond = on_axis(axes.batch, batches)
        knots = len(axes.log_sm), len(axes.batch)
        return cls(knots, at_sm, sm_share, np.exp(short), at_batch, batch_share, beyond / axes.last_step)

    def read(self, log_ms: Callable[[IndexArray, IndexArray], FloatArray]) -> FloatArray:
        """Times, ms, at the questions; `log_ms` gives their logarithms at knots of SM and batch.

        Of several tables at once where their number comes first, (T, ...).
        """
        next_sm = np.minimum(self.sm + 1, self.knots[0] - 1)
        next_batch = np.minimum(self.batch + 1, self.knots[1] - 1)

        def at(batch: IndexArray) -> FloatArray:
            low, high = log_ms(self.sm, batch), log_ms(next_sm, batch)
            return np.asarray(np.exp(low + self.sm_share * (high - low)))

        first, last = at(self.batch), at(next_batch)
        inside = first + self.batch_share * (last - first)
        if not self.beyond_batch.any():
            return np.asarray(inside)
        # A straight line through the last two batches; noise may not make it fall.
        steep = np.maximum(last - at(np.maximum(next_batch - 1, 0)), 0.0)
        return np.asarray(inside + self.beyond_batch * steep)


def on_axis(axis: FloatArray, values: FloatArray) -> tuple[IndexArray, FloatArray, FloatArray, FloatArray]:
    """Index of the knot below, share of the way to the next, and distance below the first, above the last."""
    # Maxima and minima one by one: `np.clip` takes several times as long for a single question.
    last = len(axis) - 1
    low = np.minimum(np.maximum(np.searchsorted(axis, values, side="right") - 1, 0), max(last - 1, 0))
    first = axis[low]
    step = axis[np.minimum(low + 1, last)] - first
    share = np.minimum(np.maximum((values - first) / np.where(step > 0, step, 1.0), 0.0), 1.0)
    return low, share, np.maximum(axis[0] - values, 0.0), np.maximum(values - axis[last], 0.0)
