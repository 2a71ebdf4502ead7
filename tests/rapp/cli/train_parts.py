"""Profiles and graphs of four small networks, for the commands that train."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rapp.profiles import ProfileTable
from rapp.testing import ClosedFormModel
from rapp.types import ResourceGrid

ZOO = Path(__file__).resolve().parents[3] / "datasets" / "graphs"
GRID = ResourceGrid([10, 40, 70, 100], [20, 60, 100], [1, 4])
MODELS = {
    "alexnet": ClosedFormModel("alexnet", 0.6, 2.0),
    "resnet18": ClosedFormModel("resnet18", 2.0, 5.0),
    "squeezenet1_1": ClosedFormModel("squeezenet1_1", 0.5, 4.0),
    "vgg11": ClosedFormModel("vgg11", 6.0, 2.5),
}
Rapp = Callable[..., Any]


def rows_of(name: str, **changes: object) -> list[dict[str, Any]]:
    rng = np.random.default_rng(len(name))
    fixed = {
        "network": name, "device": "made up", "runtime": "pytorch-eager", "precision": "fp32",
        "quota_kind": "launch_gate", "derived": False, "status": "ok", "campaign_id": "c1", "anchor": False,
    }  # fmt: skip
    return [
        fixed
        | {"sm_pct": c.sm_pct, "quota_pct": c.quota_pct, "batch": c.batch}
        | {"latency_ms": MODELS[name].latency(c).mean_ms * float(np.exp(0.02 * rng.standard_normal()))}
        | changes
        for c in GRID
    ]


@dataclass(frozen=True)
class Given:
    """Files in a folder of their own, which is the current one. `options`: of every training."""

    folder: Path
    profiles: Path
    graphs: Path

    @property
    def options(self) -> list[object]:
        return ["--profiles", self.profiles, "--graphs", self.graphs, "--threads", 1]

    @property
    def store(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Given]:
    folder = tmp_path_factory.mktemp("train")
    made = Given(folder, folder / "profiles.parquet", folder / "graphs")
    made.graphs.mkdir()
    for name in MODELS:
        shutil.copy(ZOO / f"{name}.onnx", made.graphs)
    ProfileTable.from_rows([row for name in MODELS for row in rows_of(name)]).write(made.profiles)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # MLflow puts artifacts of a local store into the current folder
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield made


@pytest.fixture
def unexported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the export to ONNX, which takes seconds."""
    monkeypatch.setattr("rapp.training.run.export_model", lambda *_, **__: None)


def losses(run: Path) -> list[tuple[str, int, float]]:
    with (run / "history.csv").open(newline="") as file:
        return [(line["stage"], int(line["step"]), float(line["loss"])) for line in csv.DictReader(file)]
