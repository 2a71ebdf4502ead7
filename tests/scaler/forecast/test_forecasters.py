"""The three forecasters under the contract, and what each of them promises beyond it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from rapp.errors import ConfigError
from scaler.forecast.base import Forecaster, normal_quantile
from scaler.forecast.kalman import MODES, Kalman
from scaler.forecast.last_value import LastValue
from scaler.forecast.registry import NAMES, forecaster
from scaler.testing import ForecasterContract
from scaler.testing.forecaster import run


class TestLastValue(ForecasterContract):
    @pytest.fixture
    def forecaster(self) -> Forecaster:
        return LastValue()

    def test_it_is_the_rate_of_the_last_tick(self) -> None:
        assert LastValue().forecast(run(LastValue(), [3, 9, None]), 5.0, 0.5).mean_rps == 9

    def test_its_deviation_grows_with_the_root_of_the_horizon(self) -> None:
        state = run(LastValue(), [10, 14] * 300)
        near, far = (LastValue().forecast(state, horizon, 0.95) for horizon in (1.0, 4.0))
        # A change of 4 rps each tick.
        assert near.upper_rps - 14 == pytest.approx(4 * 1.645, rel=1e-3)
        assert far.upper_rps - 14 == pytest.approx(2 * 4 * 1.645, rel=1e-3)


class TestKalman(ForecasterContract):
    @pytest.fixture
    def forecaster(self) -> Forecaster:
        return Kalman()

    def test_it_is_steadier_than_the_last_value_and_as_quick_to_follow_a_step(self) -> None:
        counts = np.random.default_rng(0).poisson(np.repeat([100, 300], 300))
        means = [
            Kalman().forecast(run(Kalman(), counts[:n].tolist()), 5.0, 0.95).mean_rps for n in (300, 303)
        ]
        settled = [
            Kalman().forecast(run(Kalman(), counts[:n].tolist()), 5.0, 0.95).mean_rps for n in range(250, 300)
        ]
        # The last value would scatter by 10.
        assert np.std(settled) < 4
        assert means[0] == pytest.approx(100, abs=8)
        assert means[1] == pytest.approx(300, rel=0.1)

    def test_a_ramp_is_continued_and_not_for_ever(self) -> None:
        state = run(Kalman(), [10 + 2 * tick for tick in range(60)])
        last = 10 + 2 * 59
        means = [Kalman().forecast(state, horizon, 0.95).mean_rps for horizon in (5.0, 60.0, 3600.0)]
        assert last + 3 < means[0] < last + 12
        assert means[1] < last + 2 * 40
        assert means[2] == pytest.approx(means[1], rel=0.2)

    def test_even_arrivals_need_less_above_the_mean_than_poisson_ones_and_those_less_than_bursts(
        self,
    ) -> None:
        rng = np.random.default_rng(1)
        series = ([50] * 600, rng.poisson(50, 600).tolist(), (5 * rng.poisson(10, 600)).tolist())
        spread = []
        for counts in series:
            forecast = Kalman().forecast(run(Kalman(), counts), 5.0, 0.95)
            spread.append(forecast.upper_rps - forecast.mean_rps)
        assert spread[0] < 0.5 * spread[1]
        assert spread[1] < 0.5 * spread[2]
        # Bursts of five: the variance of a second's rate is 250, of which 50 are a Poisson process's.
        assert spread[2] == pytest.approx(1.645 * np.sqrt(200), rel=0.35)

    def test_the_longer_nothing_was_seen_the_less_is_known(self) -> None:
        state = run(Kalman(), np.random.default_rng(2).poisson(50, 300).tolist())
        spread = []
        for seconds in (0, 10, 60):
            forecast = Kalman().forecast(run(Kalman(), [None] * seconds, state, 300), 5.0, 0.95)
            spread.append(forecast.upper_rps - forecast.mean_rps)
        assert spread[0] < spread[1] < spread[2]

    def test_the_modes_gains_are_as_their_comment_says(self) -> None:
        gains = []
        for index in range(len(MODES)):
            one = run(Kalman(), [10] * 3000)["filters"][index]
            # After the correction the level's variance is the gain, in units of the tick's.
            gains.append(one[2])
        np.testing.assert_allclose(gains, [0.01, 0.14, 0.35, 0.92], atol=0.005)

    def test_a_constant_bias_is_nowhere_added(self) -> None:
        for rate in (0, 1, 15, 500):
            state = run(Kalman(), [rate] * 600)
            assert Kalman().forecast(state, 5.0, 0.95).mean_rps == pytest.approx(rate, abs=1e-6)


class TestSeasonal(ForecasterContract):
    @pytest.fixture
    def forecaster(self) -> Forecaster:
        pytest.importorskip("statsmodels")
        return forecaster("seasonal")


class TestSeasonalWithAShortSeason(ForecasterContract):
    """The shape is fitted within the contract's tests."""

    @pytest.fixture
    def forecaster(self) -> Forecaster:
        pytest.importorskip("statsmodels")
        from scaler.forecast.seasonal import Seasonal

        return Seasonal(season_s=120.0, bins=12, seasons=8)

    def test_what_comes_each_season_is_foreseen(self, forecaster: Forecaster) -> None:
        tick = np.arange(1200)
        rate = np.where(tick % 120 < 60, 20.0, 200.0)
        counts = np.random.default_rng(0).poisson(rate)
        state, before = run(forecaster, counts[:1015].tolist()), run(Kalman(), counts[:1015].tolist())
        # At 1,015 s the quiet half began 55 s ago and the busy one is 5 s away: 15 s ahead it is there.
        assert rate[1014] == 20
        assert rate[1030] == 200
        assert forecaster.forecast(state, 15.0, 0.95).mean_rps == pytest.approx(200, rel=0.25)
        assert Kalman().forecast(before, 15.0, 0.95).mean_rps < 40

    def test_before_two_seasons_it_is_the_level_alone(self, forecaster: Forecaster) -> None:
        counts = np.random.default_rng(0).poisson(20, 230).tolist()
        expected = Kalman().forecast(run(Kalman(), counts), 5.0, 0.95)
        assert forecaster.forecast(run(forecaster, counts), 5.0, 0.95) == expected

    def test_a_day_of_silence_is_no_shape(self, forecaster: Forecaster) -> None:
        counts: list[int | None] = [20] * 300 + [None] * 500 + [20] * 60
        assert forecaster.forecast(run(forecaster, counts), 5.0, 0.95).mean_rps == pytest.approx(20, rel=0.1)


