"""Small networks of the zoo with latencies from a law that is written down here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rapp.graph import OperatorGraph
from rapp.graph.features import GraphFeatures
from rapp.profiles import ProfileTable
from rapp.training.dataset import TrainingSet, load_training_set
from rapp.types import QuotaKind, ResourceGrid

ZOO = Path(__file__).resolve().parents[3] / "datasets" / "graphs"
NAMES = ("alexnet", "mobilenet_v3_small", "resnet18", "squeezenet1_1", "vgg11")
GRID = ResourceGrid([10, 40, 70, 100], [20, 60, 100], [1, 4])
IDLE_MS, WINDOW_MS = 2.0, 20.0


@cache
def features(name: str) -> GraphFeatures:
    return GraphFeatures.of(OperatorGraph.from_onnx(ZOO / f"{name}.onnx"))


def device_ms(name: str, batch: float, sm_pct: float) -> float:
    """A device that does 0.5 TFLOP/s, and nothing with more than 70 % of its SMs."""
    seen = features(name)
    return float(seen.costs[:, 0].sum() * batch / (0.5e9 * min(sm_pct / 100, 0.7)) + 0.01 * len(seen.costs))


def host_ms(name: str) -> float:
    return 0.06 * len(features(name).costs)


def rows_of(
    names: Sequence[str], kind: QuotaKind, noise: float = 0.02, seed: int = 0, **changes: object
) -> list[dict[str, Any]]:
    """Rows on `GRID`: the slower of device and host, and what the quota holds back."""
    rng = np.random.default_rng(seed)
    gpu_time = kind == QuotaKind.GPU_TIME
    rows = []
    for name in names:
        for config in GRID:
            device, host = device_ms(name, config.batch, config.sm_pct), host_ms(name)
            share = config.quota_pct / 100
            latency = max(device, host, device / share - IDLE_MS) if gpu_time else max(device, host / share)
            rows.append(
                {
                    "network": name, "device": "made up", "runtime": "pytorch-eager", "precision": "fp32",
                    "quota_kind": kind.value, "derived": False, "anchor": False, "status": "ok",
                    "campaign_id": "c1", "sm_pct": config.sm_pct, "quota_pct": config.quota_pct,
                    "batch": config.batch, "idle_ms": IDLE_MS, "window_ms": WINDOW_MS,
                    "latency_ms": latency * float(np.exp(noise * rng.standard_normal())),
                } | changes
            )  # fmt: skip
    return rows


@pytest.fixture(scope="session")
def zoo() -> Path:
    """Folder of the committed operator graphs."""
    return ZOO


@pytest.fixture(scope="session", name="rows_of")
def _rows_of() -> Callable[..., list[dict[str, Any]]]:
    """`rows_of(names, kind)`: rows of profile tables."""
    return rows_of


@pytest.fixture(scope="session", name="device_ms")
def _device_ms() -> Callable[[str, float, float], float]:
    """The true device time of a network at (batch, sm_pct)."""
    return device_ms


@pytest.fixture(scope="session")
def gated() -> TrainingSet:
    """Five networks under launch gates."""
    return load_training_set(ProfileTable.from_rows(rows_of(NAMES, QuotaKind.LAUNCH_GATE)), ZOO)


@pytest.fixture(scope="session")
def limited() -> TrainingSet:
    """Five networks under quotas of device time."""
    return load_training_set(ProfileTable.from_rows(rows_of(NAMES, QuotaKind.GPU_TIME)), ZOO)


@pytest.fixture(scope="session", params=["launch_gate", "gpu_time"])
def tiny(request: pytest.FixtureRequest) -> TrainingSet:
    """Either kind in turn."""
    name = {"launch_gate": "gated", "gpu_time": "limited"}[request.param]
    made: TrainingSet = request.getfixturevalue(name)
    return made
