"""A predictor in closed form behind the interface of `rapp.predictor`, and profile tables for it."""

from __future__ import annotations

import hashlib
import json
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rapp.errors import ArtifactError, CalibrationError, GraphError
from rapp.profiles import ProfileTable
from rapp.testing import ClosedFormModel
from rapp.types import LatencyGrid, MeasuredPoint, QuotaKind, ResourceConfig, ResourceGrid

# Work at SM 100 %, batch 1, and launching, ms: alpha is held up by the host, beta by the device.
NETWORKS = {"alpha": (1.0, 8.0), "beta": (12.0, 2.0), "gamma": (4.0, 4.0)}
LISTED = ((100, 100, 1), (100, 10, 1), (5, 100, 8), (100, 30, 1), (20, 100, 8))


@dataclass(frozen=True)
class FakeNetwork(ClosedFormModel):
    """`NetworkPredictor` in closed form: its latency is off by `scale`, which measured points correct."""

    graph_hash: str = ""
    known: bool = False
    points: tuple[MeasuredPoint, ...] = ()
    scale: float = 1.0
    graph: Any = field(default_factory=lambda: types.SimpleNamespace(only_batch=None, fixed_batch=None))

    def latency_grid(self, grid=None, *, quota_kind=None, idle_ms=None) -> LatencyGrid:
        found = super().latency_grid(grid, quota_kind=quota_kind or QuotaKind.LAUNCH_GATE, idle_ms=idle_ms)
        fields = ("mean_ms", "low_ms", "high_ms", "device_ms", "host_ms")
        return replace(found, **{name: self.scale * getattr(found, name) for name in fields})

    def latencies(self, sm_pct, quota_pct, batch, *, quota_kind=None, idle_ms=None):
        configs = zip(sm_pct, quota_pct, batch, strict=True)
        each = [
            self.latency(ResourceConfig(s, q, int(b)), quota_kind=quota_kind, idle_ms=idle_ms)
            for s, q, b in configs
        ]
        names = ("mean_ms", "low_ms", "high_ms", "device_ms", "host_ms", "extrapolated")
        return types.SimpleNamespace(**{n: np.array([getattr(one, n) for one in each]) for n in names})

    def calibrated(self, points: Sequence[MeasuredPoint]) -> FakeNetwork:
        if len({point.config for point in points}) < len(points):
            raise CalibrationError("a configuration is given twice")
        ratios = [p.latency_ms / self.latency(p.config, quota_kind=p.quota_kind).mean_ms for p in points]
        scale = self.scale * float(np.exp(np.mean(np.log(ratios)))) if ratios else self.scale
        return replace(self, points=tuple(points), scale=scale)

    def save_calibration(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps({"graph_hash": self.graph_hash, "scale": self.scale}))


class FakePredictor:
    """`Predictor` in closed form. An artifact is a folder with `card.json`; a network any text file."""

    default_quota_kind = QuotaKind.LAUNCH_GATE
    scale = 1.0

    def __init__(self, trained: Sequence[str] = ()) -> None:
        self.card = types.SimpleNamespace(
            device="NVIDIA V100-16GB",
            runtime="pytorch-eager",
            precision="fp32",
            quota_kinds=["launch_gate"],
            networks=list(trained),
            graph_hashes={name: hash_of(name) for name in trained},
        )

    @classmethod
    def load(cls, folder: str | Path) -> FakePredictor:
        card = Path(folder) / "card.json"
        if not card.is_file():
            raise ArtifactError(folder, "no card.json: this is no predictor artifact")
        return cls(json.loads(card.read_text())["networks"])

    def network(self, source: str | Path, *, calibration: Path | None = None) -> FakeNetwork:
        path = Path(source)
        if not path.is_file():
            raise GraphError(path, "no such file")
        work, launch = NETWORKS[path.read_text()]
        digest = hash_of(path.read_text())
        scale = json.loads(calibration.read_text())["scale"] if calibration else self.scale
        return FakeNetwork(
            path.stem, work, launch, graph_hash=digest, known=digest in self.card.graph_hashes.values(),
            scale=scale,
        )  # fmt: skip

    def calibration_points(self, count: int) -> tuple[ResourceConfig, ...]:
        if not 0 <= count <= len(LISTED):
            raise CalibrationError(f"the artifact lists {len(LISTED)} points, not {count}")
        return tuple(ResourceConfig(*config) for config in LISTED[:count])


def hash_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


@pytest.fixture
def predictor() -> Callable[..., FakePredictor]:
    """`predictor(["alpha"])`: an artifact that was trained on these networks."""
    return FakePredictor


@pytest.fixture
def graphs(tmp_path: Path) -> Path:
    """A folder with the graph file of each network."""
    folder = tmp_path / "graphs"
    folder.mkdir()
    for name in NETWORKS:
        (folder / f"{name}.onnx").write_text(name)
    return folder


@pytest.fixture
def artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An artifact that was trained on `gamma`, for the commands: `rapp.predictor` loads the closed form."""
    module = types.ModuleType("rapp.predictor")
    module.Predictor = FakePredictor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rapp.predictor", module)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "card.json").write_text(json.dumps({"networks": ["gamma"]}))
    return folder


def _rows(
    network: str, grid: ResourceGrid, factor: Callable[[ResourceConfig], float], **changes: object
) -> list[dict[str, Any]]:
    model = ClosedFormModel(network, *NETWORKS[network])
    fixed = {
        "network": network, "graph_hash": hash_of(network), "device": "NVIDIA V100-16GB",
        "runtime": "pytorch-eager", "precision": "fp32", "quota_kind": "launch_gate", "derived": False,
        "status": "ok", "campaign_id": "c1", "anchor": False,
    }  # fmt: skip
    return [
        fixed
        | {"sm_pct": c.sm_pct, "quota_pct": c.quota_pct, "batch": c.batch}
        | {"latency_ms": factor(c) * model.latency(c).mean_ms}
        | changes
        for c in grid
    ]


@pytest.fixture
def table() -> Callable[..., ProfileTable]:
    """`table({"alpha": 1.1}, grid, device=...)`: factors may be functions."""

    def make(
        factors: dict[str, float | Callable[[ResourceConfig], float]],
        grid: ResourceGrid | None = None,
        **changes: object,
    ) -> ProfileTable:
        grid = grid or ResourceGrid([5, 20, 50, 100], [10, 30, 100], [1, 8])
        rows = []
        for name, factor in factors.items():
            rows += _rows(name, grid, factor if callable(factor) else lambda _, f=factor: f, **changes)
        return ProfileTable.from_rows(rows)

    return make
