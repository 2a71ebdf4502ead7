"""What is on one GPU: rows of one SM partition each, and in each row the instances that take turns in it.

    GPU  ┌─────────── row 0: SM 30 % ── quotas 40 + 60 ───────────┐
         │            row 1: SM 50 % ── quota  70, 30 free        │   20 % of the SMs free
         └────────────────────────────────────────────────────────┘

Rows lie side by side: their SM partitions sum to at most 100 %. The instances of a row take turns: their
quotas sum to at most 100 %. Memory and host cores are those of the GPU. A row is free when it is empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Need:
    """What an instance takes.

    Args:
        sm_pct: SM partition, %. quota_pct: time quota, %.
        memory_mib: device memory, MiB.
        host_cores: share of a core that launching keeps busy: host time of a batch x batches a second.
    """

    sm_pct: float
    quota_pct: float
    memory_mib: float = 0.0
    host_cores: float = 0.0


@dataclass(slots=True)
class Row:
    """Instances that share one SM partition of a GPU in turns. Changed by its `Gpu` alone."""

    sm_pct: float
    needs: dict[str, Need] = field(default_factory=dict)
    _quota_pct: float | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def free_quota_pct(self) -> float:
        """Quota that nobody has, %; negative: overcommitted."""
        if self._quota_pct is None:
            self._quota_pct = sum(need.quota_pct for need in self.needs.values())
        return 100.0 - self._quota_pct

    def copy(self) -> Row:
        """The same, to be changed apart from this one."""
        row = Row(self.sm_pct, dict(self.needs))
        row._quota_pct = self._quota_pct
        return row


class Taken(NamedTuple):
    """What is taken on a GPU: %, MiB, cores, the sum of SM share x quota; and the quota left in a row, %."""

    sm_pct: float
    memory_mib: float
    host_cores: float
    gpu_share: float
    most_free_quota_pct: float


NOTHING = Taken(0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(slots=True)
class Gpu:
    """One GPU and what is on it. `rows` holds the rows that are not empty, by index.

    Sums are kept until `put` or `take` changes something: placing an instance asks every GPU.
    """

    id: str
    memory_mib: float
    host_cores: float
    rows: dict[int, Row] = field(default_factory=dict)
    _sums: Taken | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def free_sm_pct(self) -> float:
        """SM share outside all rows, %; negative: overcommitted."""
        return 100.0 - self.taken().sm_pct

    @property
    def free_memory_mib(self) -> float:
        """Memory that no instance is counted for, MiB; negative: overcommitted."""
        return self.memory_mib - self.taken().memory_mib

    @property
    def free_host_cores(self) -> float:
        """Host cores that no instance is counted for; negative: overcommitted."""
        return self.host_cores - self.taken().host_cores

    @property
    def gpu_share(self) -> float:
        """GPUs set aside on it, in [0, 1]: sum over instances of SM share x quota."""
        return self.taken().gpu_share

    @property
    def most_free_quota_pct(self) -> float:
        """The largest quota that a row which is there could give, %; 0 without rows."""
        return self.taken().most_free_quota_pct

    def put(self, instance: str, row: int, need: Need) -> None:
        """Put an instance into a row, whether it fits or not; a row that is new takes its SM partition."""
        there = self.rows.setdefault(row, Row(need.sm_pct))
        there.needs[instance] = need
        there._quota_pct = self._sums = None

    def take(self, instance: str, row: int) -> Need:
        """Take an instance out of a row; the row goes with the last one."""
        there = self.rows[row]
        there._quota_pct = self._sums = None
        need = there.needs.pop(instance)
        if not there.needs:
            del self.rows[row]
        return need

    def copy(self) -> Gpu:
        """The same, to be changed apart from this one."""
        rows = {index: row.copy() for index, row in self.rows.items()}
        gpu = Gpu(self.id, self.memory_mib, self.host_cores, rows)
        gpu._sums = self._sums
        return gpu

    def taken(self) -> Taken:
        """The sums of what is on it."""
        if self._sums is None:
            if not self.rows:
                self._sums = NOTHING
                return NOTHING
            needs = [need for row in self.rows.values() for need in row.needs.values()]
            self._sums = Taken(
                sum(row.sm_pct for row in self.rows.values()),
                sum(need.memory_mib for need in needs),
                sum(need.host_cores for need in needs),
                sum(need.sm_pct * need.quota_pct for need in needs) / 1e4,
                max((row.free_quota_pct for row in self.rows.values()), default=0.0),
            )
        return self._sums

    def free_row(self) -> int:
        """The lowest index that no row has."""
        return next(index for index in count() if index not in self.rows)
