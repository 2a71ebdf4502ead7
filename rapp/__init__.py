"""RaPP: inference latency of a DNN over SM partition, time quota and batch.

    import rapp

    predictor = rapp.Predictor.load("models/v100")
    network = predictor.network("net.onnx")
    network.latency(rapp.ResourceConfig(sm_pct=50, quota_pct=40, batch=4))

Importing this package needs numpy alone; onnxruntime is loaded with a predictor, torch never.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from rapp.errors import RappError
from rapp.types import (
    LatencyEstimate,
    LatencyGrid,
    MeasuredPoint,
    QuotaKind,
    ResourceConfig,
    ResourceGrid,
)

if TYPE_CHECKING:
    from rapp.graph import OperatorGraph
    from rapp.predictor import NetworkPredictor, Predictor

__version__ = "0.1.0"

__all__ = [
    "LatencyEstimate",
    "LatencyGrid",
    "MeasuredPoint",
    "NetworkPredictor",
    "OperatorGraph",
    "Predictor",
    "QuotaKind",
    "RappError",
    "ResourceConfig",
    "ResourceGrid",
    "__version__",
]

# Names that would load onnx or onnxruntime arrive on first use (PEP 562).
_LAZY = {
    "NetworkPredictor": "rapp.predictor",
    "OperatorGraph": "rapp.graph",
    "Predictor": "rapp.predictor",
}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
