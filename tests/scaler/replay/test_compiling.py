"""The event loop without numba."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from scaler.replay import events
from scaler.replay.compiling import COMPILED
from scaler.replay.tables import PlainTable
from scaler.replay.world import INSTANCE, World, empty_world

PROGRAM = """
import sys

sys.modules["numba"] = None  # as if it were not installed
from test_compiling import latencies

print(latencies().tobytes().hex())
"""


def latencies() -> np.ndarray:
    """Of a short run in which instances share rows, are held by their quota, crash and drain."""
    rng = np.random.default_rng(2)
    arrival = np.cumsum(rng.exponential(0.01, 400))
    w: World = empty_world(
        arrival, rng.integers(0, 2, 400), queue_limit=np.array([50, 8]), most_delay_s=np.array([0.0, 0.01]),
        objective_s=np.ones(2), row_gpu=np.array([0, 0]), gpus=1, instances=4, most_batch=4,
        noise=np.exp(rng.normal(0, 0.1, 64)), beside=np.array([[1.1, 1.2], [1.3, 1.0]]),
    )  # fmt: skip
    for i in range(4):
        one = w.instance_table[i]
        one.function, one.row, one.batch, one.quota, one.window = i % 2, i // 2, 1 + i, 0.4, 0.04
        w.device[i, 1:] = 0.004 * np.arange(1, 5)
        w.pace[i, 1:] = 0.005 * np.arange(1, 5)
        events.start(w, i, 0.1 * i)
    events.run_until(w, 1.5)
    events.stop(w, 0)
    events.run_until(w, 2.5)
    events.drain(w, 3)
    events.run_until(w, 10.0)
    assert w.arrived.sum() == 400
    assert np.isfinite(w.latency).sum() == w.served.sum() > 300
    return w.latency


@pytest.mark.skipif(not COMPILED, reason="numba is not installed")
def test_python_alone_gives_the_same_to_the_last_bit_but_one():
    plain = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        cwd=__file__.rpartition("/")[0],
    )
    alone = np.frombuffer(bytes.fromhex(plain.stdout.strip()))
    # A compiler may fuse a multiplication and an addition.
    assert np.allclose(alone, latencies(), rtol=1e-9, atol=1e-12, equal_nan=True)


def test_a_record_of_a_plain_table_changes_the_table():
    table = PlainTable(np.zeros(3, dtype=INSTANCE))
    table[1].tokens += 2.5
    table[1].stage = 3
    assert len(table) == 3
    assert table.data["tokens"].tolist() == [0.0, 2.5, 0.0]
    assert (table[1].stage, table[2].stage) == (3, 0)
    with pytest.raises(AttributeError):
        table[1].tokenz = 1
