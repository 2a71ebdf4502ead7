"""Networks calibrated by measured points: better answers, the next point, the file."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from predictor_parts import GRID, TRUTH, UNSEEN, TinyArtifact, changed, copy, measured, tiny, unseen

from rapp.errors import CalibrationError, ConfigError
from rapp.graph import OperatorGraph
from rapp.predictor import NetworkPredictor, Predictor
from rapp.types import MeasuredPoint, QuotaKind, ResourceConfig

__all__ = ["copy", "measured", "tiny", "unseen"]


class TestCalibrated:
    def test_all_points_come_back_within_the_noise(
        self, unseen: NetworkPredictor, measured: tuple[MeasuredPoint, ...]
    ) -> None:
        before = [abs(unseen.latency(p.config).mean_ms / p.latency_ms - 1) for p in measured]
        assert max(before) > 0.3
        for count in range(1, len(measured) + 1):
            network = unseen.calibrated(measured[:count])
            errors = [abs(network.latency(p.config).mean_ms / p.latency_ms - 1) for p in measured[:count]]
            assert max(errors) < 0.05, f"{count} points"

    def test_the_answers_elsewhere_get_better_and_surer(
        self, unseen: NetworkPredictor, measured: tuple[MeasuredPoint, ...]
    ) -> None:
        from rapp.testing import ClosedFormModel

        truth = ClosedFormModel(UNSEEN, *TRUTH[UNSEEN]).latency_grid(GRID).mean_ms
        errors, widths = [], []
        for count in (0, 3, 11):
            answer = unseen.calibrated(measured[:count]).latency_grid(GRID)
            errors.append(np.abs(answer.mean_ms / truth - 1).mean())
            widths.append(np.log(answer.high_ms / answer.low_ms).mean())
        assert errors[0] > 2 * errors[1] > 2 * errors[2]
        assert errors[2] < 0.1
        assert widths[0] > widths[1] > widths[2]

    def test_the_factor_is_that_of_so_many_points(
        self, copy: Path, tiny_artifact: TinyArtifact, measured: tuple[MeasuredPoint, ...]
    ) -> None:
        graph, config = (
            OperatorGraph.from_onnx(tiny_artifact.graphs / f"{UNSEEN}.onnx"),
            ResourceConfig(50, 50, 2),
        )
        widths = []
        for factors in ({"0": 1.0, "3": 1.0}, {"0": 1.0, "3": 2.0}):
            network = changed(copy, interval_factors=factors).network(graph)
            answers = [network.calibrated(measured[:count]).latency(config) for count in (0, 3)]
            widths.append([np.log(answer.high_ms / answer.low_ms) for answer in answers])
        assert widths[1][0] == pytest.approx(widths[0][0])
        assert widths[1][1] == pytest.approx(2 * widths[0][1], rel=1e-4)

    def test_points_replace_those_before_them(
        self, unseen: NetworkPredictor, measured: tuple[MeasuredPoint, ...]
    ) -> None:
        first = unseen.calibrated(measured[:3])
        assert first.points == measured[:3]
        assert unseen.points == ()
        config = ResourceConfig(50, 50, 2)
        assert first.calibrated(measured).latency(config) == unseen.calibrated(measured).latency(config)
        assert first.calibrated([]).latency(config) == unseen.latency(config)

    def test_the_order_of_the_points_does_not_matter(
        self, unseen: NetworkPredictor, measured: tuple[MeasuredPoint, ...]
    ) -> None:
        one, other = (unseen.calibrated(points).latency_grid(GRID) for points in (measured, measured[::-1]))
        np.testing.assert_allclose(one.mean_ms, other.mean_ms, rtol=1e-4)

    def test_points_beside_the_knots_are_taken(self, unseen: NetworkPredictor) -> None:
        point = MeasuredPoint(
            ResourceConfig(37, 100, 5), 2 * unseen.latency(ResourceConfig(37, 100, 5)).mean_ms
        )
        network = unseen.calibrated([point])
        # It is off by what the knots around it do not follow the one to which it was moved.
        assert np.log(point.latency_ms / network.latency(point.config).mean_ms) < 0.35 * np.log(2)

    def test_a_quota_of_device_time_calibrates_too(self, unseen: NetworkPredictor) -> None:
        config = ResourceConfig(20, 20, 4)
        point = MeasuredPoint(config, 300.0, QuotaKind.GPU_TIME)
        network = unseen.calibrated([point])
        found = network.latency(config, quota_kind=QuotaKind.GPU_TIME)
        assert found.mean_ms == pytest.approx(300.0, rel=0.05)
        # The card's pause of 5 ms is in it: D / q - 5.
        assert found.device_ms == pytest.approx(0.2 * 305, rel=0.05)

    def test_a_network_of_the_training_starts_from_its_graph(
        self, tiny: Predictor, tiny_artifact: TinyArtifact
    ) -> None:
        known = tiny.network(tiny_artifact.graphs / "vgg11.onnx")
        slower = [
            MeasuredPoint(config, 3 * known.latency(config).mean_ms) for config in tiny.calibration_points(5)
        ]
        again = known.calibrated(slower)
        assert again.known
        for point in slower:
            assert again.latency(point.config).mean_ms == pytest.approx(point.latency_ms, rel=0.1)
        np.testing.assert_array_equal(
            again.calibrated([]).latency_grid().mean_ms, known.latency_grid().mean_ms
        )

    def test_the_fixed_list_is_the_cards(self, tiny: Predictor) -> None:
        assert tiny.calibration_points(2) == (ResourceConfig(100, 100, 1), ResourceConfig(5, 100, 8))
        assert tiny.calibration_points(0) == ()
        for count in (-1, 6):
            with pytest.raises(CalibrationError, match="lists 5 points"):
                tiny.calibration_points(count)


class TestNextPoint:
    def test_it_goes_where_the_answer_is_least_sure(
        self, unseen: NetworkPredictor, measured: tuple[MeasuredPoint, ...]
    ) -> None:
        choices = [measured[0].config, ResourceConfig(5, 100, 8)]
        assert unseen.calibrated([measured[0]] * 3).next_point(choices) == ResourceConfig(5, 100, 8)

    def test_a_grid_is_a_set_of_candidates(self, unseen: NetworkPredictor) -> None:
        assert unseen.next_point(GRID) in list(GRID)
        assert unseen.next_point(GRID) == unseen.next_point(list(GRID))

    def test_it_sees_the_points_and_nothing_else(
        self, unseen: NetworkPredictor, measured: tuple[MeasuredPoint, ...]
    ) -> None:
        first = unseen.calibrated(measured[:2]).next_point(GRID)
        assert unseen.calibrated(measured).calibrated(measured[:2]).next_point(GRID) == first
        assert first not in [point.config for point in measured[:2]]

    def test_nothing_to_choose_from(self, unseen: NetworkPredictor) -> None:
        with pytest.raises(ConfigError, match="no candidate"):
            unseen.next_point([])


class TestCalibrationFile:
    def test_it_brings_the_answers_back(
        self,
        tiny: Predictor,
        tiny_artifact: TinyArtifact,
        unseen: NetworkPredictor,
        measured: tuple[MeasuredPoint, ...],
        tmp_path: Path,
    ) -> None:
        file, onnx = tmp_path / "c.json", tiny_artifact.graphs / f"{UNSEEN}.onnx"
        network = unseen.calibrated(measured)
        network.save_calibration(file)
        again = tiny.network(onnx, calibration=file)
        assert again.points == measured
        np.testing.assert_array_equal(again.latency_grid().mean_ms, network.latency_grid().mean_ms)
        other = tiny.network(tiny_artifact.graphs / "vgg11.onnx").calibrated(measured[:2])
        other.save_calibration(file)
        assert tiny.network(onnx, calibration=file).points == measured
        with pytest.raises(CalibrationError, match="no points of alexnet"):
            tiny.network(tiny_artifact.graphs / "alexnet.onnx", calibration=file)

    def test_without_points_there_is_nothing_to_save(self, unseen: NetworkPredictor, tmp_path: Path) -> None:
        with pytest.raises(CalibrationError, match="no points"):
            unseen.save_calibration(tmp_path / "c.json")
        assert not (tmp_path / "c.json").exists()
