"""The artifact that the project ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from rapp.predictor import NetworkPredictor, Predictor
from rapp.testing import LatencyModelContract
from rapp.types import QuotaKind, ResourceConfig, ResourceGrid

FOLDER = Path(__file__).resolve().parents[2] / "models" / "v100"
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@pytest.fixture(scope="session")
def v100() -> Predictor:
    return Predictor.load(FOLDER)


class TestKnownNetwork(LatencyModelContract):
    @pytest.fixture
    def model(self, v100: Predictor) -> NetworkPredictor:
        return v100.known_network("resnet50")


class TestUnseenNetwork(LatencyModelContract):
    @pytest.fixture
    def model(self, v100: Predictor) -> NetworkPredictor:
        return v100.network(LIGHT / "light_squeezenet.onnx")


def test_it_is_small_and_says_what_it_is(v100: Predictor) -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 10e6
    card = v100.card
    assert card.license == "Apache-2.0"
    assert card.quota_kinds == [QuotaKind.LAUNCH_GATE]
    assert (card.runtime, card.precision) == ("pytorch-eager", "fp32")
    assert len(card.networks) == 57
    assert card.limits


@pytest.mark.parametrize("file", sorted(LIGHT.glob("light_*.onnx")), ids=lambda path: path.stem)
def test_every_network_of_the_onnx_package_has_an_answer(v100: Predictor, file: Path) -> None:
    answer = v100.network(file).latency_grid()
    assert np.isfinite(answer.mean_ms).all()
    # From an alexnet to a densenet121: on a V100 all take between 1 ms and some seconds.
    assert answer.mean_ms.min() > 0.5
    assert answer.mean_ms.max() < 10_000


def test_a_network_is_told_apart_by_its_size(v100: Predictor) -> None:
    small, large = (v100.network(LIGHT / f"light_{name}.onnx") for name in ("squeezenet", "vgg19"))
    config = ResourceConfig(20, 100, 8)
    assert large.latency(config).device_ms > 5 * small.latency(config).device_ms


def test_networks_of_its_training_answer_as_measured(v100: Predictor, v100_dir: Path) -> None:
    from rapp.profiles.has_gpu import import_has_gpu

    names = ["resnet50", "vgg19", "mobilenet_v2"]
    table = import_has_gpu(v100_dir, networks=names)
    for name in names:
        points = table.points(name)
        found = v100.known_network(name).latencies(points.sm_pct, points.quota_pct, points.batch)
        error = np.abs(found.mean_ms / points.latency_ms - 1)
        assert error.mean() < 0.04, name
        covered = (found.low_ms <= points.latency_ms) & (points.latency_ms <= found.high_ms)
        assert covered.mean() > 0.8, name
        assert not found.extrapolated.any()


def test_more_than_800_configurations_are_answered_as_one_by_one(v100: Predictor) -> None:
    network = v100.known_network("vgg19")
    grid = ResourceGrid(range(1, 101, 3), range(1, 101, 3), (1, 3, 8, 20))
    answer = network.latency_grid(grid)
    for place in np.random.default_rng(0).integers(0, len(grid), 20):
        s, q, b = np.unravel_index(place, grid.shape)
        config = ResourceConfig(grid.sm_pct[s], grid.quota_pct[q], grid.batch[b])
        assert network.latency(config).mean_ms == pytest.approx(answer.mean_ms[s, q, b], rel=1e-6)
