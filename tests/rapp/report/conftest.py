"""A campaign in small, with points of every kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rapp.profiles import ProfileTable

Row = dict[str, Any]

COMMON: Row = {
    "device": "A100", "runtime": "ort-cuda", "precision": "fp16", "quota_kind": "gpu_time", "derived": False,
    "status": "ok", "campaign_id": "c1", "anchor": False,
}  # fmt: skip


def _row(network: str, sm: float, quota: float, batch: int) -> Row:
    """Latency of 8 x batch / (SM x quota) ms; SM 25 % does not fit batch 8; derived under quota 100 %."""
    latency = 8 * batch / (sm * quota / 1e4)
    row = COMMON | {"network": network, "sm_pct": sm, "quota_pct": quota, "batch": batch}
    if sm == 25 and batch == 8:
        if quota == 100:
            return row | {"status": "failed", "reason": "out of memory: 96 MiB short"}
        return row | {"status": "skipped", "reason": "quota 100 % ended with: out of memory: 96 MiB short"}
    if quota < 100:
        return row | {"latency_ms": latency, "derived": True}
    interval = {"median_ms": latency, "median_low_ms": 0.99 * latency, "median_high_ms": 1.02 * latency}
    return row | {"latency_ms": latency, "device_ms": 0.9 * latency} | interval


def _table(
    networks: tuple[str, ...] = ("alpha", "beta"), source: str = "/home/someone/runs/a.parquet"
) -> ProfileTable:
    rows = [
        _row(network, sm, quota, batch)
        for network in networks
        for sm in (25.0, 50.0, 100.0)
        for quota in (20.0, 50.0, 100.0)
        for batch in (1, 8)
        if (sm, quota, batch) != (50.0, 20.0, 1)
    ]
    return ProfileTable.from_rows(rows, source)


@pytest.fixture
def campaign() -> Callable[..., ProfileTable]:
    """`campaign(("net",))`: a network with measured, derived, failed and skipped points, and a gap."""
    return _table
