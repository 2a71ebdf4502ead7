"""A repeating season times a level: where load follows the hour of the day.

The rate is shape(time in the season) x level. The level is `scaler.forecast.kalman`'s, fed with arrivals
that are expected to follow the shape. The shape is the seasonal component of an STL decomposition (Cleveland
et al. 1990; statsmodels) of the rates in bins of the season, and repeats (Hyndman and Athanasopoulos,
Forecasting: Principles and Practice, 3rd edition, section 5.7). It is robust, and one of square roots, which
have the same variance at any rate (Anscombe 1948), so that an outage does not become part of the shape.

It is incremental in two steps: a tick adds to the open bin and updates the level, some 20 us; a sixth of a
season later the shape is fitted again, some 0.1 s for two weeks in bins of ten minutes. Until two seasons
were seen it is the Kalman forecaster itself. Needs the extra `forecast`: statsmodels brings pandas and scipy,
which no other part of the scaler may need; nothing of it is loaded before the first fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from rapp.errors import ConfigError, MissingExtraError
from scaler.forecast.base import Forecast, State
from scaler.forecast.kalman import Kalman, rescaled

LEAST_SEASONS = 2
"""A season has to be seen twice before it is one."""

FITS_A_SEASON = 6
"""A shape that is four hours old is as good as a new one, where the season is a day."""

MOST_FACTOR = 50.0
"""How far the shape may be from its mean."""


@dataclass(frozen=True, slots=True)
class Seasonal:
    """The forecaster.

    Args:
        season_s: length of the season, s; bins count from time 0 of the clock that `update` is given.
        bins: parts of the season; shorter ones follow it more closely and are noisier.
        seasons: how many are kept.

    Raises:
        MissingExtraError: statsmodels is not installed.
        ConfigError: a value out of its range.
    """

    season_s: float = 86_400.0
    bins: int = 144
    seasons: int = 14

    def __post_init__(self) -> None:
        if not (math.isfinite(self.season_s) and self.season_s > 0):
            raise ConfigError(f"season_s is {self.season_s:g}: it must be a positive number")
        if self.bins < 4 or self.seasons < LEAST_SEASONS:
            raise ConfigError(f"a season needs 4 bins or more, and {LEAST_SEASONS} seasons or more are kept")
        if find_spec("statsmodels") is None:
            raise MissingExtraError("statsmodels", "forecast")

    @property
    def name(self) -> str:
        """Name on the command line."""
        return "seasonal"

    def initial(self) -> State:
        """Nothing seen."""
        return {
            "level": Kalman().initial(), "now_s": 0.0, "bin": None, "count": 0, "seen_s": 0.0,
            "rps": [], "shape": [], "fitted": None,
        }  # fmt: skip

    def update(self, state: State, now_s: float, arrivals: int | None, dt_s: float) -> State:
        """`rps`: rates of the bins before `bin`, null where nothing was counted; `shape`: factors by bin."""
        middle_s = now_s - 0.5 * dt_s
        new = {**state, "now_s": now_s}
        here = math.floor(middle_s * self.bins / self.season_s)
        if new["bin"] is None:
            new["bin"] = here
        if here > new["bin"]:
            self._close_bins(new, here)
        if arrivals is not None:
            new["count"], new["seen_s"] = new["count"] + arrivals, new["seen_s"] + dt_s
        exposure = self._factor(new["shape"], middle_s)
        new["level"] = Kalman().updated(new["level"], arrivals, dt_s, exposure)
        return new

    def forecast(self, state: State, horizon_s: float, quantile: float) -> Forecast:
        """The level's forecast times the shape at the horizon."""
        level = Kalman().forecast(state["level"], horizon_s, quantile)
        factor = self._factor(state["shape"], state["now_s"] + horizon_s)
        return Forecast(level.mean_rps * factor, level.upper_rps * factor)

    def _close_bins(self, new: dict[str, Any], here: int) -> None:
        """Close the open bin, and those that passed unseen, in `new`, a state that nobody else has."""
        # 3/8 of an arrival more: Anscombe's correction for small counts.
        closed = (new["count"] + 0.375) / new["seen_s"] if new["seen_s"] > 0 else None
        unseen = min(here - new["bin"] - 1, self.bins * self.seasons)
        kept = [*new["rps"], closed, *[None] * unseen][-self.bins * self.seasons :]
        new.update(rps=kept, bin=here, count=0, seen_s=0.0)
        due = new["fitted"] is None or here - new["fitted"] >= self.bins // FITS_A_SEASON
        if due and len(kept) >= LEAST_SEASONS * self.bins and any(one is not None for one in kept):
            before = self._factor(new["shape"], new["now_s"])
            new["shape"], new["fitted"] = _shape(kept, here, self.bins), here
            # The rate itself does not jump when the shape changes.
            new["level"] = rescaled(new["level"], before / self._factor(new["shape"], new["now_s"]))

    def _factor(self, shape: list[float], at_s: float) -> float:
        """The shape at a time, straight between the middles of bins; 1 without a shape."""
        if not shape:
            return 1.0
        place = at_s * self.bins / self.season_s - 0.5
        low = math.floor(place)
        first, second = shape[low % self.bins], shape[(low + 1) % self.bins]
        return first + (place - low) * (second - first)


def _shape(rps: list[float | None], end: int, bins: int) -> list[float]:
    """Factors by bin of the season, of geometric mean 1, from rates of the bins before bin `end`."""
    import numpy as np
    from statsmodels.tsa.seasonal import STL  # type: ignore[import-not-found,import-untyped,unused-ignore]

    known = np.array([i for i, value in enumerate(rps) if value is not None])
    series = np.sqrt(np.interp(np.arange(len(rps)), known, [rps[i] for i in known]))
    # Every season counts alike (a span beyond all of them, and a constant fit): what is left of noise is then
    # the least. The jumps leave out points between which the smooth parts are interpolated.
    jump, span = max(bins // 10, 1), 2 * (len(series) // bins) * 10 + 1
    fit = STL(
        series, period=bins, seasonal=span, seasonal_deg=0, trend_jump=jump, low_pass_jump=jump, robust=True
    ).fit()
    last, level = np.asarray(fit.seasonal)[-bins:], float(np.asarray(fit.trend)[-bins:].mean())
    by_bin = np.empty(bins)
    by_bin[np.arange(end - bins, end) % bins] = np.maximum(level + last, 0.0)
    # A quiet night cannot make a level of thousands out of a single arrival.
    factors = np.clip((by_bin / max(level, 1e-9)) ** 2, 1.0 / MOST_FACTOR, MOST_FACTOR)
    return [float(factor) for factor in factors / np.exp(np.log(factors).mean())]
