"""Where HAS-GPU puts an instance: two rows of one SM partition each on every GPU.

From `FindOptimalRowIdx`, `RetrieveUsedGPUOrderedByHGO` and `getOptimalSMPartition` of HAS-GPU's
`internal/controller` (commit fe7105e). A GPU is used when something is on it; its occupancy (HGO there) is
the sum of SM share x quota of what is on it, `Gpu.gpu_share`.
"""

from __future__ import annotations

from collections.abc import Iterable

from rapp.types import ResourceConfig
from scaler.core.decision import Reason
from scaler.gpu import Gpu
from scaler.packing import TOLERANCE, Pool
from scaler.policies.changes import Changes

ROWS = 2
"""SM rows of a GPU (GPUSMConfigNum)."""

FIRST_BELOW = 0.5
"""Occupancy below which a used GPU takes the first instance of a function."""

MORE_BELOW = 0.95
"""Occupancy below which a used GPU takes a further instance (HGOThredshold)."""

FALLBACK_SM_PCT = 50.0
"""SM partition of a free row for a network without one of its own, %; and that of the last resort."""

_SM_PCT = {
    "bert": (30.0, 50.0, 70.0),
    "resnet": (25.0, 30.0, 50.0),
    "convnext": (30.0, 30.0, 70.0),
    "mobilenet": (40.0, 30.0, 70.0),
    "gpt": (0.0, 80.0, 80.0),
}
"""By a part of the network's name: a missing rate, rps; the SM partitions, %, up to that rate and above."""


def row_sm_pct(network: str, missing_rps: float) -> float:
    """SM partition of a row that is free, %, by the network's name and the rate that is missing."""
    for part, (limit_rps, low_pct, high_pct) in _SM_PCT.items():
        if part in network.lower():
            return high_pct if missing_rps > limit_rps else low_pct
    return FALLBACK_SM_PCT


def rows_of(gpu: Gpu, free_row_sm_pct: float) -> list[tuple[int, float, float]]:
    """Rows with quota to give: (index, SM partition, %, free quota, %), the free row with the SM given.

    The SM partitions of both rows have to fit side by side.
    """
    rows = []
    for index, row in gpu.rows.items():
        free_pct = row.free_quota_pct
        if free_pct > TOLERANCE:
            rows.append((index, row.sm_pct, free_pct))
    if len(gpu.rows) < ROWS and free_row_sm_pct <= gpu.free_sm_pct + TOLERANCE:
        rows.append((gpu.free_row(), free_row_sm_pct, 100.0))
    return sorted(rows)


def by_occupancy(pool: Pool) -> list[Gpu]:
    """All GPUs that have quota or a row to give, the least occupied first."""
    room = (gpu for gpu in pool.gpus.values() if len(gpu.rows) < ROWS or gpu.most_free_quota_pct > TOLERANCE)
    return sorted(room, key=lambda gpu: (gpu.gpu_share, gpu.id))


def used(gpus: Iterable[Gpu], below: float) -> list[Gpu]:
    """Those with something on them and an occupancy below that."""
    return [gpu for gpu in gpus if gpu.rows and gpu.gpu_share < below]


def unused(gpus: Iterable[Gpu]) -> list[Gpu]:
    """Those with nothing on them."""
    return [gpu for gpu in gpus if not gpu.rows]


def start_first(changes: Changes, config: ResourceConfig, reason: Reason) -> bool:
    """Start the first instance of a function; False: there is no room.

    A used GPU below half occupancy, else an unused one, else any; the least occupied first.
    """
    gpus = by_occupancy(changes.pool)
    order = [*used(gpus, FIRST_BELOW), *unused(gpus), *gpus]
    return any(start_on(changes, gpu, config, reason) for gpu in order)


def start_on(changes: Changes, gpu: Gpu, config: ResourceConfig, reason: Reason) -> bool:
    """Start an instance on a GPU: in the row of its SM partition, else in a free row, else in that with the
    most free quota, whose SM partition it takes then.
    """

    def preference(row: tuple[int, float, float]) -> tuple[float, ...]:
        index, sm_pct, free_pct = row
        if index not in gpu.rows:
            return (1.0, 0.0, index)
        return (0.0 if abs(sm_pct - config.sm_pct) <= TOLERANCE else 2.0, -free_pct, index)

    for index, sm_pct, _ in sorted(rows_of(gpu, config.sm_pct), key=preference):
        taken = ResourceConfig(sm_pct, config.quota_pct, config.batch)
        if changes.start(taken, reason, (gpu.id, index)):
            return True
    return False
