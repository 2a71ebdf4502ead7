"""What happened tick by tick in a replay, and every change that was decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaler.core.decision import Action, Decision, FunctionOutlook
from scaler.core.observation import Observation, Phase

MADE = "made"
"""Outcome of a change that was made."""

OUTLOOK = ("forecast_rps", "upper_rps", "capacity_rps", "correction")
SEEN = ("arrivals", "completed", "late", "refused", "queue", "in_flight", "latency_ms")
COUNTED = ("ready", "starting", "draining", "gpu_share")
COLUMNS = (*SEEN, *OUTLOOK, *COUNTED, "violations")
"""Of a function at a tick: what its gateway reported (counts of the tick; the observed quantile of latency),
what the core believed, its instances by phase and the GPUs' worth that they have, and how many of the tick's
arrivals violate the objective. NaN: not known."""


class Change(NamedTuple):
    """A change that was decided. outcome: `MADE`, or why it could not be made."""

    at_s: float
    action: Action
    outcome: str


class Series:
    """Figures of each function at each tick.

    Args:
        functions: their names. ticks: how many there will be.
    """

    def __init__(self, functions: Sequence[str], ticks: int) -> None:
        self.functions = tuple(functions)
        self.at_s = np.zeros(ticks)
        self.values: NDArray[np.float32] = np.full((len(COLUMNS), len(functions), ticks), np.nan, np.float32)
        self.changes: list[Change] = []
        self.unobserved: list[float] = []

    def column(self, name: str, function: str) -> NDArray[np.float32]:
        """A figure of a function at each tick, (T,)."""
        return np.asarray(self.values[COLUMNS.index(name), self.functions.index(function)])

    def record(
        self, tick: int, seen: Observation, decision: Decision, refused: Sequence[tuple[str, str]]
    ) -> None:
        """Note a tick: what was seen, what was decided, and what of it the cluster refused: (id, why)."""
        self.at_s[tick] = seen.now_s
        phases = {name: [0, 0, 0] for name in self.functions}
        shares = dict.fromkeys(self.functions, 0.0)
        for one in seen.instances:
            if one.phase == Phase.LOST:
                continue
            phases[one.function][_PHASES[one.phase]] += 1
            shares[one.function] += one.config.gpu_share
        for f, name in enumerate(self.functions):
            view = seen.functions.get(name)
            figures = () if view is None else (
                view.arrivals, view.completed, view.late, view.refused, view.queue, view.in_flight,
                view.latency_ms,
            )  # fmt: skip
            row = [*(figures or [None] * len(SEEN)), *_outlook(decision.outlook, name)]
            self.values[:-1, f, tick] = [*row, *phases[name], shares[name]]
        why = dict(refused)
        self.changes += [Change(seen.now_s, action, why.get(action.id, MADE)) for action in decision.actions]
        self.changes += [Change(seen.now_s, action, reason) for action, reason in decision.dropped]


_PHASES = {Phase.READY: 0, Phase.STARTING: 1, Phase.DRAINING: 2}


def _outlook(outlook: Mapping[str, FunctionOutlook], name: str) -> tuple[float | None, ...]:
    one = outlook.get(name)
    if one is None:
        return (None,) * len(OUTLOOK)
    return one.forecast_rps, one.upper_rps, one.capacity_rps, one.correction
