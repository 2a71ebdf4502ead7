"""The last tick's rate, for ever: the naive method, which any other has to beat.

Its variance over h ticks is h times that of one tick's change (Hyndman and Athanasopoulos, Forecasting:
Principles and Practice, 3rd edition, section 5.5), estimated with exponential forgetting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scaler.forecast.base import Forecast, State, upper

MEMORY_S = 60.0
"""Time in which the estimate of the variance forgets: a minute, some sixty ticks."""


@dataclass(frozen=True, slots=True)
class LastValue:
    """The naive forecaster."""

    @property
    def name(self) -> str:
        """Name on the command line."""
        return "last-value"

    def initial(self) -> State:
        """Nothing seen."""
        return {"rps": None, "change": None, "tick_s": 1.0}

    def update(self, state: State, now_s: float, arrivals: int | None, dt_s: float) -> State:
        """`change` is the mean squared change of the rate from one tick to the next."""
        if arrivals is None:
            return state
        rps = arrivals / dt_s
        return {"rps": rps, "change": _change(state, rps, dt_s), "tick_s": dt_s}

    def forecast(self, state: State, horizon_s: float, quantile: float) -> Forecast:
        """The last rate."""
        if state["rps"] is None:
            return Forecast(0.0, 0.0)
        # After a single tick nothing is known of changes but that arrivals are counted: Poisson.
        change = state["rps"] / state["tick_s"] if state["change"] is None else state["change"]
        return upper(state["rps"], change * horizon_s / state["tick_s"], quantile)


def _change(state: Mapping[str, float | None], rps: float, dt_s: float) -> float | None:
    last, change = state["rps"], state["change"]
    if last is None:
        return None
    squared = (rps - last) ** 2
    weight = min(dt_s / MEMORY_S, 1.0)
    return squared if change is None else change + weight * (squared - change)
