"""Scores of forecasters whose errors are known."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from rapp.errors import ConfigError
from scaler.arrivals import RateSteps
from scaler.forecast.backtest import EVERY, backtest
from scaler.forecast.base import Forecast, State
from scaler.forecast.kalman import Kalman
from scaler.forecast.last_value import LastValue
from scaler.trace import ArrivalProcess, Trace

EVEN = ArrivalProcess.EVEN


@dataclass(frozen=True)
class Fixed:
    """Always the same forecast."""

    mean_rps: float
    upper_rps: float
    name: str = "fixed"

    def initial(self) -> State:
        return {}

    def update(self, state: State, now_s: float, arrivals: int | None, dt_s: float) -> State:
        return state

    def forecast(self, state: State, horizon_s: float, quantile: float) -> Forecast:
        return Forecast(self.mean_rps, self.upper_rps)


def test_errors_of_a_fixed_forecast():
    trace = Trace.of_rates([10, 20] * 50)
    (score,) = backtest(trace, [Fixed(16, 18)], process=EVEN, horizon_s=2, quantile=0.9)
    assert (score.function, score.forecaster, score.forecasts) == (EVERY, "fixed", 98)
    assert score.rate_rps == 15
    assert score.bias_rps == pytest.approx(1)
    assert score.mae_rps == pytest.approx((6 + 4) / 2)
    assert score.rmse_rps == pytest.approx(np.sqrt((36 + 16) / 2))
    assert score.coverage == pytest.approx(0.5)
    assert score.excess_rps == pytest.approx(3)
    assert score.pinball_rps == pytest.approx((0.1 * 8 + 0.9 * 2) / 2)


def test_the_forecast_of_a_tick_is_held_against_the_rate_one_horizon_later():
    # With a period of four ticks the last value is exactly right four ticks ahead, and wrong two ahead.
    trace = Trace.of_rates([10, 20, 30, 40] * 20)
    right, wrong = (backtest(trace, [LastValue()], process=EVEN, horizon_s=h)[0] for h in (4, 2))
    assert right.mae_rps == 0
    assert wrong.mae_rps == 20


def test_ticks_may_be_longer_and_the_last_cut_short():
    trace = Trace.of_rates([10] * 21)
    (score,) = backtest(trace, [LastValue()], process=EVEN, horizon_s=4, tick_s=2)
    assert score.forecasts == 10 - 2
    assert score.mae_rps == 0


def test_what_came_before_is_learned_and_not_scored():
    trace = Trace.of_rates([50] * 200 + [10] * 100)
    (score,) = backtest(trace, [Kalman()], process=EVEN, score_from_s=250)
    assert (score.forecasts, score.rate_rps) == (50, 10)
    assert score.mae_rps < 0.5


def test_functions_are_scored_one_by_one():
    edges = np.arange(101.0)
    trace = Trace.of({"a": RateSteps(edges, np.full(100, 5.0)), "b": RateSteps(edges, np.full(100, 50.0))})
    scores = backtest(trace, [LastValue(), Kalman()], process=EVEN)
    assert [(s.function, s.forecaster, s.rate_rps) for s in scores] == [
        ("a", "last-value", 5), ("a", "kalman", 5), ("b", "last-value", 50), ("b", "kalman", 50)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon_s": 0.5}, "the horizon, 0.5 s, must be a tick"),
        ({"quantile": 1.0}, "quantile is 1"),
        ({"horizon_s": 100}, "hold no forecast 100 s ahead"),
        ({"score_from_s": 1000}, "hold no forecast"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ConfigError, match=message):
        backtest(Trace.of_rates([10] * 50), [LastValue()], **options)


@pytest.mark.skipif("RAPP_TRACES_DIR" not in os.environ, reason="RAPP_TRACES_DIR is not set")
def test_on_a_day_of_smooth_load_the_level_beats_the_last_value():
    trace = Trace.read(Path(os.environ.get("RAPP_TRACES_DIR", "")) / "servegen_m_small_600s.csv")
    naive, kalman = backtest(trace.window(0, 6 * 3600).scaled(0.05), [LastValue(), Kalman()])
    assert kalman.mae_rps < 0.4 * naive.mae_rps
    assert kalman.pinball_rps < 0.5 * naive.pinball_rps
    assert kalman.coverage > 0.93
    assert abs(kalman.bias_rps) < 0.01 * kalman.rate_rps
