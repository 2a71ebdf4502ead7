"""What is known of a GPU while it is measured: clocks, temperature, memory, other processes.

    before = gpu.state()
    ...                                      # a block of timed runs
    cause = disturbance(before, gpu.state(), known_pids)

What a GPU does not support is None. Tested against an imitation of NVML; it has never run on a physical
GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rapp.runtime.nvml import Nvml

_CLOCK_SM, _CLOCK_MEMORY = 1, 2
"""NVML_CLOCK_SM and NVML_CLOCK_MEM of nvml.h."""
_TEMPERATURE_GPU = 0
_FEATURE_ENABLED = 1

THROTTLES = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal limit",
    0x40: "hardware thermal limit",
    0x80: "power brake",
}
"""nvmlClocksEventReason* (nvmlClocksThrottleReason* before driver 535) that slow the device down. The others
(idle, application clocks, sync boost, display) do not, or are how the clocks were set."""

CLOCK_TOLERANCE = 0.03
"""Largest relative change of the SM clock within a block that counts as none."""
COOL_DOWN_C, COOL_DOWN_S = 5.0, 30.0
"""A GPU is cool within so many degrees of where it started; nobody waits longer than so many seconds."""


class ComputeMode(StrEnum):
    """Who may have a context on a GPU."""

    DEFAULT = "default"
    EXCLUSIVE_THREAD = "exclusive thread"
    PROHIBITED = "prohibited"
    EXCLUSIVE_PROCESS = "exclusive process"
    UNKNOWN = "unknown"


_COMPUTE_MODES = dict(enumerate(ComputeMode))
"""By NVML_COMPUTEMODE_*; UNKNOWN stands where nvml.h has their count."""


class Disturbance(StrEnum):
    """Why a block cannot be trusted; the value is what its text begins with."""

    THROTTLED = "throttled"
    CLOCK_MOVED = "clock moved"
    OTHER_PROCESS = "other process"


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """A GPU, or a slice of one (MIG).

    Args:
        index: nvidia-smi's, of the whole GPU. uuid: as CUDA_VISIBLE_DEVICES takes it.
        capability: compute capability, such as (7, 0).
        mig: whether the GPU is cut into slices; None: it cannot be.
        persistence: whether the driver stays loaded when no program uses the GPU.
    """

    index: int
    uuid: str
    name: str
    memory_mib: int
    capability: tuple[int, int] | None
    compute_mode: ComputeMode
    mig: bool | None
    persistence: bool | None


@dataclass(frozen=True, slots=True)
class GpuState:
    """A GPU at one moment.

    Args:
        throttles: what slows it down now, of `THROTTLES`.
        utilization_pct: share of the last 1/6 s to 1 s in which a kernel ran, %.
        pids: processes that compute on it, clients of MPS included. They are numbered as on the host, and so
            in a container otherwise than inside it.
    """

    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    throttles: tuple[str, ...]
    temperature_c: float | None
    power_w: float | None
    memory_used_mib: float
    utilization_pct: float | None
    pids: frozenset[int]


def disturbance(before: GpuState, after: GpuState, known_pids: Collection[int]) -> str | None:
    """Why the block between two states cannot be trusted; None: nothing was seen.

    Args:
        known_pids: processes that may compute on the GPU.
    """
    if reasons := sorted({*before.throttles, *after.throttles}):
        return f"{Disturbance.THROTTLED}: {', '.join(reasons)}"
    first, last = before.sm_clock_mhz, after.sm_clock_mhz
    if first and last and abs(last - first) > CLOCK_TOLERANCE * first:
        return Disturbance.CLOCK_MOVED.value
    if others := sorted((before.pids | after.pids).difference(known_pids)):
        return f"{Disturbance.OTHER_PROCESS}: pid {', '.join(map(str, others))}"
    return None


class Gpu:
    """A GPU by its handle; `rapp.runtime.nvml.Nvml.gpu` finds it. Every method may raise `NvmlError`."""

    def __init__(self, nvml: Nvml, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle
        # Clocks, temperature and the like belong to the whole GPU.
        slices = nvml.optional("nvmlDeviceIsMigDeviceHandle", handle)
        self._whole = nvml.call("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle) if slices else handle

    @cached_property
    def uuid(self) -> str:
        """Its UUID, as nvidia-smi prints it."""
        return str(self._nvml.call("nvmlDeviceGetUUID", self._handle))

    def info(self) -> GpuInfo:
        """What it is and how it is set up."""
        mig = self._nvml.optional("nvmlDeviceGetMigMode", self._whole)  # (current, pending)
        persistence = self._nvml.optional("nvmlDeviceGetPersistenceMode", self._whole)
        capability = self._nvml.optional("nvmlDeviceGetCudaComputeCapability", self._whole)
        mode = self._nvml.call("nvmlDeviceGetComputeMode", self._whole)
        return GpuInfo(
            index=self._nvml.call("nvmlDeviceGetIndex", self._whole),
            uuid=self.uuid,
            name=str(self._nvml.call("nvmlDeviceGetName", self._handle)),
            memory_mib=self._nvml.call("nvmlDeviceGetMemoryInfo", self._handle).total // 2**20,
            capability=None if capability is None else (capability[0], capability[1]),
            compute_mode=_COMPUTE_MODES.get(mode, ComputeMode.UNKNOWN),
            mig=None if mig is None else mig[0] == _FEATURE_ENABLED,
            persistence=None if persistence is None else persistence == _FEATURE_ENABLED,
        )

    def state(self) -> GpuState:
        """How it is now; about a millisecond."""
        ask = self._nvml.optional
        power_mw = ask("nvmlDeviceGetPowerUsage", self._whole)
        utilization = ask("nvmlDeviceGetUtilizationRates", self._whole)
        return GpuState(
            sm_clock_mhz=ask("nvmlDeviceGetClockInfo", self._whole, _CLOCK_SM),
            memory_clock_mhz=ask("nvmlDeviceGetClockInfo", self._whole, _CLOCK_MEMORY),
            throttles=self._throttles(),
            temperature_c=ask("nvmlDeviceGetTemperature", self._whole, _TEMPERATURE_GPU),
            power_w=None if power_mw is None else power_mw / 1000,
            memory_used_mib=self._nvml.call("nvmlDeviceGetMemoryInfo", self._handle).used / 2**20,
            utilization_pct=None if utilization is None else utilization.gpu,
            pids=frozenset(self._memory_by_pid()),
        )

    def _throttles(self) -> tuple[str, ...]:
        functions = "nvmlDeviceGetCurrentClocksEventReasons nvmlDeviceGetCurrentClocksThrottleReasons"
        mask = self._nvml.optional(functions, self._whole) or 0
        return tuple(text for bit, text in THROTTLES.items() if mask & bit)

    def _memory_by_pid(self) -> dict[int, int | None]:
        """Memory of each process that computes on it, bytes; None: the driver does not tell."""
        # The newest version of a function fails on drivers that do not have it yet.
        found = {}
        for kind in ("Compute", "MPSCompute"):
            name = f"nvmlDeviceGet{kind}RunningProcesses"
            for process in self._nvml.optional(f"{name} {name}_v2", self._handle) or []:
                found[process.pid] = process.usedGpuMemory
        return found

    def memory_mib(self, pid: int) -> float | None:
        """Memory that the driver counts for a process, MiB; None: it does not tell."""
        used = self._memory_by_pid().get(pid)
        return None if used is None else used / 2**20

    def lock_clocks(self) -> int | None:
        """Hold the SM clock at the default of its applications, MHz; None: not permitted, or not supported.

        That clock is the one the GPU keeps under load. It needs root, and `reset_clocks` afterwards.
        """
        clock_mhz = self._nvml.optional("nvmlDeviceGetDefaultApplicationsClock", self._whole, _CLOCK_SM)
        if clock_mhz and self._nvml.permitted(
            "nvmlDeviceSetGpuLockedClocks", self._whole, clock_mhz, clock_mhz
        ):
            return int(clock_mhz)
        return None

    def reset_clocks(self) -> None:
        """Let the clock go again."""
        self._nvml.call("nvmlDeviceResetGpuLockedClocks", self._whole)

    def wait_until_cool(
        self,
        start_c: float | None,
        limit_s: float = COOL_DOWN_S,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> bool:
        """Wait until it is at most `COOL_DOWN_C` above `start_c`; False: it was not within `limit_s`."""
        deadline_s = clock() + limit_s
        while start_c is not None:
            now_c = self.state().temperature_c
            if now_c is None or now_c <= start_c + COOL_DOWN_C:
                break
            if clock() >= deadline_s:
                return False
            sleep(0.5)
        return True
