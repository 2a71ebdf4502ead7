"""Kalman filters of level and trend, averaged by how well each has predicted the function's own arrivals.

One filter is the local linear trend with damping (Gardner and McKenzie 1985; Harvey 1989, section 2.3):

    level' = level + phi trend + noise     trend' = phi trend + noise     arrivals / dt = level + noise

How fast a level moves against how noisy its ticks are decides everything, and differs from one function to
the next and from hour to hour. So there are four filters, from steady to brisk (`MODES`), all fed with each
tick, whose weights follow their predictive likelihoods with forgetting (dynamic model averaging: Raftery,
Karny, Ettler 2010). Noise variances are in units of the variance of a Poisson count, rate / dt, times a scale
that each filter learns from its errors (West and Harrison 1997, section 10.8): 1 for Poisson arrivals, less
for even ones, more for bursts. The rate in that unit is the steady filter's level, that of the last minutes:
a burst does not become less likely because it is quiet just now.

With variances in these units a filter's gains do not depend on the arrivals, so each is linear in them and
unbiased where the rate is stationary. Nothing is added to the level for safety; `upper_rps` is for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import exp, log, log1p
from typing import Any, NamedTuple

from scaler.forecast.base import Forecast, State, upper


class Mode(NamedTuple):
    """How fast level and trend of one filter move.

    Args:
        level: variance that the level gains in a second, in units of that of a second's Poisson count.
        trend: the same of the trend.
    """

    level: float
    trend: float


MODES = (Mode(1e-4, 0.0), Mode(1e-2, 1e-4), Mode(1e-1, 3e-3), Mode(10.0, 0.0))
"""Steady, drifting, ramping, last value: on a tick of 1 s their gains end at 0.01, 0.14, 0.35 and 0.92.

They and the constants below were chosen on synthetic series (constant, ramp, sine, steps, random walk,
on-off) and the first halves of traces, by error and pinball loss 5 and 15 s ahead. What they do on second
halves is for `rapp forecast backtest --score-from` to say."""

DAMPING = 0.97
"""Share of the trend that is left after a second: it is followed for half a minute, not for ever."""

FORGETTING = 0.99
"""Share of the evidence about the filters that counts after a second."""

LEAST_WEIGHT = 1e-4
"""No filter falls below this weight, so that one misfit is enough to bring the brisk one back."""

SCALE_RATE = 0.02
"""Weight of a second's squared error in a filter's scale: a memory of 50 s."""

LEAST_SCALE = 0.05
"""Even arrivals have no variance at all; a scale of 0 could never grow again."""

TAIL = 6.0
"""Degrees of freedom of the predictive Student-t: one wild tick changes the weights little."""

LEAST_RPS = 0.05
"""Rate whose Poisson variance is the least: without it nothing that follows a silence would be believed."""


@dataclass(frozen=True, slots=True)
class Kalman:
    """The forecaster.

    The state: `filters`, a list of [level, trend, variance of the level, covariance, variance of the trend,
    scale] for each of `MODES`; `weights` of the filters; `tick_s`, the length of the last tick.
    """

    @property
    def name(self) -> str:
        """Name on the command line."""
        return "kalman"

    def initial(self) -> State:
        """Nothing seen."""
        return {"filters": [], "weights": [], "tick_s": 1.0}

    def update(self, state: State, now_s: float, arrivals: int | None, dt_s: float) -> State:
        """All filters move on by `dt_s`; a tick that was not counted corrects none of them."""
        return self.updated(state, arrivals, dt_s)

    def updated(self, state: State, arrivals: int | None, dt_s: float, exposure: float = 1.0) -> State:
        """As `update`; the arrivals are expected to be `exposure` times the level's."""
        if not state["filters"]:
            return state if arrivals is None else _begun(arrivals / (dt_s * exposure), dt_s, exposure)
        moved = _moved(state["filters"], dt_s)
        if arrivals is None:
            return {**state, "filters": moved}
        rps, seen_s = arrivals / (dt_s * exposure), dt_s * exposure
        corrected, fits = _corrected(moved, rps, seen_s, _unit(state), 1.0 - (1.0 - SCALE_RATE) ** dt_s)
        weights = _weighed(state["weights"], fits, FORGETTING**dt_s)
        return {"filters": corrected, "weights": weights, "tick_s": seen_s}

    def forecast(self, state: State, horizon_s: float, quantile: float) -> Forecast:
        """Mean and variance of the mixture of the filters."""
        if not state["filters"]:
            return Forecast(0.0, 0.0)
        poisson, tick_s = _unit(state), state["tick_s"]
        reach, moving = _until(horizon_s)
        mean = square = 0.0
        for (level, trend, p_ll, p_lt, p_tt, scale), gained, weight in zip(
            state["filters"], moving, state["weights"], strict=True
        ):
            rps = level + reach * trend
            if rps < 0.0:
                rps = 0.0
            variance = scale * (p_ll + reach * (2.0 * p_lt + reach * p_tt) + gained)
            if scale > 1.0:
                # Of a tick's own scatter only what a Poisson process does not explain is one of the rate.
                variance += (scale - 1.0) / tick_s
            mean += weight * rps
            square += weight * (rps * rps + poisson * variance)
        return upper(mean, square - mean * mean, quantile)


