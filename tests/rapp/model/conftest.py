"""Operator graphs of the zoo, and random ones, as features."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from rapp.graph import OperatorGraph
from rapp.graph.features import COSTS, OP_TYPES, WIDTH, GraphFeatures
from rapp.knots import Knots

ZOO = Path(__file__).resolve().parents[3] / "datasets" / "graphs"


@cache
def zoo_features(name: str) -> GraphFeatures:
    return GraphFeatures.of(OperatorGraph.from_onnx(ZOO / f"{name}.onnx"))


def random_features(operators: int, edges: int, seed: int) -> GraphFeatures:
    """A random DAG: rows as those of real operators, edges from an earlier to a later operator."""
    rng = np.random.default_rng(seed)
    rows = rng.uniform(0, 2, size=(operators, WIDTH)).astype(np.float32)
    rows[:, : len(OP_TYPES) + 1] = np.eye(len(OP_TYPES) + 1)[rng.integers(0, len(OP_TYPES) + 1, operators)]
    costs = np.exp(rng.uniform(5, 20, size=(operators, len(COSTS)))).astype(np.float32)
    ends = np.sort(rng.integers(0, operators, size=(2, edges)), axis=0)
    return GraphFeatures(rows, costs, ends[:, ends[0] != ends[1]])


@pytest.fixture(scope="session", name="zoo_features")
def _zoo_features() -> Callable[[str], GraphFeatures]:
    """`zoo_features("resnet18")`."""
    return zoo_features


@pytest.fixture(scope="session", name="random_features")
def _random_features() -> Callable[[int, int, int], GraphFeatures]:
    """`random_features(operators, edges, seed)`."""
    return random_features


@pytest.fixture(scope="session")
def knots() -> Knots:
    """Trained on 24 configurations."""
    return Knots.around([1, 4], [10, 40, 70, 100], [20, 60, 100])
