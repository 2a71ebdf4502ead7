"""`rapp profile` on a GPU that is imitated: see `tests/profiler/devices/test_cuda.py`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "fakes"))

from gpu_fixtures import Machine, machine, small_network, stub_driver

from rapp.profiles import ProfileTable

__all__ = ["machine", "small_network", "stub_driver"]

Run = Callable[..., Any]
QUICK = ("--max-seconds", "0.5", "--max-samples", "20")


def test_quotas_of_a_gpu_are_derived_unless_asked_for(
    rapp: Run, machine: Machine, small_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stub's kernels take their time on 80 multiprocessors, so that D goes as 1 / SM share."""
    monkeypatch.setenv("FAKE_ORT", json.dumps({"kernel_us": 300}))
    machine.gpus.reset()
    out = tmp_path / "gpu.parquet"
    axes = ("--sm", "50", "--quota", "20:100:20", "--batch", "1,2", "--no-anchors")
    done = rapp("profile", small_network, "--device", "cuda:0", "--out", out, *axes, *QUICK)
    assert done.code == 0, done.err
    assert "derived off" in done.out
    table = ProfileTable.read(out)
    assert set(table.column("status")) == {"ok"}
    assert len(table) == 5 * 2
    derived = table.filter(derived=True)
    assert len(derived) == 10 - 2 - 6, "three of four quotas are verified at either batch"
    full = {(row["sm_pct"], row["batch"]): row for row in table.filter(quota_pct=100.0).arrow.to_pylist()}
    assert full[50.0, 1]["sm_count"] == 40
    assert full[50.0, 1]["device_ms"] == pytest.approx(2.4, rel=0.3)
    for row in derived.arrow.to_pylist():
        base = full[row["sm_pct"], row["batch"]]
        expected = max(base["latency_ms"], base["device_ms"] * 100 / row["quota_pct"])
        assert row["latency_ms"] == pytest.approx(expected)
    software = json.loads(table.column("software")[0])
    assert np.isfinite(software["derived_error_pct"])
    assert list(machine.claims.iterdir()) == [], "the GPU is given back"
