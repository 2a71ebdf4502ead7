"""A trace that makes an autoscaler move: load that swings between functions, as the machine can bear it.

Each function in turn rises from nothing to most of what one instance can serve, and falls again; the others
have no requests meanwhile. So quotas follow, functions that may go to zero do and are woken up, and what one
gives back the next one takes.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rapp.fileio import atomic_path
from rapp.types import FloatArray
from scaler.arrivals import ArrivalTimes, RateSteps
from scaler.trace import Trace

HIGH = 0.65
"""Load at the top as a part of what one instance in the least partition serves within the objective: room is
left for neighbours that slow it, and for the interval that is planned with. On two cores fixed instances for
the peak of each function then about fill the machine."""

REST_S, RISE_S, TOP_S, FALL_S = 20.0, 25.0, 25.0, 15.0
"""A function's turn: nothing, up to the top, there, and down to nothing."""

STEP_S = 2.5
"""The rate is constant for so long."""


def swing(unit_rps: Mapping[str, float]) -> Trace:
    """The trace.

    Args:
        unit_rps: by function, requests a second that one instance in the least partition serves within the
            objective.
    """
    turn_s = REST_S + RISE_S + TOP_S + FALL_S
    end_s = turn_s * len(unit_rps)
    edges_s = np.append(np.arange(0.0, end_s, STEP_S), end_s)
    middle_s = 0.5 * (edges_s[:-1] + edges_s[1:])
    load: dict[str | None, RateSteps | ArrivalTimes] = {
        name: RateSteps(edges_s, unit * _level(middle_s - place * turn_s))
        for place, (name, unit) in enumerate(unit_rps.items())
    }
    return Trace.of(load, "swing")


def write_rates(trace: Trace, functions: tuple[str, ...], file: Path) -> None:
    """Write a trace's rates as CSV, so that it can be replayed and looked at."""
    rates = trace.rates(functions, STEP_S)
    with atomic_path(file) as temporary, temporary.open("w", newline="") as text:
        rows = csv.writer(text)
        rows.writerow(("t_s", "rps", "function"))
        for name in functions:
            rows.writerows((f"{STEP_S * k:g}", f"{rps:.3f}", name) for k, rps in enumerate(rates[name]))


def _level(t_s: FloatArray) -> FloatArray:
    """Load at a time from the begin of the function's turn, as a part of a unit."""
    corners_s = np.cumsum([REST_S, RISE_S, TOP_S, FALL_S])
    return np.asarray(np.interp(t_s, corners_s, (0.0, HIGH, HIGH, 0.0)))
