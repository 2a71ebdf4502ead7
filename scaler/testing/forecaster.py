"""The contract of `scaler.forecast.base.Forecaster`."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable, Sequence

import numpy as np

from rapp.errors import MissingExtraError
from scaler.forecast.base import Forecaster, State

try:
    import pytest
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
except ModuleNotFoundError as error:
    raise MissingExtraError(str(error.name), "dev") from error

# A forecaster keeps nothing, so that examples may share it; the machines of tests are shared too.
_shared = settings(
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
Counts = Sequence[int | None]
_counts = st.lists(st.none() | st.integers(0, 2000), max_size=40)


class ForecasterContract:
    """A subclass overrides the fixture `forecaster`."""

    settle_s: int = 600
    """Ticks of 1 s after which a forecaster must have learned a constant rate."""

    @pytest.fixture
    def forecaster(self) -> Forecaster:
        """The forecaster under test."""
        raise NotImplementedError("a subclass of ForecasterContract overrides the fixture `forecaster`")

    def test_it_has_a_name(self, forecaster: Forecaster) -> None:
        assert isinstance(forecaster.name, str)
        assert forecaster.name

    def test_of_a_function_that_was_never_seen_nothing_is_expected(self, forecaster: Forecaster) -> None:
        for state in (forecaster.initial(), run(forecaster, [None, None])):
            forecast = forecaster.forecast(state, 5.0, 0.95)
            assert (forecast.mean_rps, forecast.upper_rps) == (0, 0)

    @given(counts=_counts, horizon_s=st.floats(0, 60), quantile=st.floats(0.5, 0.999))
    @_shared
    def test_the_upper_quantile_is_not_below_the_mean_nor_the_mean_below_nothing(
        self, forecaster: Forecaster, counts: Counts, horizon_s: float, quantile: float
    ) -> None:
        state = run(forecaster, counts)
        low, high = (forecaster.forecast(state, horizon_s, q) for q in (quantile, (quantile + 1) / 2))
        assert math.isfinite(high.upper_rps)
        assert 0 <= low.mean_rps <= low.upper_rps <= high.upper_rps
        assert low.mean_rps == high.mean_rps

    @given(counts=_counts, more=_counts)
    @_shared
    def test_a_state_survives_json_and_answers_and_goes_on_alike(
        self, forecaster: Forecaster, counts: Counts, more: Counts
    ) -> None:
        state = run(forecaster, counts)
        restored = json.loads(json.dumps(state, allow_nan=False))
        assert forecaster.forecast(restored, 5.0, 0.9) == forecaster.forecast(state, 5.0, 0.9)
        start = len(counts)
        assert run(forecaster, more, restored, start) == run(forecaster, more, state, start)

    @given(counts=_counts, count=st.none() | st.integers(0, 100))
    @_shared
    def test_an_update_leaves_the_state_before_it_as_it_was(
        self, forecaster: Forecaster, counts: Counts, count: int | None
    ) -> None:
        state = run(forecaster, counts)
        before = copy.deepcopy(state)
        forecaster.update(state, len(counts) + 1.0, count, 1.0)
        forecaster.forecast(state, 5.0, 0.9)
        assert state == before

    def test_one_function_does_not_touch_another(self, forecaster: Forecaster) -> None:
        one, other = (
            np.random.default_rng(seed).poisson(rate, 60).tolist() for seed, rate in ((0, 5), (1, 90))
        )
        alone = run(forecaster, one)
        first, second = forecaster.initial(), forecaster.initial()
        for tick, (a, b) in enumerate(zip(one, other, strict=True)):
            first = forecaster.update(first, tick + 1.0, a, 1.0)
            second = forecaster.update(second, tick + 1.0, b, 1.0)
        assert first == alone
        assert second == run(forecaster, other)

    @pytest.mark.parametrize("rate", [2, 50, 1000])
    def test_of_a_constant_rate_the_mean_is_unbiased_and_the_quantile_holds(
        self, forecaster: Forecaster, rate: int
    ) -> None:
        counts = np.random.default_rng(rate).poisson(rate, 3 * self.settle_s).tolist()
        state, mean, held = forecaster.initial(), [], []
        for tick, count in enumerate(counts):
            state = forecaster.update(state, tick + 1.0, count, 1.0)
            forecast = forecaster.forecast(state, 5.0, 0.95)
            mean.append(forecast.mean_rps)
            held.append(forecast.upper_rps >= rate)
        settled = slice(self.settle_s, None)
        # The arrivals themselves are off by this much on average; five of it.
        error = 5 * math.sqrt(rate / len(counts[settled]))
        assert np.mean(mean[settled]) == pytest.approx(rate, abs=error)
        assert np.mean(held[settled]) >= 0.9

    def test_without_arrivals_nothing_is_expected_any_more(self, forecaster: Forecaster) -> None:
        state = run(forecaster, [20] * self.settle_s + [0] * self.settle_s)
        forecast = forecaster.forecast(state, 5.0, 0.95)
        assert forecast.mean_rps < 0.2
        assert forecast.upper_rps < 2

    def test_ten_times_the_arrivals_are_ten_times_the_rate(self, forecaster: Forecaster) -> None:
        pattern = np.random.default_rng(3).poisson(40, self.settle_s)
        small, large = (
            forecaster.forecast(run(forecaster, (scale * pattern).tolist()), 5.0, 0.95) for scale in (1, 10)
        )
        assert large.mean_rps == pytest.approx(10 * small.mean_rps, rel=0.1)
        # And more than ten times as uncertain: bursts of ten are beyond the Poisson noise that is left out.
        assert large.upper_rps - large.mean_rps > 8 * (small.upper_rps - small.mean_rps)

    def test_twenty_seconds_without_an_observation_change_little(self, forecaster: Forecaster) -> None:
        seen = run(forecaster, [30] * self.settle_s)
        gap = run(forecaster, [None] * 20, seen, self.settle_s)
        assert forecaster.forecast(gap, 5.0, 0.95).mean_rps == pytest.approx(30, rel=0.05)
        after = run(forecaster, [30] * 5, gap, self.settle_s + 20)
        assert forecaster.forecast(after, 5.0, 0.95).mean_rps == pytest.approx(30, rel=0.05)

    def test_arrivals_of_a_longer_tick_are_a_rate_too(self, forecaster: Forecaster) -> None:
        state = run(forecaster, [30] * self.settle_s)
        state = forecaster.update(state, self.settle_s + 20.0, 600, 20.0)
        assert forecaster.forecast(state, 5.0, 0.95).mean_rps == pytest.approx(30, rel=0.05)
        slow, now_s = forecaster.initial(), 0.0
        for _ in range(self.settle_s // 2):
            now_s += 2.0
            slow = forecaster.update(slow, now_s, 60, 2.0)
        assert forecaster.forecast(slow, 5.0, 0.95).mean_rps == pytest.approx(30, rel=0.05)

    def test_a_rise_is_followed_within_the_horizon_of_a_cold_start(self, forecaster: Forecaster) -> None:
        state = run(forecaster, [10] * self.settle_s + [100] * 5)
        assert forecaster.forecast(state, 5.0, 0.95).upper_rps > 80


def run(
    forecaster: Forecaster, counts: Iterable[int | None], state: State | None = None, start: int = 0
) -> State:
    """The state after ticks of 1 s with these counts, from `state` at `start` seconds on."""
    state = forecaster.initial() if state is None else state
    for tick, count in enumerate(counts, start):
        state = forecaster.update(state, tick + 1.0, count, 1.0)
    return state
