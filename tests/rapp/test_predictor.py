"""`Predictor` on a real artifact of an encoder that was not trained: loading, known and unseen networks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

sys.path.insert(0, str(Path(__file__).parent))

from predictor_parts import GRID, UNSEEN, TinyArtifact, changed, copy, made, measured, tiny, unseen

from rapp.artifact import Artifact
from rapp.coding import Encoder
from rapp.errors import ArtifactError, CalibrationError, ConfigError, GraphError, RappError
from rapp.graph import OperatorGraph
from rapp.predictor import NetworkPredictor, Predictor
from rapp.testing import LatencyModelContract
from rapp.types import MeasuredPoint, ResourceConfig, ResourceGrid

__all__ = ["copy", "measured", "tiny", "unseen"]


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
