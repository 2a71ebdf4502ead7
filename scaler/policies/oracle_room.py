"""Where `oracle` puts an instance: room is kept for what is known to grow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scaler.gpu import Need
from scaler.packing import TOLERANCE, Pool


def place(pool: Pool, takes: Need, keep_pct: float, reserved: Mapping[str, Any]) -> tuple[str, int] | None:
    """Where an instance fits: a row of its own; else one where it may grow; else any.

    For a new row the GPU whose free SMs and cores are then most alike, in parts of all; then the fewest SMs.
    """
    best: tuple[tuple[float, float], str, int] | None = None
    for gpu in pool.gpus.values():
        if takes.memory_mib > gpu.free_memory_mib + TOLERANCE:
            continue
        if takes.host_cores > gpu.free_host_cores + TOLERANCE:
            continue
        spare = gpu.free_sm_pct - takes.sm_pct
        # SMs whose GPU has no core left are of no use to anyone.
        cores = (gpu.free_host_cores - takes.host_cores) / max(gpu.host_cores, 1e-9)
        stranded = round(abs(spare / 100 - cores), 1)
        if spare >= -TOLERANCE:
            best = min(filter(None, (best, ((stranded, spare), gpu.id, gpu.free_row()))))
        for index, row in gpu.rows.items():
            kept = sum(max(reserved.get(id_, 0.0), one.quota_pct) for id_, one in row.needs.items())
            if abs(row.sm_pct - takes.sm_pct) <= TOLERANCE and kept + keep_pct <= 100.0 + TOLERANCE:
                best = min(filter(None, (best, ((2.0, 100.0 - kept), gpu.id, index))))
    return pool.find(takes) if best is None else (best[1], best[2])
