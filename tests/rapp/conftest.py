"""A predictor in closed form behind the interface of `rapp.predictor`, profile tables for it, and a real
artifact of an untrained encoder."""

from __future__ import annotations

import hashlib
import json
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
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


# Networks of the tiny artifact: work at SM 100 %, batch 1, and launching, ms, as in `NETWORKS`.
TINY_NETWORKS = {
    "alexnet": (2.5, 3.0),
    "mobilenet_v3_small": (0.8, 12.0),
    "resnet18": (3.0, 6.0),
    "squeezenet1_1": (1.2, 5.0),
    "vgg11": (9.0, 3.5),
}
TINY_GRID = ResourceGrid((5, 20, 50, 100), (10, 30, 60, 100), (1, 2, 4, 8))
NOISE = 0.02
ZOO = Path(__file__).resolve().parents[2] / "datasets" / "graphs"


@dataclass(frozen=True)
class TinyArtifact:
    """A real artifact of an encoder that was not trained, and what its networks were.

    Args:
        folder: the artifact; tests copy it before they damage it.
        truth: the closed form that each network of the training was measured from, with `NOISE`.
        graphs: folder with `<network>.onnx` of these and of others.
    """

    folder: Path
    truth: dict[str, ClosedFormModel]
    graphs: Path


@pytest.fixture(scope="session")
def tiny_artifact(tmp_path_factory: pytest.TempPathFactory) -> TinyArtifact:
    """An artifact as the exporter writes it, in seconds."""
    torch = pytest.importorskip("torch")
    from rapp.artifact import NetworkTables, npz_bytes, write_artifact
    from rapp.card import Card, Configuration, FeatureSchema, TrainedNetwork
    from rapp.graph import OperatorGraph
    from rapp.graph.features import FEATURE_VERSION, OP_TYPES, GraphFeatures, schema_hash
    from rapp.inference.learn import fit_network, learn_structure
    from rapp.inference.observe import observations
    from rapp.inference.posterior import Prior, infer_curves
    from rapp.inference.tables import Tables
    from rapp.knots import Knots
    from rapp.model.encoder import Encoder
    from rapp.model.ensemble import EncoderEnsemble
    from rapp.model.export import export_decoder, export_encoder

    knots = Knots.around(TINY_GRID.batch, TINY_GRID.sm_pct, TINY_GRID.quota_pct)
    torch.manual_seed(0)
    ensemble = EncoderEnsemble([Encoder(knots, hidden=8, layers=1)]).eval()
    noise = np.random.default_rng(0).normal(0.0, NOISE, (len(TINY_NETWORKS), len(TINY_GRID)))
    truth = {name: ClosedFormModel(name, *times) for name, times in TINY_NETWORKS.items()}
    fits, priors, points, hashes = {}, {}, {}, {}
    for (name, model), errors in zip(truth.items(), noise, strict=True):
        graph = OperatorGraph.from_onnx(ZOO / f"{name}.onnx")
        features = GraphFeatures.of(graph)
        with torch.no_grad():
            device, host = ensemble(
                *map(torch.from_numpy, (features.operators, features.costs, features.edges))
            )
        hashes[name] = graph.graph_hash
        priors[name] = Prior(device.double().numpy(), host.double().numpy())
        measured = [
            MeasuredPoint(config, model.latency(config).mean_ms * float(np.exp(error)))
            for config, error in zip(TINY_GRID, errors, strict=True)
        ]
        points[name] = observations(measured, knots, 0.0, lambda *_: pytest.fail("all are on knots"))
        fits[name] = fit_network(points[name], knots)
    structure = learn_structure(fits, priors, knots, NOISE)
    tables = [Tables.of(infer_curves(priors[n], structure, knots, points[n])) for n in TINY_NETWORKS]
    stacked = {
        name: np.stack([getattr(one, name) for one in tables])
        for name in ("log_latency", "log_device", "log_host", "deviation")
    }
    card = Card(
        rapp_version="0.1.0",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        device="NVIDIA V100-16GB",
        runtime="pytorch-eager",
        precision="fp32",
        quota_kinds=[QuotaKind.LAUNCH_GATE],
        idle_ms=5.0,
        window_ms=20.0,
        feature_schema=FeatureSchema(version=FEATURE_VERSION, hash=schema_hash()),
        knots=knots.to_dict(),
        networks=[TrainedNetwork(name=name, graph_hash=hashes[name]) for name in TINY_NETWORKS],
        operator_types=list(OP_TYPES),
        rows_hash="5" * 64,
        rows=len(TINY_NETWORKS) * len(TINY_GRID),
        seed=0,
        calibration_points=[
            Configuration(sm_pct=sm, quota_pct=quota, batch=batch)
            for sm, quota, batch in ((100, 100, 1), (5, 100, 8), (100, 10, 1), (20, 100, 8), (50, 30, 2))
        ],
        interval_factors={0: 2.0, 3: 1.8, 64: 1.5},
        noise=NOISE,
        license="Apache-2.0",
    )
    folder = tmp_path_factory.mktemp("artifact") / "tiny"
    files = {
        "encoder.onnx": export_encoder(ensemble),
        "decoder.onnx": export_decoder(knots),
        "structure.npz": npz_bytes(structure.to_arrays()),
        "networks.npz": NetworkTables(**stacked, points=np.full(len(tables), len(TINY_GRID))).to_bytes(),
    }
    write_artifact(folder, card, files)
    return TinyArtifact(folder, truth, ZOO)