def test_the_seasonal_forecaster_without_its_library_is_a_typed_error() -> None:
    code = (
        "import sys, importlib.util\n"
        "find = importlib.util.find_spec\n"
        "sys.modules['statsmodels'] = None\n"
        "from rapp.errors import MissingExtraError\n"
        "from scaler.forecast.registry import forecaster\n"
        "try:\n    forecaster('seasonal')\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "statsmodels is not installed: pip install 'rapp[forecast]'"


def test_forecasters_load_no_heavy_library() -> None:
    code = (
        "import sys\n"
        "import scaler.forecast.kalman, scaler.forecast.seasonal, scaler.forecast.registry\n"
        "import scaler.functions, scaler.trace, scaler.sources.opening, scaler.sources.table\n"
        "print({'pandas', 'torch', 'scipy', 'statsmodels', 'onnx', 'onnxruntime', 'pyarrow', 'yaml'}"
        " & {name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_names_on_a_command_line() -> None:
    pytest.importorskip("statsmodels")
    assert [forecaster(name).name for name in NAMES] == list(NAMES)
    with pytest.raises(ConfigError, match=r"no forecaster 'kalmann' \(near: kalman\)"):
        forecaster("kalmann")
    with pytest.raises(ConfigError, match="season_s is -1"):
        forecaster("seasonal", season_s=-1)


def test_a_quantile_that_is_no_upper_one() -> None:
    assert normal_quantile(0.975) == pytest.approx(1.96, abs=1e-3)
    for quantile in (0.4, 1.0, float("nan")):
        with pytest.raises(ValueError, match="an upper one lies in"):
            normal_quantile(quantile)
