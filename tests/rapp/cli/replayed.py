"""What the tests of `rapp profile` share: a table of two networks to replay, and what must come of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from rapp.profiles import ProfileTable
from rapp.types import ResourceGrid

GRID = ResourceGrid((25, 50, 100), (20, 60, 100), (1, 2))
AXES = ("--sm", "25,50,100", "--quota", "20:100:40", "--batch", "1,2")
EXACT = "replay:table.parquet?run=0&process=0"


def write_table(path: Path, grid: ResourceGrid = GRID, **changes: object) -> None:
    """Two networks with D = 4 ms x batch / SM share, under the gpu_time law."""
    rows = []
    for network in ("alpha", "beta"):
        for c in grid:
            device_ms = 4.0 * c.batch * 100 / c.sm_pct
            row: dict[str, object] = {
                "network": network, "graph_hash": network * 8, "device": "NVIDIA A100", "runtime": "ort-cuda",
                "precision": "fp32", "batch": c.batch, "sm_pct": c.sm_pct, "quota_pct": c.quota_pct,
                "quota_kind": "gpu_time", "window_ms": 40.0, "idle_ms": 0.0,
                "latency_ms": device_ms * 100 / c.quota_pct, "device_ms": device_ms, "derived": False,
                "status": "ok", "campaign_id": "c1", "anchor": False,
            }  # fmt: skip
            rows.append(row | changes)
    ProfileTable.from_rows(rows).write(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with `table.parquet` to replay."""
    write_table(tmp_path / "table.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def places(table: ProfileTable) -> Counter[tuple[str, float, float, int]]:
    rows = table.filter(anchor=False).arrow.to_pylist()
    return Counter((row["network"], row["sm_pct"], row["quota_pct"], row["batch"]) for row in rows)


def wanted(*networks: str, grid: ResourceGrid = GRID) -> Counter[tuple[str, float, float, int]]:
    return Counter((name, c.sm_pct, c.quota_pct, c.batch) for name in networks for c in grid)
