"""A server that the tests of a module share, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("tritonclient.http", reason="needs the extra dev")

from rapp.runtime import cpu_session
from scaler.serving.testing import RunningServer, random_network, running

FUNCTIONS = [
    {"name": "net", "network": "net.onnx", "slo_ms": 500, "max_batch": 4, "queue_limit": 50,
     "initial": {"sm_pct": 100, "quota_pct": 60, "batch": 4}},
    {"name": "slow", "network": "slow.onnx", "slo_ms": 500, "max_batch": 2, "queue_limit": 3,
     "initial": {"sm_pct": 100, "quota_pct": 40, "batch": 1}},
]  # fmt: skip


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks: `net` takes well under a millisecond, `slow` tens of them."""
    made = tmp_path_factory.mktemp("serving")
    random_network(made / "net.onnx")
    random_network(made / "slow.onnx", seed=1, size=160, layers=4, channels=32)
    return made


@pytest.fixture(scope="session")
def server(folder: Path) -> Iterator[RunningServer]:
    """A server of both networks, ready."""
    with running(folder, FUNCTIONS) as made:
        made.wait_ready()
        yield made


@pytest.fixture(scope="session")
def direct(folder: Path) -> Any:
    """The network `net` run directly: an array of [n, 3, 8, 8] to one of [n, 10]."""
    session = cpu_session(folder / "net.onnx")

    def run(x: Any) -> Any:
        return np.concatenate([session.run(None, {"x": row[np.newaxis]})[0] for row in x])

    return run