@lru_cache(maxsize=1024)
def _until(horizon_s: float) -> tuple[float, tuple[float, ...]]:
    """Sum of the trend's damped steps to a horizon; the variance each filter's level gains by then."""
    reach = DAMPING * (1.0 - DAMPING**horizon_s) / (1.0 - DAMPING)
    drift = horizon_s * reach * reach / 3.0
    return reach, tuple(mode.level * horizon_s + mode.trend * drift for mode in MODES)


def rescaled(state: State, factor: float) -> State:
    """The state with every level and trend multiplied: what is known, in another unit of the rate."""
    filters = [[f[0] * factor, f[1] * factor, *f[2:]] for f in state["filters"]]
    return {**state, "filters": filters}


def _unit(state: State) -> float:
    """Variance of a second's Poisson count at the rate of the last minutes, rps^2."""
    return max(float(state["filters"][0][0]), LEAST_RPS)


def _begun(rps: float, dt_s: float, exposure: float) -> dict[str, Any]:
    """The first tick is all that is known of the level; the trend is taken to be none."""
    filters = [[rps, 0.0, 1.0 / (dt_s * exposure), 0.0, 0.0, 1.0] for _ in MODES]
    weights = [1.0 / len(MODES)] * len(MODES)
    return {"filters": filters, "weights": weights, "tick_s": dt_s * exposure}


# A controller of a hundred functions does this four hundred times a tick, so each loop is one call.
def _moved(filters: list[list[float]], dt_s: float) -> list[list[float]]:
    """The filters after `dt_s` seconds without news."""
    damping, found = DAMPING**dt_s, []
    for (level, trend, p_ll, p_lt, p_tt, scale), (by_level, by_trend) in zip(filters, MODES, strict=True):
        trend, p_lt, p_tt = damping * trend, damping * p_lt, damping * damping * p_tt
        level, p_ll = level + trend, p_ll + 2.0 * p_lt + p_tt + by_level * dt_s
        found.append([level, trend, p_ll, p_lt + p_tt, p_tt + by_trend * dt_s, scale])
    return found


def _corrected(
    filters: list[list[float]], rps: float, seen_s: float, poisson: float, rate: float
) -> tuple[list[list[float]], list[float]]:
    """The filters corrected by a tick's rate; the log likelihoods that they gave that rate."""
    found, fits, noise, tail = [], [], 1.0 / seen_s, 0.5 * (TAIL + 1.0)
    for level, trend, p_ll, p_lt, p_tt, scale in filters:
        total = p_ll + noise
        error, by_level, by_trend = rps - level, p_ll / total, p_lt / total
        surprise, kept = error * error / (total * poisson), 1.0 - by_level
        learned = scale + rate * (surprise - scale)
        if learned < LEAST_SCALE:
            learned = LEAST_SCALE
        fits.append(-0.5 * log(scale * total) - tail * log1p(surprise / (scale * TAIL)))
        level, trend, p_tt = level + by_level * error, trend + by_trend * error, p_tt - by_trend * p_lt
        found.append([level, trend, p_ll * kept, p_lt * kept, p_tt, learned])
    return found, fits


def _weighed(weights: list[float], fits: list[float], forgetting: float) -> list[float]:
    best = max(fits)
    raw = [weight**forgetting * exp(fit - best) for weight, fit in zip(weights, fits, strict=True)]
    least = LEAST_WEIGHT * sum(raw)
    floored = [one if one > least else least for one in raw]
    total = sum(floored)
    return [one / total for one in floored]
