"""What scripts/protocols.py wrote, read back: the scores of each network, and means over networks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from rapp.evaluation.scores import bootstrap_mean

POINTS = ("0", "1", "3", "5", "8", "11")
Networks = dict[str, dict[str, Any]]


def read(folder: Path, protocol: str, fold: int | None = None) -> tuple[Networks, list[dict[str, Any]]]:
    """All networks of a protocol's folds (or of one fold), and the folds."""
    pattern = f"{protocol}-{'[0-9]' if fold is None else fold}.json"
    folds = [json.loads(path.read_text()) for path in sorted(folder.glob(pattern))]
    networks: Networks = {}
    for one in folds:
        for name, scores in one["networks"].items():
            networks[name if name not in networks else f"{name} (fold {one['fold']})"] = scores
    return networks, folds


def mean_with_interval(values: Iterable[float]) -> str:
    """`5.12 (4.70 to 5.55)`: mean and its bootstrap interval."""
    array = np.array(list(values))
    low, high = bootstrap_mean(array, seed=0)
    return f"{array.mean():.2f} ({low:.2f} to {high:.2f})"


def column(networks: Networks, points: str, key: str) -> np.ndarray:
    """One score of each network at K points."""
    return np.array([scores["points"][points][key] for scores in networks.values()])


def device(networks: Networks, key: str) -> list[float]:
    """Error of device time of the networks that have device-bound points."""
    return [float(scores[key]) for scores in networks.values() if scores.get(key) is not None]
