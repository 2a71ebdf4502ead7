"""What instances run on: the cores of this machine, or a GPU; each appears to the controller as one GPU."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

from rapp.errors import ConfigError, RappError
from rapp.runtime.cgroup import memory_limit_mib
from rapp.runtime.cores import cores_of_share, usable_cores, why_no_share
from scaler.core.observation import GpuView


class ServingDevice(Protocol):
    """A GPU, or what stands for one."""

    @property
    def view(self) -> GpuView:
        """What a controller sees of it."""

    def why_not(self, sm_pct: float) -> str | None:
        """Why an SM partition of this share cannot be had; None: it can."""

    def open_row(self, row: int, sm_pct: float) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        """Give a row its partition, or tell that which it has: for the executor, and as environment."""

    def close_row(self, row: int) -> None:
        """Take the partition of a row back; its last instance has ended."""

    def close(self) -> None:
        """Give back the device."""


class CpuDevice:
    """The cores that this process may use; an SM partition is a whole number of them.

    Args:
        cores: their numbers; None: all.

    Raises:
        RappError: this system cannot assign cores.
    """

    def __init__(self, cores: tuple[int, ...] | None = None) -> None:
        self._cores = usable_cores() if cores is None else cores
        self._rows: dict[int, tuple[int, ...]] = {}
        self.view = GpuView("cpu:0", memory_mib(), float(len(self._cores)), 100.0 / len(self._cores))

    def why_not(self, sm_pct: float) -> str | None:
        """As `ServingDevice.why_not`."""
        return why_no_share(sm_pct, len(self._cores))

    def open_row(self, row: int, sm_pct: float) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        """As `ServingDevice.open_row`."""
        if row not in self._rows:
            count = cores_of_share(sm_pct, len(self._cores))
            taken = {core for cores in self._rows.values() for core in cores}
            free = [core for core in self._cores if core not in taken]
            assert count is not None and count <= len(free), "the rows hold no more than there is"
            self._rows[row] = tuple(free[:count])
        # The runtime's own pools are sized by the session; libraries beside it need none.
        return {"cores": list(self._rows[row])}, {"OMP_NUM_THREADS": "1"}

    def close_row(self, row: int) -> None:
        """As `ServingDevice.close_row`."""
        self._rows.pop(row, None)

    def close(self) -> None:
        """As `ServingDevice.close`."""


class CudaDevice:
    """A GPU under a private daemon of MPS; without MPS it can only be had as a whole, by one row.

    Tested against stubs of NVML and the daemon; it has never run on a physical GPU.

    Args:
        which: index or UUID, as in `cuda:0`.

    Raises:
        RappError: there is no such GPU, it is in use, or it is set up so that nothing can be run on it.
    """

    def __init__(self, which: str) -> None:
        from rapp.runtime.claim import GpuClaim
        from rapp.runtime.mps import MpsDaemon
        from rapp.runtime.nvml import Nvml
        from rapp.runtime.partition import check_gpu, why_no_partitions
        from rapp.runtime.probe import probe

        nvml = Nvml()
        try:
            info = nvml.gpu(which).info()
        finally:
            nvml.close()
        check_gpu(info)
        self._whole = why_no_partitions(info)
        self._resources = ExitStack()
        try:
            claim = self._resources.enter_context(GpuClaim(info.uuid))
            # The whole GPU, asked by another process: this one never uses CUDA.
            whole = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_MPS_")}
            self._sm_total = probe({**whole, "CUDA_VISIBLE_DEVICES": info.uuid}).device.sm_count
            self._daemon = None if self._whole else self._resources.enter_context(MpsDaemon(claim))
        except BaseException:
            self._resources.close()
            raise
        self._uuid = info.uuid
        self.view = GpuView(f"cuda:{info.index}", float(info.memory_mib), float(len(usable_cores())))

    def why_not(self, sm_pct: float) -> str | None:
        """As `ServingDevice.why_not`."""
        if self._whole is not None and sm_pct != 100:
            return f"only SM 100 % can be had: {self._whole}"
        return None

    def open_row(self, row: int, sm_pct: float) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        """As `ServingDevice.open_row`."""
        mps = self._daemon is not None
        device = {"sm_pct": sm_pct, "sm_total": self._sm_total, "mps": mps}
        if self._daemon is None:
            return device, {"CUDA_VISIBLE_DEVICES": self._uuid}
        return device, self._daemon.client_environment(sm_pct)

    def close_row(self, row: int) -> None:
        """As `ServingDevice.close_row`."""

    def close(self) -> None:
        """As `ServingDevice.close`."""
        self._resources.close()


def open_device(name: str) -> ServingDevice:
    """The device of a name: `cpu`, `cuda`, `cuda:0`, `cuda:GPU-<uuid>`.

    Raises:
        ConfigError: no such kind. RappError: as the devices.
    """
    if name == "cpu":
        return CpuDevice()
    kind, _, which = name.partition(":")
    if kind != "cuda":
        raise ConfigError(f"--device {name}: it is cpu, cuda:<index> or cuda:<uuid>")
    return CudaDevice(which or "0")


def memory_mib() -> float:
    """Memory that processes of this machine, or of this control group, may use, MiB.

    Raises:
        RappError: the system does not tell.
    """
    limit = memory_limit_mib()
    if limit is not None:
        return limit
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) / 1024
    with suppress(OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    raise RappError("this system does not tell how much memory it has")
