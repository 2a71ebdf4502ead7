"""How well forecasters would have done on a trace, at the horizon of a cold start.

At each tick a forecaster sees the arrivals up to it, and its forecast is held against the trace's rate in the
tick one horizon later.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rapp.errors import ConfigError
from rapp.types import FloatArray
from scaler.forecast.base import Forecaster
from scaler.trace import ArrivalProcess, Trace

EVERY = "(every function)"
"""What a trace is called whose load is that of every function."""


@dataclass(frozen=True, slots=True)
class Score:
    """Errors of one forecaster on one function.

    Args:
        function, forecaster: names.
        forecasts: how many were scored.
        rate_rps: mean rate of the trace where they were.
        mae_rps: mean absolute error of the mean, rps.
        bias_rps: mean error, forecast less truth, rps.
        rmse_rps: root of the mean squared error, rps.
        coverage: share of the ticks in which the rate was at most `upper_rps`.
        excess_rps: mean of `upper_rps` less the rate: what a scaler that plans for it provides too much.
        pinball_rps: mean pinball loss of `upper_rps` at its quantile, rps: less is better, and no other
            quantile scores better on average (Koenker and Bassett 1978).
    """

    function: str
    forecaster: str
    forecasts: int
    rate_rps: float
    mae_rps: float
    bias_rps: float
    rmse_rps: float
    coverage: float
    excess_rps: float
    pinball_rps: float


def backtest(
    trace: Trace,
    forecasters: list[Forecaster],
    *,
    process: ArrivalProcess = ArrivalProcess.POISSON,
    seed: int = 0,
    horizon_s: float = 5.0,
    quantile: float = 0.95,
    tick_s: float = 1.0,
    score_from_s: float | None = None,
) -> list[Score]:
    """Score forecasters on every function of a trace.

    Args:
        process, seed: how arrivals are drawn from the trace's rates.
        horizon_s: how far ahead; at least one tick, rounded to whole ticks.
        quantile: of the upper end, in [0.5, 1).
        tick_s: time from one observation to the next, s.
        score_from_s: time of the file from which on truth is scored; before it forecasters only learn.

    Raises:
        ConfigError: a value out of its range, or a trace that is shorter than the horizon.
    """
    if not (tick_s > 0 and horizon_s >= tick_s):
        raise ConfigError(f"the horizon, {horizon_s:g} s, must be a tick of {tick_s:g} s or longer")
    if not 0.5 <= quantile < 1:
        raise ConfigError(f"quantile is {quantile:g}: it must lie in [0.5, 1)")
    ahead = round(horizon_s / tick_s)
    first = 0 if score_from_s is None else max(int((score_from_s - trace.start_s) / tick_s), 0)
    names = list(trace.functions) or [EVERY]
    rates, arrivals = trace.rates(names, tick_s), trace.arrivals(names, process, seed)
    # A last tick that is cut short would count as a whole one.
    ticks = int(trace.duration_s / tick_s + 1e-9)
    scored = slice(max(first - ahead, 0), ticks - ahead)
    if scored.stop <= scored.start:
        raise ConfigError(f"{trace.source}: {trace.duration_s:g} s hold no forecast {horizon_s:g} s ahead")
    scores = []
    for name in names:
        counts = np.bincount((arrivals[name] / tick_s).astype(np.int64), minlength=ticks)[:ticks]
        truth = rates[name][scored.start + ahead : ticks]
        for one in forecasters:
            mean, upper = _run(one, counts.tolist(), tick_s, horizon_s, quantile)
            scores.append(_score(name, one.name, mean[scored], upper[scored], truth, quantile))
    return scores


def _run(
    one: Forecaster, counts: list[int], tick_s: float, horizon_s: float, quantile: float
) -> tuple[FloatArray, FloatArray]:
    """Mean and upper end of the forecast after each tick, rps, (ticks,) each."""
    state, mean, upper = one.initial(), np.empty(len(counts)), np.empty(len(counts))
    for tick, count in enumerate(counts):
        state = one.update(state, (tick + 1) * tick_s, count, tick_s)
        forecast = one.forecast(state, horizon_s, quantile)
        mean[tick], upper[tick] = forecast.mean_rps, forecast.upper_rps
    return mean, upper


def _score(
    function: str, name: str, mean: FloatArray, upper: FloatArray, truth: FloatArray, quantile: float
) -> Score:
    error, excess = mean - truth, upper - truth
    pinball = np.where(excess < 0, -quantile * excess, (1 - quantile) * excess)
    return Score(
        function=function,
        forecaster=name,
        forecasts=len(truth),
        rate_rps=float(truth.mean()),
        mae_rps=float(np.abs(error).mean()),
        bias_rps=float(error.mean()),
        rmse_rps=float(np.sqrt((error**2).mean())),
        coverage=float((excess >= 0).mean()),
        excess_rps=float(excess.mean()),
        pinball_rps=float(pinball.mean()),
    )
