"""A network's points as arrays over its grid: what plots and maps are drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from rapp.profiles.coverage import table_grid
from rapp.profiles.table import ProfileTable
from rapp.types import FloatArray, ResourceGrid


class State(IntEnum):
    """What is known of a configuration; where several rows tell of it, the greatest counts."""

    MISSING = 0
    SKIPPED = 1
    FAILED = 2
    DERIVED = 3
    MEASURED = 4


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """One network under one setting; S, Q, B are the lengths of its axes.

    Args:
        network: its name.
        grid: every SM partition, quota and batch that its rows name.
        state: a `State` each, shape (S, Q, B).
        row: which row of the table a configuration is shown from, shape (S, Q, B); -1 without one.
        repeated: configurations that more than one row with a latency tells of.
    """

    network: str
    grid: ResourceGrid
    state: NDArray[np.int8]
    row: NDArray[np.int64]
    repeated: int

    def values(self, column: FloatArray) -> FloatArray:
        """The values of a column, shape (R,), on the grid, shape (S, Q, B); NaN without a row."""
        return np.where(self.row >= 0, column[self.row], np.nan)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Where there is a latency, measured or derived, shape (S, Q, B)."""
        return self.state >= State.DERIVED


def cells(rows: ProfileTable) -> list[Cells]:
    """The cells of each network, sorted by name.

    A configuration with several rows is shown from the measured one before the derived, and from the
    latest of these: `started_at`, then the place in the table.

    Args:
        rows: the rows of one setting; anchors do not count. Places in `Cells.row` are those of `rows`.
    """
    network = rows.column("network")
    points = ~rows.column("anchor")
    state = _states(rows)
    # NaT becomes the least integer: an unknown start loses against a known one.
    started = rows.column("started_at").astype("datetime64[us]").astype(np.int64)
    axes = [rows.column(name).astype(float) for name in ("sm_pct", "quota_pct", "batch")]
    order = np.lexsort((np.arange(len(rows)), started, state))
    made = []
    for name in sorted(set(network[points].tolist())):
        own = order[(network == name)[order] & points[order]]
        grid = table_grid(rows.where((network == name) & points))
        assert grid is not None, "the network has a row"
        shape = (len(grid.sm_pct), len(grid.quota_pct), len(grid.batch))
        place = tuple(
            np.searchsorted(np.asarray(values, dtype=float), axis[own])
            for values, axis in zip((grid.sm_pct, grid.quota_pct, grid.batch), axes, strict=True)
        )
        row = np.full(shape, -1, dtype=np.int64)
        row[place] = own  # of equal places the last one stays, and `order` puts the best there
        latencies = np.zeros(shape, dtype=np.int64)
        np.add.at(latencies, place, state[own] >= State.DERIVED)
        shown = np.where(row >= 0, state[row], np.int8(State.MISSING))
        made.append(Cells(name, grid, shown, row, int((latencies > 1).sum())))
    return made


def _states(rows: ProfileTable) -> NDArray[np.int8]:
    status, derived = rows.column("status"), rows.column("derived")
    state = np.full(len(rows), State.SKIPPED, dtype=np.int8)
    state[status == "failed"] = State.FAILED
    state[status == "ok"] = State.MEASURED
    state[(status == "ok") & derived] = State.DERIVED
    return state
