"""A predictor that was not trained, a network that it did not see, and measured points of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from rapp.predictor import NetworkPredictor, Predictor
from rapp.types import MeasuredPoint, ResourceConfig, ResourceGrid

TinyArtifact = Any  # the class of the fixture; test files cannot import it

GRID = ResourceGrid((5, 20, 50, 100), (10, 30, 60, 100), (1, 2, 4, 8))
UNSEEN = "resnet34"
TRUTH = {UNSEEN: (5.0, 10.0)}  # work and launch time, ms, of a network that is measured in the tests


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


def made(nodes: list[Any], batch: int | str = "N", domain: str = "") -> Any:
    value = helper.make_tensor_value_info
    shape = [batch, 16]
    inputs, outputs = ([value(name, TensorProto.FLOAT, shape)] for name in "xy")
    graph = helper.make_graph(nodes, "made", inputs, outputs)
    imports = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)
