"""Means over the last seconds, kept as JSON; and periods longer than a tick of the core.

The core ticks evenly, so that each sample weighs the same. What could not be observed is no sample.
"""

from __future__ import annotations

from collections.abc import Sequence

Samples = Sequence[Sequence[float]]
"""Pairs (time, s; value), ascending in time."""

EARLY = 0.05
"""Part of a period by which a tick may come early: a live clock is not exact."""


def added(samples: Samples, now_s: float, value: float | None, keep_s: float) -> list[Sequence[float]]:
    """The samples of the last `keep_s` seconds with one of now; None: nothing was observed."""
    kept = [sample for sample in samples if sample[0] > now_s - keep_s]
    return kept if value is None else [*kept, [now_s, value]]


def mean(samples: Samples, now_s: float, window_s: float) -> float | None:
    """Mean value over the last `window_s` seconds; None: no sample lies there."""
    values = [value for at_s, value in samples if at_s > now_s - window_s]
    return sum(values) / len(values) if values else None


def due(last_s: float | None, now_s: float, period_s: float) -> bool:
    """Whether a period has passed since `last_s`; None: there was none."""
    return last_s is None or now_s - last_s >= period_s * (1 - EARLY)
