"""What fits where on all GPUs (`scaler.gpu`): the pool that policies plan on and the core checks with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rapp.errors import RappError
from scaler.gpu import Gpu, Need

TOLERANCE = 1e-6
"""Percent points, MiB or cores by which a sum of floats may exceed its limit."""


class PackingError(RappError):
    """Something was put where it does not fit, or taken from where it is not."""


class Pool:
    """All GPUs, as a scratch pad: a policy tries placements on it, the core checks decisions with it."""

    def __init__(self, gpus: Iterable[Gpu]) -> None:
        self.gpus: dict[str, Gpu] = {gpu.id: gpu for gpu in gpus}
        self._where: dict[str, tuple[str, int]] = {
            id_: (gpu.id, index)
            for gpu in self.gpus.values()
            for index, row in gpu.rows.items()
            for id_ in row.needs
        }

    def copy(self) -> Pool:
        """A pool that can be changed without changing this one."""
        return Pool(gpu.copy() for gpu in self.gpus.values())

    def where(self, instance: str) -> tuple[str, int] | None:
        """GPU and row of an instance; None: it is on none."""
        return self._where.get(instance)

    def need(self, instance: str) -> Need:
        """What an instance takes.

        Raises:
            PackingError: it is on no GPU.
        """
        gpu, row = self._place(instance)
        return self.gpus[gpu].rows[row].needs[instance]

    def find(self, need: Need, avoid: Mapping[str, object] | None = None) -> tuple[str, int] | None:
        """Where `need` fragments least: (GPU, row); None: it fits nowhere.

        A row of the same SM partition with the least quota to spare comes first, since it takes no SMs; else
        a new row on the GPU with the fewest SMs to spare. GPUs named in `avoid` are passed over.
        """
        found: list[tuple[float, float, str, int]] = []
        for gpu in self.gpus.values():
            taken = gpu.taken()
            memory_mib = gpu.memory_mib - taken.memory_mib - need.memory_mib
            cores = gpu.host_cores - taken.host_cores - need.host_cores
            if min(memory_mib, cores) < -TOLERANCE or (avoid is not None and gpu.id in avoid):
                continue
            for index, row in gpu.rows.items():
                if abs(row.sm_pct - need.sm_pct) <= TOLERANCE:
                    spare = row.free_quota_pct - need.quota_pct
                    if spare >= -TOLERANCE:
                        found.append((0.0, spare, gpu.id, index))
            spare = 100.0 - taken.sm_pct - need.sm_pct
            if spare >= -TOLERANCE:
                found.append((1.0, spare, gpu.id, gpu.free_row()))
        return min(found)[2:] if found else None

    def add(self, instance: str, gpu: str, row: int, need: Need) -> None:
        """Put an instance into a row; an empty row takes its SM partition.

        Raises:
            PackingError: it is placed already, the GPU is not there, or it does not fit.
        """
        fault = self.why_not(instance, gpu, row, need)
        if fault is not None:
            raise PackingError(f"{instance} on {gpu}, row {row}: {fault}")
        self.force(instance, gpu, row, need)

    def why_not(self, instance: str, gpu: str, row: int, need: Need) -> str | None:
        """Why an instance cannot be put there; None if it can."""
        if instance in self._where:
            return "it is placed already"
        there = self.gpus.get(gpu)
        if there is None:
            return "there is no such GPU"
        if row in there.rows:
            if abs(there.rows[row].sm_pct - need.sm_pct) > TOLERANCE:
                return f"the row has SM {there.rows[row].sm_pct:g} %, not {need.sm_pct:g} %"
            if need.quota_pct > there.rows[row].free_quota_pct + TOLERANCE:
                return f"quota {need.quota_pct:g} %, but {there.rows[row].free_quota_pct:g} % is free"
        elif need.sm_pct > there.free_sm_pct + TOLERANCE:
            return f"SM {need.sm_pct:g} %, but {there.free_sm_pct:g} % is free"
        elif need.quota_pct > 100 + TOLERANCE:
            return f"quota {need.quota_pct:g} %"
        if need.memory_mib > there.free_memory_mib + TOLERANCE:
            return f"{need.memory_mib:g} MiB, but {there.free_memory_mib:g} MiB is free"
        if need.host_cores > there.free_host_cores + TOLERANCE:
            return f"{need.host_cores:g} host cores, but {there.free_host_cores:g} are free"
        return None

    def force(self, instance: str, gpu: str, row: int, need: Need) -> None:
        """Put an instance where reality has it, whether it fits or not; an unknown GPU is ignored."""
        if gpu in self.gpus:
            self.gpus[gpu].put(instance, row, need)
            self._where[instance] = gpu, row

    def remove(self, instance: str) -> Need:
        """Take an instance away; what it took.

        Raises:
            PackingError: it is on no GPU.
        """
        gpu, row = self._place(instance)
        del self._where[instance]
        return self.gpus[gpu].take(instance, row)

    def room_to_grow(self, instance: str) -> float:
        """Quota, %, that an instance could be given on top of its own.

        Raises:
            PackingError: it is on no GPU.
        """
        gpu, row = self._place(instance)
        return max(self.gpus[gpu].rows[row].free_quota_pct, 0.0)

    def resize(self, instance: str, need: Need) -> None:
        """Change what an instance takes, where it is.

        Raises:
            PackingError: it is on no GPU, or that does not fit; nothing is changed then.
        """
        fault = self.why_not_resize(instance, need)
        gpu, row = self._place(instance)
        if fault is not None:
            raise PackingError(f"{instance} on {gpu}, row {row}: {fault}")
        self.gpus[gpu].put(instance, row, need)

    def why_not_resize(self, instance: str, need: Need) -> str | None:
        """Why an instance cannot take that, where it is; None if it can.

        Raises:
            PackingError: it is on no GPU.
        """
        gpu, row = self._place(instance)
        there, taken = self.gpus[gpu].rows[row], self.gpus[gpu].taken()
        before = there.needs[instance]
        free_quota_pct = there.free_quota_pct + before.quota_pct
        free_memory_mib = self.gpus[gpu].memory_mib - taken.memory_mib + before.memory_mib
        free_cores = self.gpus[gpu].host_cores - taken.host_cores + before.host_cores
        if abs(there.sm_pct - need.sm_pct) > TOLERANCE:
            return f"the row has SM {there.sm_pct:g} %, not {need.sm_pct:g} %"
        if need.quota_pct > free_quota_pct + TOLERANCE:
            return f"quota {need.quota_pct:g} %, but {free_quota_pct:g} % is free"
        if need.memory_mib > free_memory_mib + TOLERANCE:
            return f"{need.memory_mib:g} MiB, but {free_memory_mib:g} MiB is free"
        if need.host_cores > free_cores + TOLERANCE:
            return f"{need.host_cores:g} host cores, but {free_cores:g} are free"
        return None

    def faults(self) -> list[tuple[str, int | None, str]]:
        """What is overcommitted now: (GPU, row or None for the whole GPU, what)."""
        found: list[tuple[str, int | None, str]] = []
        for gpu in self.gpus.values():
            for index, row in gpu.rows.items():
                if row.free_quota_pct < -TOLERANCE:
                    found.append((gpu.id, index, "quota"))
            taken = gpu.taken()
            if taken.sm_pct > 100.0 + TOLERANCE:
                found.append((gpu.id, None, "SM"))
            if taken.memory_mib > gpu.memory_mib + TOLERANCE:
                found.append((gpu.id, None, "memory"))
            if taken.host_cores > gpu.host_cores + TOLERANCE:
                found.append((gpu.id, None, "host cores"))
        return found

    @property
    def gpu_share(self) -> float:
        """GPUs set aside: sum over instances of SM share x quota."""
        return sum(gpu.gpu_share for gpu in self.gpus.values())

    def _place(self, instance: str) -> tuple[str, int]:
        if instance not in self._where:
            raise PackingError(f"{instance} is on no GPU")
        return self._where[instance]
