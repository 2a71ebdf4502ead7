"""`Forecaster`: from arrivals so far to the rate at the horizon of a cold start.

A forecaster is pure: it keeps nothing between calls. What it knows of a function is that function's state, a
value of JSON, so that functions cannot affect each other and a restart loses nothing that was saved.
`scaler.testing.ForecasterContract` is the test that each of them passes.

    state = forecaster.initial()
    state = forecaster.update(state, now_s=1.0, arrivals=12, dt_s=1.0)      # each tick
    forecaster.forecast(state, horizon_s=5.0, quantile=0.95).upper_rps

The upper quantile is one of the *rate* at the horizon, a tick's mean: it holds the error of the level and
what the rate varies from tick to tick beyond a Poisson process, such as bursts. That arrivals at a known rate
come unevenly is left out, since the capacity of an instance is computed for Poisson arrivals already; to have
it in both would pay for it twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any, Protocol

State = Mapping[str, Any]
"""What a forecaster knows of one function: a JSON object. It is never changed in place."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """The rate expected at the horizon.

    Args:
        mean_rps: expected rate, requests a second, >= 0.
        upper_rps: upper quantile of that rate, >= `mean_rps`.
    """

    mean_rps: float
    upper_rps: float


class Forecaster(Protocol):
    """Forecasts of one function at a time."""

    @property
    def name(self) -> str:
        """Name on the command line."""

    def initial(self) -> State:
        """The state of a function of which nothing was seen; its forecast is a rate of 0."""

    def update(self, state: State, now_s: float, arrivals: int | None, dt_s: float) -> State:
        """The state once the arrivals of one tick are known.

        Args:
            now_s: end of the tick. arrivals: how many came in it; None: they could not be counted.
            dt_s: its length, > 0: the time since the tick before, whether that was counted or not.
        """

    def forecast(self, state: State, horizon_s: float, quantile: float) -> Forecast:
        """The rate `horizon_s` >= 0 seconds after the last tick.

        Args:
            quantile: in [0.5, 1): the rate stays below `upper_rps` with this probability.
        """


def upper(mean_rps: float, variance: float, quantile: float) -> Forecast:
    """A forecast of a mean and a variance, rps^2, with the quantile of a normal distribution."""
    mean = max(mean_rps, 0.0)
    deviation = math.sqrt(variance) if variance > 0.0 else 0.0
    return Forecast(mean, mean + normal_quantile(quantile) * deviation)


@lru_cache(maxsize=64)
def normal_quantile(quantile: float) -> float:
    """Quantile of the standard normal distribution; `quantile` in [0.5, 1)."""
    if not 0.5 <= quantile < 1:
        raise ValueError(f"quantile {quantile}: an upper one lies in [0.5, 1)")
    return NormalDist().inv_cdf(quantile)
