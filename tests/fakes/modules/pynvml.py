"""Stands in for the module pynvml: GPUs that a JSON file describes, so that every process sees the same.

FAKE_NVML names the file: {"gpus": [{"uuid": ..., ...}], "error": null}; what a GPU leaves out is in DEFAULT,
and null means that it is not supported. Calls that change a GPU are written back.
"""

# ruff: noqa: N802  the names are those of the module it stands in for

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

DEFAULT: dict[str, Any] = {
    "uuid": "GPU-52615050-2073-7475-6220-475055203030",
    "name": "Tesla V100-SXM2-16GB",
    "memory_mib": 16384,
    "used_mib": 300,
    "capability": [7, 0],
    "mode": 0,
    "mig": None,
    "persistence": 1,
    "sm_mhz": 1312,
    "memory_mhz": 877,
    "default_mhz": 1312,
    "locked": None,
    "root": False,
    "throttle": 0,
    "new_reasons": True,
    "temperature_c": 35,
    "power_mw": 40000,
    "utilization": 0,
    "processes": {},
    "mps_processes": {},
}
NVML_ERROR_INVALID_ARGUMENT, NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_NO_PERMISSION = 2, 3, 4
NVML_ERROR_NOT_FOUND, NVML_ERROR_FUNCTION_NOT_FOUND = 6, 13


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__({3: "Not Supported", 4: "Insufficient Permissions"}.get(value, f"error {value}"))
        self.value = value


def _read() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(os.environ["FAKE_NVML"]).read_text())
    if content.get("error"):
        raise NVMLError(content["error"])
    return content


def _of(handle: int, key: str) -> Any:
    value = {**DEFAULT, **_read()["gpus"][handle]}[key]
    if value is None:
        raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
    return value


def _change(handle: int, key: str, value: Any) -> None:
    if not _of(handle, "root"):
        raise NVMLError(NVML_ERROR_NO_PERMISSION)
    content = _read()
    content["gpus"][handle][key] = value
    Path(os.environ["FAKE_NVML"]).write_text(json.dumps(content))


def nvmlInit() -> None:
    _read()


def nvmlShutdown() -> None:
    pass


def nvmlSystemGetDriverVersion() -> str:
    return "550.54.15"


def nvmlDeviceGetCount() -> int:
    return len(_read()["gpus"])


def nvmlDeviceGetHandleByIndex(index: int) -> int:
    if index >= nvmlDeviceGetCount():
        raise NVMLError(NVML_ERROR_INVALID_ARGUMENT)
    return index


def nvmlDeviceGetHandleByUUID(uuid: str) -> int:
    uuids = [_of(index, "uuid") for index in range(nvmlDeviceGetCount())]
    if uuid not in uuids:
        raise NVMLError(NVML_ERROR_NOT_FOUND)
    return uuids.index(uuid)


def nvmlDeviceIsMigDeviceHandle(handle: int) -> int:
    return int(_of(handle, "uuid").startswith("MIG-"))


def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle: int) -> int:
    return 0  # slices are of the first GPU


def nvmlDeviceGetIndex(handle: int) -> int:
    return handle


def nvmlDeviceGetUUID(handle: int) -> str:
    return str(_of(handle, "uuid"))


def nvmlDeviceGetName(handle: int) -> str:
    return str(_of(handle, "name"))


def nvmlDeviceGetMemoryInfo(handle: int) -> Any:
    total = _of(handle, "memory_mib") * 2**20
    used = _of(handle, "used_mib") * 2**20 + _used_on_stub()
    return SimpleNamespace(total=total, used=used, free=total - used)


def _used_on_stub() -> int:
    """What this process has taken of the stub driver's device; 0 where it does not use it."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    try:
        driver = ctypes.CDLL("libcuda.so.1", os.RTLD_NOLOAD)
    except OSError:
        return 0
    driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))  # changes nothing without a context
    return total.value - free.value


def nvmlDeviceGetCudaComputeCapability(handle: int) -> tuple[int, int]:
    major, minor = _of(handle, "capability")
    return major, minor


def nvmlDeviceGetComputeMode(handle: int) -> int:
    return int(_of(handle, "mode"))


def nvmlDeviceGetMigMode(handle: int) -> list[int]:
    return [_of(handle, "mig")] * 2


def nvmlDeviceGetPersistenceMode(handle: int) -> int:
    return int(_of(handle, "persistence"))


def nvmlDeviceGetClockInfo(handle: int, kind: int) -> int:
    return int(_of(handle, {1: "sm_mhz", 2: "memory_mhz"}[kind]))


def nvmlDeviceGetDefaultApplicationsClock(handle: int, kind: int) -> int:
    assert kind == 1
    return int(_of(handle, "default_mhz"))


def nvmlDeviceGetCurrentClocksEventReasons(handle: int) -> int:
    if not _of(handle, "new_reasons"):
        raise NVMLError(NVML_ERROR_FUNCTION_NOT_FOUND)
    return int(_of(handle, "throttle"))


def nvmlDeviceGetCurrentClocksThrottleReasons(handle: int) -> int:
    return int(_of(handle, "throttle"))


def nvmlDeviceGetTemperature(handle: int, sensor: int) -> int:
    assert sensor == 0
    return int(_of(handle, "temperature_c"))


def nvmlDeviceGetPowerUsage(handle: int) -> int:
    return int(_of(handle, "power_mw"))


def nvmlDeviceGetUtilizationRates(handle: int) -> Any:
    return SimpleNamespace(gpu=_of(handle, "utilization"), memory=0)


def _processes(found: dict[str, int]) -> list[Any]:
    return [SimpleNamespace(pid=int(pid), usedGpuMemory=mib * 2**20) for pid, mib in found.items()]


def nvmlDeviceGetComputeRunningProcesses(handle: int) -> list[Any]:
    return _processes(_of(handle, "processes"))


def nvmlDeviceGetMPSComputeRunningProcesses(handle: int) -> list[Any]:
    raise NVMLError(NVML_ERROR_FUNCTION_NOT_FOUND)  # as on a driver older than the module


def nvmlDeviceGetMPSComputeRunningProcesses_v2(handle: int) -> list[Any]:
    return _processes(_of(handle, "mps_processes"))


def nvmlDeviceSetGpuLockedClocks(handle: int, low_mhz: int, high_mhz: int) -> None:
    _change(handle, "locked", [low_mhz, high_mhz])


def nvmlDeviceResetGpuLockedClocks(handle: int) -> None:
    _change(handle, "locked", None)
