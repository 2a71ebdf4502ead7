"""Execution times for scripts/bench_scaler.py: the truth, and what predictors say that have not seen it.

    truth          the V100 profiles under a quota of device time
    k0, k3, k11    an artifact trained without the fold that holds the network, with 0, 3 and 11 points of it
                   measured (the first of the artifact's own list)

The models are those of the protocol `unseen-network` (scripts/protocols.py, whose folder --protocols names);
what is missing there is trained. Each (source, network) is a file of arrays in OUT/times, made once, so that
the cells load neither torch nor ONNX Runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from rapp.fileio import atomic_path
from rapp.latency_model import LatencyModel
from scaler.functions import FunctionSpec
from scaler.sources.base import LatencySource
from scaler.sources.service_times import ServiceTimes
from scaler.sources.tabled import TabledModel

ROOT = Path(__file__).parent.parent
GRAPHS = ROOT / "datasets" / "graphs"

NETWORKS = ("resnet50", "mobilenet_v3_large", "convnext_base", "vgg19", "densenet121", "efficientnet_b0")
POINTS = {"k0": 0, "k3": 3, "k11": 11}
SOURCES = ("truth", *POINTS)

MEMORY_MIB = 1500.0
"""Device memory of an instance. The profiles have none; weights (20 to 550 MiB), a CUDA context (about
400 MiB) and activations of 8 images fit into it. HAS-GPU's 3529 MiB would allow 4 instances a GPU."""


def spec_of(network: str, multiplier: float = 2.0) -> FunctionSpec:
    """The function that serves a network in every cell."""
    return FunctionSpec(
        name=network, network=str(GRAPHS / f"{network}.onnx"), slo_multiplier=multiplier,
        memory_mib=MEMORY_MIB,
    )  # fmt: skip


@lru_cache(maxsize=64)
def read_times(folder: Path, source: str, network: str) -> ServiceTimes:
    """What `make_times` wrote."""
    with np.load(folder / f"{source}-{network}.npz", allow_pickle=False) as file:
        return ServiceTimes(
            network, source, *(file[name] for name in ("sm_pct", "batch", "device_ms", "host_ms", "upper"))
        )


@dataclass(frozen=True, slots=True)
class Saved:
    """Execution times from files, as a latency source."""

    folder: Path
    name: str

    def times(self, function: FunctionSpec) -> ServiceTimes:
        """Those of the function's network."""
        return read_times(self.folder, self.name, function.network_name)

    def model(self, function: FunctionSpec) -> LatencyModel:
        """The same as a model."""
        return TabledModel(self.times(function))


def make_times(folder: Path, protocols: Path, v100: str) -> None:
    """Write the times that are missing; needs torch where an artifact is missing too."""
    missing = [
        (source, network)
        for source in SOURCES
        for network in NETWORKS
        if not (folder / f"{source}-{network}.npz").exists()
    ]
    if not missing:
        return
    from rapp.profiles import ProfileTable, Split, import_has_gpu
    from scaler.sources.table import TableSource

    table_file = folder / "v100.parquet"
    if not table_file.exists():
        import_has_gpu(v100, GRAPHS).write(table_file)
    table = ProfileTable.read(table_file).ok()
    split = Split.load(ROOT / "datasets" / "splits" / "unseen-network.json")
    folds = {name: fold for fold in range(8) for name in table.where(split.select(table, fold)[2]).networks()}
    for source, network in missing:
        spec = spec_of(network)
        opened: LatencySource
        if source == "truth":
            opened = TableSource(table)
        else:
            artifact = folder / f"artifact-{folds[network]}"
            if not artifact.exists():
                _train(folds[network], table_file, protocols, artifact)
            opened = _calibrated(artifact, folder, table_file, network, POINTS[source])
        times = opened.times(spec)
        with atomic_path(folder / f"{source}-{network}.npz") as temporary, temporary.open("wb") as file:
            np.savez(
                file, sm_pct=times.sm_pct, batch=times.batch, device_ms=times.device_ms,
                host_ms=times.host_ms, upper=times.upper,
            )  # fmt: skip
        print(f"times of {network} from {source}", flush=True)


def _train(fold: int, table_file: Path, protocols: Path, artifact: Path) -> None:
    """The model of one fold, as an artifact."""
    import torch

    from rapp.profiles import ProfileTable, Split
    from rapp.training.dataset import load_training_set
    from rapp.training.encoder_fit import EncoderSettings
    from rapp.training.export import export_model
    from rapp.training.pipeline import train_model

    torch.set_num_threads(1)
    table = ProfileTable.read(table_file).ok()
    split = Split.load(ROOT / "datasets" / "splits" / "unseen-network.json")
    train, _, _ = split.select(table, fold)
    data = load_training_set(table, GRAPHS)
    settings = EncoderSettings(steps=250)
    model = train_model(
        data.only(sorted(set(table.where(train).networks()))), settings, fold, members=4,
        state=protocols / "state" / f"unseen-network-{fold}-{settings.variant}-4-{settings.steps}",
        fit_cache=protocols / "fits", known_factor=False,
    )  # fmt: skip
    export_model(model, artifact, license_id="Apache-2.0")
    print(f"artifact of fold {fold}", flush=True)


def _calibrated(artifact: Path, folder: Path, table_file: Path, network: str, count: int) -> LatencySource:
    """The artifact with `count` measured points of the network."""
    from rapp.calibrate import save_points
    from rapp.evaluation.points import choose_points
    from rapp.predictor import Predictor
    from rapp.profiles import ProfileTable
    from rapp.types import QuotaKind, ResourceConfig
    from scaler.sources.predictor import PredictorSource

    if count == 0:
        return PredictorSource.load(artifact)
    predictor = Predictor.load(artifact)
    points = ProfileTable.read(table_file).ok().points(network)
    wanted = [ResourceConfig(c.sm_pct, c.quota_pct, c.batch) for c in predictor.card.calibration_points]
    chosen, _ = choose_points(points, wanted[:count], QuotaKind.LAUNCH_GATE)
    graph = predictor.network(GRAPHS / f"{network}.onnx")
    calibration = folder / f"calibration-{network}-{count}.json"
    save_points(calibration, predictor.card, graph.graph_hash, network, [point.taken for point in chosen])
    return PredictorSource.load(artifact, calibration)
