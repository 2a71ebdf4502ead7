"""The rule of `rapp profile --adaptive`, with the predictor that the project ships."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from profiler.adaptive import START, PredictorRule, predicted_error_pct, predictor_rule, start_point
from profiler.device import NetworkFile
from rapp import MeasuredPoint, Predictor, QuotaKind, ResourceConfig, ResourceGrid
from rapp.errors import ConfigError, RappError
from rapp.network_predictor import NetworkPredictor

ROOT = Path(__file__).parents[2]
ARTIFACT, FILE = ROOT / "models" / "v100", ROOT / "datasets" / "graphs" / "resnet101.onnx"
GRID = list(ResourceGrid())
GATE = QuotaKind.LAUNCH_GATE


@pytest.fixture(scope="module")
def network() -> NetworkPredictor:
    return Predictor.load(ARTIFACT).network(FILE)


def measured(network: NetworkPredictor, count: int) -> list[MeasuredPoint]:
    """Points that the rule asks for, as if the predictor were right but for a host 20 % slower."""
    rule, points = PredictorRule(network, GATE, 0.1, 40), []
    for _ in range(count):
        config = rule.next_point(points, [one for one in GRID if one not in {p.config for p in points}])
        assert config is not None
        points.append(MeasuredPoint(config, 1.2 * network.latency(config).mean_ms, GATE))
    return points


def test_it_begins_with_its_fixed_start() -> None:
    assert [start_point(place, GRID) for place in range(3)] == [
        ResourceConfig(70, 100, 1), ResourceConfig(5, 100, 8), ResourceConfig(100, 20, 1),
    ]  # fmt: skip
    few = [ResourceConfig(50, 60, 2), ResourceConfig(100, 100, 2)]
    assert start_point(0, few) == ResourceConfig(100, 100, 2)
    assert len(START) == 3


def test_it_asks_for_points_that_are_candidates_none_twice_and_alike_each_time(
    network: NetworkPredictor,
) -> None:
    first, again = measured(network, 6), measured(network, 6)
    configs = [point.config for point in first]
    assert configs == [point.config for point in again]
    assert len(set(configs)) == 6
    assert set(configs) <= set(GRID)


def test_more_points_make_it_expect_less_error_until_it_stops(network: NetworkPredictor) -> None:
    points = measured(network, 14)
    errors = [predicted_error_pct(network.calibrated(points[:count]), GRID, GATE) for count in (0, 3, 8, 14)]
    assert errors == sorted(errors, reverse=True)
    rest = [config for config in GRID if config not in {point.config for point in points}]
    expected = predicted_error_pct(network.calibrated(points), rest, GATE)
    assert PredictorRule(network, GATE, expected + 0.01, 40).next_point(points, rest) is None
    assert PredictorRule(network, GATE, expected - 0.01, 40).next_point(points, rest) in rest


def test_it_ends_with_its_points_and_without_candidates(network: NetworkPredictor) -> None:
    points = measured(network, 2)
    assert PredictorRule(network, GATE, 0.1, 2).next_point(points, GRID) is None
    assert PredictorRule(network, GATE, 0.1, 5).next_point(points, []) is None


def test_the_expected_error_is_that_of_a_normal_with_this_interval(network: NetworkPredictor) -> None:
    config = ResourceConfig(50, 60, 4)
    answer = network.latency(config, quota_kind=GATE)
    sigma = math.log(answer.high_ms / answer.low_ms) / (2 * 1.645)
    drawn = np.abs(np.random.default_rng(0).normal(0, sigma, 400_000)).mean()
    assert predicted_error_pct(network, [config], GATE) == pytest.approx(100 * drawn, rel=0.01)


def test_it_asks_for_what_it_can_use(tmp_path: Path) -> None:
    file = NetworkFile("resnet101", FILE)
    rule = predictor_rule(ARTIFACT, file, GATE, 5.0, 4.0, 40)
    assert rule.next_point([], GRID) == ResourceConfig(70, 100, 1)
    with pytest.raises(ConfigError, match="learned from launch_gate quotas, this device has gpu_time"):
        predictor_rule(ARTIFACT, file, QuotaKind.GPU_TIME, 5.0, 4.0, 40)
    with pytest.raises(ConfigError, match="give --idle-ms 5"):
        predictor_rule(ARTIFACT, file, GATE, 0.0, 4.0, 40)
    with pytest.raises(ConfigError, match="give its ONNX file instead of its name"):
        predictor_rule(ARTIFACT, NetworkFile("resnet101", None), GATE, 5.0, 4.0, 40)
    with pytest.raises(RappError, match="no such folder"):
        predictor_rule(tmp_path / "no", file, GATE, 5.0, 4.0, 40)
