"""Whether a configuration has room on a GPU beside what is there: the rules of the replay.

Rows are SM partitions side by side; the instances of a row share its time by their quotas.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rapp.types import ResourceConfig
from scaler.core.observation import GpuView

TOLERANCE = 1e-6
"""For sums of percentages and of MiB."""
ROWS_PER_GPU = 100
"""An SM partition is at least 1 %."""


@dataclass(frozen=True, slots=True)
class Occupant:
    """An instance that takes room, until it is gone.

    Args:
        row: index of its row. config: what it has. memory_mib: memory that it is counted with, MiB.
    """

    row: int
    config: ResourceConfig
    memory_mib: float


def why_no_room(gpu: GpuView, there: Iterable[Occupant], new: Occupant, max_batch: int) -> str | None:
    """Why there is no room for `new` beside what is there; None: there is.

    Args:
        max_batch: largest batch of its function.
    """
    there = list(there)
    if not 0 <= new.row < ROWS_PER_GPU:
        return f"there is no row {new.row}"
    if not 1 <= new.config.batch <= max_batch:
        return f"batch {new.config.batch} is not in 1 to {max_batch}"
    rows = {one.row: one.config.sm_pct for one in there}
    if abs(rows.get(new.row, new.config.sm_pct) - new.config.sm_pct) > TOLERANCE:
        return f"the row has SM {rows[new.row]:g} %"
    rows[new.row] = new.config.sm_pct
    if sum(rows.values()) > 100 + TOLERANCE:
        return f"the rows of {gpu.id} would have {sum(rows.values()):g} % of its SMs"
    quota_pct = new.config.quota_pct + sum(one.config.quota_pct for one in there if one.row == new.row)
    if quota_pct > 100 + TOLERANCE:
        return f"the row would have {quota_pct:g} % of its time"
    needed_mib = new.memory_mib + sum(one.memory_mib for one in there)
    if needed_mib > gpu.memory_mib + TOLERANCE:
        return f"{gpu.id} has {gpu.memory_mib:.0f} MiB, not {needed_mib:.0f}"
    return None
