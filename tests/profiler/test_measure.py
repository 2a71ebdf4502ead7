"""`measure` on sessions whose distribution is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from profiler.device import Block, Failure, MeasureError
from profiler.measure import LEAST_SAMPLES, Measurement, StopRule, measure
from rapp.errors import ConfigError

MEDIAN_MS = 10.0


@dataclass
class Synthetic:
    """Log-normal batches in virtual time.

    Args:
        median_ms: of one batch. spread: standard deviation of its logarithm.
        disturbance: the cause that block i (from 0) tells.
        warming: factor on the time of run i (from 0).
        pause_s: what each batch adds to the clock beyond its wall time.
    """

    median_ms: float = MEDIAN_MS
    spread: float = 0.0
    seed: int = 0
    disturbance: Callable[[int], str | None] = lambda _: None
    warming: Callable[[int], float] = lambda _: 1.0
    pause_s: float = 0.0
    counts: list[int] = field(default_factory=list)
    now_s: float = 0.0

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    def run(self, count: int) -> Block:
        first, cause = sum(self.counts), self.disturbance(len(self.counts))
        self.counts.append(count)
        noise = np.exp(self._random.normal(0.0, self.spread, count))
        factor = np.array([self.warming(first + i) for i in range(count)])
        wall_ms = self.median_ms * noise * factor * (3.0 if cause else 1.0)
        self.now_s += self.pause_s * count
        return Block(wall_ms, device_ms=wall_ms / 2, launch_ms=wall_ms / 4, disturbance=cause)

    def clock(self) -> float:
        return self.now_s


def measured(session: Synthetic, rule: StopRule | None = None) -> Measurement:
    return measure(session, rule, clock=session.clock)


@pytest.mark.parametrize(
    ("spread", "low", "high"), [(0.003, 20, 20), (0.01, 20, 30), (0.03, 50, 90), (0.08, 330, 450)]
)
def test_samples_that_a_spread_needs(spread: float, low: int, high: int) -> None:
    found = [measured(Synthetic(spread=spread, seed=seed)) for seed in range(60)]
    assert low <= np.median([one.n_samples for one in found]) <= high
    errors = [abs(one.median_ms / MEDIAN_MS - 1) for one in found]
    assert np.mean(errors) < 0.006
    for one in found:
        assert one.median_low_ms is not None
        assert one.median_high_ms is not None
        half = (one.median_high_ms - one.median_low_ms) / 2
        assert one.converged == (half <= 0.01 * one.median_ms)
        assert one.converged or one.n_samples == 500


def test_stopping_at_the_first_narrow_interval_costs_little_of_its_confidence() -> None:
    found = [measured(Synthetic(spread=0.05, seed=seed)) for seed in range(250)]
    holds = [one.median_low_ms <= MEDIAN_MS <= one.median_high_ms for one in found]  # type: ignore[operator]
    assert np.mean(holds) > 0.88


def test_figures_are_those_of_the_samples() -> None:
    session = Synthetic(spread=0.5)
    found = measured(session, StopRule(max_samples=1000, block=100, max_seconds=1e3))
    samples = np.exp(np.random.default_rng(0).normal(0.0, 0.5, sum(session.counts)))[-1000:] * MEDIAN_MS
    assert found.n_samples == 1000
    assert not found.converged
    assert found.latency_ms == pytest.approx(samples.mean())
    assert found.median_ms == pytest.approx(np.median(samples))
    assert found.mad_ms == pytest.approx(np.median(np.abs(samples - np.median(samples))))
    assert found.p95_ms == pytest.approx(np.quantile(samples, 0.95), rel=0.01)
    assert found.p99_ms == pytest.approx(np.quantile(samples, 0.99), rel=0.02)
    assert found.device_ms == pytest.approx(samples.mean() / 2)
    assert found.launch_ms == pytest.approx(samples.mean() / 4)
    assert found.warm_up_runs == sum(session.counts) - 1000


@pytest.mark.parametrize(
    ("samples", "has_p95", "has_p99"),
    [(99, False, False), (100, True, False), (999, True, False), (1000, True, True)],
)
def test_percentiles_need_samples_beyond_them(samples: int, has_p95: bool, has_p99: bool) -> None:
    rule = StopRule(1e-9, max_samples=samples, block=50, max_seconds=1e3)
    found = measured(Synthetic(spread=0.1), rule)
    assert found.n_samples == samples
    assert (found.p95_ms is not None, found.p99_ms is not None) == (has_p95, has_p99)


def test_warm_up_lasts_until_two_blocks_agree() -> None:
    session = Synthetic(warming=lambda run: max(1.0, 3.0 - 0.05 * run))
    found = measured(session)
    # Run 40 is the first at its final speed; blocks are runs 3-12, 13-22, ..., 43-52, 53-62.
    assert found.warm_up_runs == 63
    assert found.latency_ms == pytest.approx(MEDIAN_MS)
    assert session.counts[:3] == [1, 1, 1]


def test_warm_up_is_short_where_blocks_never_agree() -> None:
    session = Synthetic(warming=lambda run: 1.1 ** (run // 10 % 2 * 5))
    found = measured(session)
    assert 5000 <= found.warm_up_runs * MEDIAN_MS * 1.3 <= 7000
    assert found.n_samples == 500


def test_long_batches_end_by_time_with_few_samples() -> None:
    session = Synthetic(median_ms=20_000.0)
    found = measured(session)
    assert (found.n_samples, found.warm_up_runs, found.converged) == (LEAST_SAMPLES, 1, False)
    assert found.latency_ms == pytest.approx(20_000)
    assert (found.median_low_ms, found.median_high_ms, found.p95_ms) == (None, None, None)


def test_blocks_shrink_to_the_time_left() -> None:
    session = Synthetic(median_ms=2_000.0)
    found = measured(session)
    assert found.n_samples == 15
    assert sum(session.counts) * 2 <= 5 + 2 + 30


def test_pauses_count_too() -> None:
    session = Synthetic(spread=0.1, pause_s=1.0)
    found = measured(session, StopRule(1e-9))
    assert 25 <= found.n_samples <= 31


def test_disturbed_blocks_are_left_out_with_their_cause() -> None:
    causes = {6: "throttled", 7: "other process", 8: "throttled"}
    session = Synthetic(spread=0.03, disturbance=causes.get)
    found = measured(session)
    assert found.rejected == {"throttled": 2, "other process": 1}
    assert found.converged
    assert not found.counts_rejected
    # The disturbed blocks take three times as long.
    assert found.latency_ms == pytest.approx(MEDIAN_MS, rel=0.02)
    assert found.n_samples == sum(session.counts) - found.warm_up_runs - 30


def test_a_sample_is_never_left_out_for_its_value() -> None:
    session = Synthetic(warming=lambda run: 100.0 if run == 30 else 1.0)
    found = measured(session)
    assert found.latency_ms == pytest.approx(MEDIAN_MS * (1 + 99 / found.n_samples))
    assert found.median_ms == pytest.approx(MEDIAN_MS)


def test_on_a_busy_machine_everything_counts_and_nothing_has_converged() -> None:
    session = Synthetic(disturbance=lambda _: "other process")
    found = measured(session)
    assert found.rejected == {"other process": 10}
    assert (found.converged, found.counts_rejected, found.n_samples) == (False, True, 100)
    assert found.latency_ms == pytest.approx(3 * MEDIAN_MS)


def test_enough_undisturbed_blocks_count_alone_even_if_they_are_the_fewer() -> None:
    rule = StopRule(1e-9)
    session = Synthetic(spread=0.01, disturbance=lambda block: "other process" if block % 3 else None)
    found = measured(session, rule)
    assert (found.converged, found.counts_rejected) == (False, False)
    assert found.rejected["other process"] > found.n_samples / rule.block >= 2
    assert found.latency_ms == pytest.approx(MEDIAN_MS, rel=0.01)


def test_a_device_that_tells_nothing_leaves_its_columns_empty() -> None:
    class Silent(Synthetic):
        def run(self, count: int) -> Block:
            return Block(super().run(count).wall_ms)

    found = measured(Silent())
    assert (found.device_ms, found.launch_ms) == (None, None)


def test_a_failure_passes_through() -> None:
    class Failing(Synthetic):
        def run(self, count: int) -> Block:
            raise MeasureError(Failure.TIMEOUT, "no answer")

    with pytest.raises(MeasureError, match="time-out: no answer"):
        measured(Failing())


@pytest.mark.parametrize(
    "wrong",
    [
        {"relative_half_width": 0.0},
        {"min_samples": 0},
        {"max_samples": 19},
        {"min_samples": 1, "max_samples": 2},
        {"max_seconds": float("nan")},
        {"block": 0},
        {"max_rejected": 0},
        {"warm_up_seconds": -1.0},
    ],
)
def test_a_rule_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=list(wrong)[-1]):
        StopRule(**wrong)  # type: ignore[arg-type]
