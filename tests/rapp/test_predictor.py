"""`Predictor` on a real artifact of an encoder that was not trained."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from rapp.artifact import Artifact
from rapp.coding import Encoder
from rapp.errors import ArtifactError, CalibrationError, ConfigError, GraphError, RappError
from rapp.graph import OperatorGraph
from rapp.predictor import NetworkPredictor, Predictor
from rapp.testing import LatencyModelContract
from rapp.types import MeasuredPoint, QuotaKind, ResourceConfig, ResourceGrid

TinyArtifact = Any  # the class of the fixture; test files cannot import it

GRID = ResourceGrid((5, 20, 50, 100), (10, 30, 60, 100), (1, 2, 4, 8))
UNSEEN = "resnet34"
TRUTH = {UNSEEN: (5.0, 10.0)}  # work and launch time, ms, of a network that is measured in the tests
FIELDS = ("mean_ms", "low_ms", "high_ms", "device_ms", "host_ms")
percent = st.integers(1, 100).map(float) | st.floats(0.5, 100)


@pytest.fixture(scope="session")
def tiny(tiny_artifact: TinyArtifact) -> Predictor:
    return Predictor.load(tiny_artifact.folder)


@pytest.fixture(scope="session")
def unseen(tiny: Predictor, tiny_artifact: TinyArtifact) -> NetworkPredictor:
    """A network that training did not have."""
    return tiny.network(tiny_artifact.graphs / f"{UNSEEN}.onnx")


@pytest.fixture(scope="session")
def measured(tiny: Predictor) -> tuple[MeasuredPoint, ...]:
    """The truth at eleven configurations, without noise."""
    from rapp.testing import ClosedFormModel

    truth = ClosedFormModel(UNSEEN, *TRUTH[UNSEEN])
    configs = [ResourceConfig(*c) for c in (
        (100, 100, 1), (5, 100, 8), (100, 10, 1), (20, 100, 8), (50, 30, 2), (5, 100, 1), (50, 100, 4),
        (100, 60, 1), (100, 30, 1), (20, 100, 1), (100, 100, 8),
    )]  # fmt: skip
    return tuple(MeasuredPoint(config, truth.latency(config).mean_ms) for config in configs)


@pytest.fixture
def copy(tiny_artifact: TinyArtifact, tmp_path: Path) -> Path:
    """A copy whose card can be changed."""
    return Path(shutil.copytree(tiny_artifact.folder, tmp_path / "copy"))


def changed(folder: Path, **changes: object) -> Predictor:
    path = folder / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return Predictor.load(folder)


class TestKnownNetwork(LatencyModelContract):
    @pytest.fixture
    def model(self, tiny: Predictor) -> NetworkPredictor:
        return tiny.known_network("resnet18")


class TestUnseenNetwork(LatencyModelContract):
    @pytest.fixture
    def model(self, unseen: NetworkPredictor) -> NetworkPredictor:
        return unseen


class TestCalibratedNetwork(LatencyModelContract):
    @pytest.fixture
    def model(self, unseen: NetworkPredictor, measured: tuple[MeasuredPoint, ...]) -> NetworkPredictor:
        return unseen.calibrated(measured)


class TestKnown:
    def test_answers_at_the_knots_are_the_stored_tables(
        self, tiny: Predictor, tiny_artifact: TinyArtifact
    ) -> None:
        artifact = Artifact.load(tiny_artifact.folder)
        knots, stored = artifact.knots, artifact.networks
        grid = ResourceGrid(knots.sm_pct.tolist(), knots.quota_pct.tolist(), knots.batch.astype(int).tolist())
        for index, name in enumerate(tiny_artifact.truth):
            answer = tiny.known_network(name).latency_grid(grid)
            trained = np.ix_(knots.sm_pct >= 5, knots.quota_pct >= 10, knots.batch <= 8)
            expected = np.exp(stored.log_latency[index]).transpose(1, 2, 0)
            np.testing.assert_allclose(answer.mean_ms[trained], expected[trained], rtol=1e-5, err_msg=name)
            device = np.exp(stored.log_device[index]).T
            np.testing.assert_allclose(answer.device_ms[:, 0], device, rtol=1e-5)
            np.testing.assert_allclose(answer.host_ms[:, 0], np.exp(stored.log_host[index]).T, rtol=1e-5)
            wide = np.sqrt(stored.deviation[index].astype(float) ** 2 + artifact.card.noise**2)
            half = artifact.card.interval_factor(64) * wide.transpose(1, 2, 0)
            np.testing.assert_allclose(np.log(answer.high_ms / answer.mean_ms), half, rtol=1e-3, atol=1e-5)
            np.testing.assert_allclose(np.log(answer.mean_ms / answer.low_ms), half, rtol=1e-3, atol=1e-5)

    def test_they_are_what_was_measured(self, tiny: Predictor, tiny_artifact: TinyArtifact) -> None:
        for name, truth in tiny_artifact.truth.items():
            answer, expected = tiny.known_network(name).latency_grid(GRID), truth.latency_grid(GRID)
            error = np.abs(answer.mean_ms / expected.mean_ms - 1)
            assert error.mean() < 0.03, name
            assert not answer.extrapolated.any()
            inside = (answer.low_ms <= expected.mean_ms) & (expected.mean_ms <= answer.high_ms)
            assert inside.mean() > 0.6, name

    def test_its_file_and_its_name_give_the_same(self, tiny: Predictor, tiny_artifact: TinyArtifact) -> None:
        by_file = tiny.network(tiny_artifact.graphs / "vgg11.onnx")
        by_name = tiny.known_network("vgg11")
        assert by_file.known
        assert by_name.known
        assert by_file.graph_hash == by_name.graph_hash
        assert by_file.name == by_name.name == "vgg11"
        np.testing.assert_array_equal(by_file.latency_grid().mean_ms, by_name.latency_grid().mean_ms)

    def test_an_unknown_name_is_told_with_the_nearest(self, tiny: Predictor) -> None:
        with pytest.raises(ConfigError, match=r"near: resnet18.*ONNX file"):
            tiny.known_network("resnet19")

    def test_a_name_alone_cannot_be_calibrated(self, tiny: Predictor, measured: Any) -> None:
        named = tiny.known_network("vgg11")
        with pytest.raises(CalibrationError, match="ONNX file"):
            named.calibrated(measured)
        with pytest.raises(CalibrationError, match="ONNX file"):
            named.next_point(GRID)
        with pytest.raises(ConfigError, match="ONNX file"):
            _ = named.graph


class TestNetwork:
    def test_two_unseen_networks_have_different_answers(
        self, tiny: Predictor, tiny_artifact: TinyArtifact, unseen: NetworkPredictor
    ) -> None:
        other = tiny.network(tiny_artifact.graphs / "resnet50.onnx")
        assert not unseen.known
        assert not other.known
        assert (unseen.latency_grid().mean_ms != other.latency_grid().mean_ms).mean() > 0.9

    def test_a_graph_and_its_file_are_the_same(
        self, tiny: Predictor, tiny_artifact: TinyArtifact, unseen: NetworkPredictor
    ) -> None:
        graph = OperatorGraph.from_onnx(tiny_artifact.graphs / f"{UNSEEN}.onnx")
        again = tiny.network(graph)
        assert (again.name, again.graph_hash) == (unseen.name, unseen.graph_hash)
        assert again.latency(ResourceConfig(50, 50, 2)) == unseen.latency(ResourceConfig(50, 50, 2))

    def test_a_network_is_encoded_once_however_many_threads_ask(
        self, tiny_artifact: TinyArtifact, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls, prior = [], Encoder.prior

        def counting(self: Encoder, features: Any, name: str) -> Any:
            calls.append(name)
            return prior(self, features, name)

        monkeypatch.setattr(Encoder, "prior", counting)
        predictor = Predictor.load(tiny_artifact.folder)
        graph = OperatorGraph.from_onnx(tiny_artifact.graphs / f"{UNSEEN}.onnx")
        answers: list[Any] = []

        def ask() -> None:
            answers.append(predictor.network(graph).latency(ResourceConfig(50, 50, 2)))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 8
        assert len(set(answers)) == 1
        assert len(calls) == 1
        predictor.network(tiny_artifact.graphs / "vgg11.onnx")  # known: nothing to encode
        assert len(calls) == 1

    def test_no_such_file(self, tiny: Predictor, tmp_path: Path) -> None:
        with pytest.raises(GraphError):
            tiny.network(tmp_path / "none.onnx")

    def test_a_network_without_operators_is_a_typed_error(self, tiny: Predictor) -> None:
        with pytest.raises(GraphError, match="no operator"):
            tiny.network(OperatorGraph.from_onnx(made([helper.make_node("Identity", ["x"], ["y"])])))


def made(nodes: list[Any], batch: int | str = "N", domain: str = "") -> Any:
    value = helper.make_tensor_value_info
    shape = [batch, 16]
    inputs, outputs = ([value(name, TensorProto.FLOAT, shape)] for name in "xy")
    graph = helper.make_graph(nodes, "made", inputs, outputs)
    imports = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


class TestExtrapolated:
    @pytest.mark.parametrize(
        ("config", "kind", "expected"),
        [
            ((50, 50, 3), "launch_gate", False),
            ((5, 10, 1), "launch_gate", False),
            ((100, 100, 8), "launch_gate", False),
            ((4, 50, 3), "launch_gate", True),
            ((50, 50, 9), "launch_gate", True),
            ((50, 9, 3), "launch_gate", True),
            ((50, 9, 3), "gpu_time", False),
            ((4, 50, 3), "gpu_time", True),
        ],
    )
    def test_outside_the_trained_ranges(
        self, tiny: Predictor, config: tuple[float, float, int], kind: str, expected: bool
    ) -> None:
        network = tiny.known_network("vgg11")
        asked = ResourceConfig(*config)
        assert network.latency(asked, quota_kind=QuotaKind(kind)).extrapolated is expected

    def test_operators_that_training_did_not_have(self, tiny: Predictor) -> None:
        node = helper.make_node("Fancy", ["x"], ["y"], domain="my.own")
        network = tiny.network(OperatorGraph.from_onnx(made([node], domain="my.own")))
        assert network.extrapolated_operators == {"my.own.Fancy"}
        assert network.latency_grid().extrapolated.all()
        known = tiny.network(OperatorGraph.from_onnx(made([helper.make_node("Relu", ["x"], ["y"])])))
        assert known.extrapolated_operators == frozenset()
        assert not known.latency_grid(GRID).extrapolated.any()

    def test_a_batch_that_the_network_does_not_serve(self, tiny: Predictor) -> None:
        graph = OperatorGraph.from_onnx(made([helper.make_node("Softmax", ["x"], ["y"], axis=0)], batch=4))
        assert graph.only_batch is not None
        found = tiny.network(graph).latencies(50, 50, [1, 2, 4, 8])
        assert found.extrapolated.tolist() == [True, True, False, True]

    def test_beyond_the_knots_the_law_goes_on(self, tiny: Predictor) -> None:
        network = tiny.known_network("vgg11")
        near, far = (network.latency(ResourceConfig(1, 100, b)).device_ms for b in (128, 512))
        assert far == pytest.approx(4 * near, rel=1e-4)


class TestQuestions:
    @given(sm=percent, quota=percent, batch=st.integers(1, 300), kind=st.sampled_from(QuotaKind))
    @settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_columns_hold_the_single_answers(
        self, unseen: NetworkPredictor, sm: float, quota: float, batch: int, kind: QuotaKind
    ) -> None:
        columns = unseen.latencies([sm, 100], [quota, 100], [batch, 1], quota_kind=kind)
        alone = unseen.latency(ResourceConfig(sm, quota, batch), quota_kind=kind)
        for field in FIELDS:
            assert getattr(columns, field)[0] == pytest.approx(getattr(alone, field), rel=1e-6)
        assert columns.extrapolated[0] == alone.extrapolated

    def test_one_number_holds_for_a_whole_column(self, unseen: NetworkPredictor) -> None:
        found = unseen.latencies(50, [10, 100, 60], 2)
        assert found.mean_ms.shape == (3,)
        assert found.mean_ms[1] == pytest.approx(unseen.latency(ResourceConfig(50, 100, 2)).mean_ms, rel=1e-6)

    def test_no_configuration_has_no_answer(self, unseen: NetworkPredictor) -> None:
        found = unseen.latencies([], [], [])
        assert all(getattr(found, field.name).shape == (0,) for field in dataclasses.fields(found))

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            (([50, 60], [50], [1, 2, 3]), "differ in length"),
            (([0], [50], [1]), "sm_pct is 0"),
            (([50, 101], [50, 50], [1, 1]), "sm_pct is 101"),
            (([50], [float("nan")], [1]), "quota_pct is nan"),
            (([50], [50], [1.5]), "batch is 1.5"),
            (([50], [50], [float("inf")]), "batch is inf"),
            (([[50]], [50], [1]), "dimensions"),
        ],
    )
    def test_bad_columns_are_named(self, unseen: NetworkPredictor, columns: Any, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            unseen.latencies(*columns)

    def test_the_cards_pause_is_the_default(self, unseen: NetworkPredictor) -> None:
        def ask(idle_ms: float | None) -> float:
            config = ResourceConfig(5, 10, 8)
            return unseen.latency(config, quota_kind=QuotaKind.GPU_TIME, idle_ms=idle_ms).mean_ms

        assert ask(None) == ask(5.0)
        # What a pause saves up is paid back, up to a window of 20 ms.
        assert ask(0.0) == pytest.approx(ask(5.0) + 5.0, rel=1e-3)
        assert ask(0.0) == pytest.approx(ask(20.0) + 20.0, rel=1e-3)
        assert ask(20.0) == ask(1e6)

    def test_a_quota_of_device_time_follows_from_device_and_host_time(self, tiny: Predictor) -> None:
        network = tiny.known_network("vgg11")
        found = network.latency(ResourceConfig(20, 25, 8), quota_kind=QuotaKind.GPU_TIME, idle_ms=0)
        assert found.mean_ms == pytest.approx(4 * found.device_ms, rel=1e-3)
        gated = network.latency(ResourceConfig(20, 25, 8), quota_kind=QuotaKind.LAUNCH_GATE)
        assert gated.mean_ms < 1.2 * found.device_ms


class TestQuotaKinds:
    def test_launch_gate_is_the_default_where_it_was_learned(self, tiny: Predictor, copy: Path) -> None:
        assert tiny.default_quota_kind is QuotaKind.LAUNCH_GATE
        assert (
            changed(copy, quota_kinds=["gpu_time", "launch_gate"]).default_quota_kind is QuotaKind.LAUNCH_GATE
        )

    def test_an_artifact_without_it_says_so(
        self, copy: Path, measured: Any, tiny_artifact: TinyArtifact
    ) -> None:
        predictor = changed(copy, quota_kinds=["gpu_time"])
        assert predictor.default_quota_kind is QuotaKind.GPU_TIME
        network = predictor.network(tiny_artifact.graphs / f"{UNSEEN}.onnx")
        config = ResourceConfig(50, 50, 2)
        assert network.latency(config) == network.latency(config, quota_kind=QuotaKind.GPU_TIME)
        for ask in (network.latency, lambda *_, **k: network.latency_grid(GRID, **k)):
            with pytest.raises(ConfigError, match=r"cannot answer for launch_gate.*ask for gpu_time"):
                ask(config, quota_kind=QuotaKind.LAUNCH_GATE)
        with pytest.raises(ConfigError, match="launch_gate"):
            network.calibrated(measured)

    def test_what_is_no_kind_is_a_typed_error(self, unseen: NetworkPredictor) -> None:
        with pytest.raises(ConfigError, match="one of gpu_time, launch_gate"):
            unseen.latency_grid(GRID, quota_kind="memory")  # type: ignore[arg-type]


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


class TestLoading:
    def test_an_onnx_file_that_does_not_run_is_a_typed_error(self, copy: Path) -> None:
        import hashlib

        content = b"not an ONNX file"
        (copy / "decoder.onnx").write_bytes(content)
        files = json.loads((copy / "card.json").read_text())["files"]
        with pytest.raises(ArtifactError, match=r"decoder\.onnx: ONNX Runtime cannot load it"):
            changed(copy, files=files | {"decoder.onnx": hashlib.sha256(content).hexdigest()})

    def test_an_onnx_file_of_another_purpose_is_a_typed_error(self, copy: Path) -> None:
        files = json.loads((copy / "card.json").read_text())["files"]
        shutil.copy(copy / "encoder.onnx", copy / "decoder.onnx")
        with pytest.raises(ArtifactError, match=r"decoder\.onnx: its inputs are not those of the format"):
            changed(copy, files=files | {"decoder.onnx": files["encoder.onnx"]})

    def test_more_threads_answer_the_same(self, tiny: Predictor, tiny_artifact: TinyArtifact) -> None:
        two = Predictor.load(tiny_artifact.folder, threads=2).known_network("vgg11").latency_grid()
        np.testing.assert_allclose(two.mean_ms, tiny.known_network("vgg11").latency_grid().mean_ms, rtol=1e-6)
        with pytest.raises(RappError):
            Predictor.load(tiny_artifact.folder, threads=0)

    def test_it_needs_neither_torch_nor_the_importers(self, tiny_artifact: TinyArtifact) -> None:
        code = f"""
import sys
from rapp import Predictor, ResourceConfig
assert not {{"onnx", "onnxruntime", "torch"}} & set(sys.modules)
predictor = Predictor.load({str(tiny_artifact.folder)!r})
predictor.known_network("vgg11").latency(ResourceConfig(50, 50, 2))
assert not {{"onnx", "torch", "pyarrow", "pandas", "sympy"}} & set(sys.modules), sys.modules.keys()
assert "onnxruntime" in sys.modules
"""
        subprocess.run([sys.executable, "-c", code], check=True)
