"""How long a disturbance is felt: until violations are back to what they were before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rapp.types import FloatArray
from scaler.replay.chaos import Disturbance

BEFORE_S = 60.0
"""Time before a disturbance in which violations are taken as usual: the median over its windows, so that an
earlier disturbance in it does not count as usual."""

WINDOW_S = 10.0
"""Recovered: over so long, violations are back to the usual share or to what the objective allows."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What came of a disturbance.

    Args:
        disturbance: what happened, and when.
        before, worst: share of violations of arrivals over a `WINDOW_S`, the usual one before it, and the
            largest after it until recovered.
        recovery_s: time from it until violations are back; 0: not felt; None: not within the trace.
    """

    disturbance: Disturbance
    before: float
    worst: float
    recovery_s: float | None


def recoveries(
    disturbances: Sequence[Disturbance],
    at_s: FloatArray,
    arrivals: FloatArray,
    violations: FloatArray,
    allowed: float,
) -> tuple[Recovery, ...]:
    """The recovery from each disturbance.

    Args:
        at_s: (T,) ends of the ticks, s, at equal distances.
        arrivals, violations: (T,) requests that came in each tick, and those of them that violate.
        allowed: share of violations that the objective allows.
    """
    if not len(at_s):
        return ()
    tick_s = at_s[0]
    came, bad = (np.concatenate([[0.0], np.cumsum(one)]) for one in (arrivals, violations))
    window = max(round(WINDOW_S / tick_s), 1)
    ends = np.minimum(np.arange(len(at_s)) + window, len(at_s))
    # The share of violations over the window that begins with each tick; no arrival violates nothing.
    share = (bad[ends] - bad[:-1]) / np.maximum(came[ends] - came[:-1], 1)
    found = []
    for one in disturbances:
        tick = min(int(one.at_s / tick_s + 1e-9), len(at_s) - 1)
        first = max(tick - round(BEFORE_S / tick_s), 0)
        usual = share[first : max(tick - window + 1, 0)]
        before = float(np.median(usual)) if len(usual) else 0.0
        # While it lasts nothing has recovered.
        lasting = tick if one.to_s is None else min(int(one.to_s / tick_s + 1e-9), len(at_s) - 1)
        well = share[tick:] <= max(before, allowed) + 1e-12
        felt = not well[: max(lasting - tick, 1)].all()
        after = np.flatnonzero(well[lasting - tick :]) + lasting - tick
        recovered = int(after[0]) if len(after) else None
        worst = float(share[tick : tick + (recovered or 0) + 1].max())
        seconds = None if recovered is None else float(recovered * tick_s)
        found.append(Recovery(one, before, worst, seconds if felt else 0.0))
    return tuple(found)
