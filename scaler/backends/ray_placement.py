"""Who sits where: rows of SM partitions on each device of a cluster, and what is still free.

On a GPU a row is a percentage for MPS. On a node without GPUs it is a whole number of its cores, which no
other row has; instances that share a row share its cores and take turns by their quotas.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rapp.runtime.cores import cores_of_share, why_no_share
from rapp.types import ResourceConfig
from scaler.core.observation import GpuView
from scaler.packing import TOLERANCE

ROWS_PER_DEVICE = 100
"""SM partitions are at least 1 %."""


@dataclass(frozen=True, slots=True)
class Seat:
    """What an instance holds of a device."""

    row: int
    config: ResourceConfig
    memory_mib: float
    cores: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Room:
    """A device and how it is divided.

    Args:
        view: as the core sees it.
        cores: of a node without GPUs, whose SM partitions they are; None: a GPU.
    """

    view: GpuView
    cores: int | None

    def why_not(
        self, seats: Iterable[Seat], row: int, config: ResourceConfig, max_batch: int, memory_mib: float
    ) -> str | None:
        """Why there is no room beside `seats`; None: there is."""
        if not 0 <= row < ROWS_PER_DEVICE:
            return f"there is no row {row}"
        if not 1 <= config.batch <= max_batch:
            return f"batch {config.batch} is not in 1 to {max_batch}"
        if self.cores is not None and (why := why_no_share(config.sm_pct, self.cores)) is not None:
            return why
        there = list(seats)
        rows = {seat.row: seat.config.sm_pct for seat in there}
        if rows.get(row, config.sm_pct) != config.sm_pct:
            return f"row {row} has SM {rows[row]:g} %"
        rows[row] = config.sm_pct
        # 33.3 % of three cores is one core: the percentages may say a little more, or less, than the whole.
        if sum(rows.values()) > 100 + max(TOLERANCE, 0.1 * (self.cores or 0)):
            return f"the rows of {self.view.id} would have {sum(rows.values()):g} % of its SMs"
        quota_pct = config.quota_pct + sum(seat.config.quota_pct for seat in there if seat.row == row)
        if quota_pct > 100 + TOLERANCE:
            return f"row {row} of {self.view.id} would have {quota_pct:g} % of its time"
        memory = memory_mib + sum(seat.memory_mib for seat in there)
        if memory > self.view.memory_mib + TOLERANCE:
            return f"{self.view.id} has {self.view.memory_mib:,.0f} MiB, not {memory:,.0f}"
        return None

    def cores_for(self, seats: Iterable[Seat], row: int, sm_pct: float) -> tuple[int, ...]:
        """Cores of a row: its own if it has some, else the first that are free; none on a GPU.

        `why_not` was asked before and answered None.
        """
        if self.cores is None:
            return ()
        there = list(seats)
        for seat in there:
            if seat.row == row:
                return seat.cores
        taken = {core for seat in there for core in seat.cores}
        count = cores_of_share(sm_pct, self.cores)
        free = [core for core in range(self.cores) if core not in taken]
        assert count is not None and count <= len(free), "why_not comes first"
        return tuple(free[:count])
