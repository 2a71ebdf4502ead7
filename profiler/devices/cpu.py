"""The device `cpu`: this machine, really measured.

    with CpuDevice() as device, device.open(NetworkFile("net", Path("net.onnx")), sm_pct=50) as session:
        ...

An SM partition is a share of the cores that this process may use: a worker pinned to them, with a thread for
each. A quota is a share of the partition's capacity in each window, held by the same gate as everywhere.
Needs Linux.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from profiler.device import DeviceInfo, Failure, MeasureError, NetworkFile, Session
from profiler.devices.host import available_memory_mib, cpu_name, machine_identity
from profiler.worker import CALL_TIMEOUT_S, worker_session
from rapp.errors import ConfigError
from rapp.runtime.cores import cores_of_share, usable_cores, why_no_share
from rapp.types import QuotaKind

# Threads of numpy's libraries would stand by on our cores. ONNX Runtime gets its number as an option.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class CpuDevice:
    """A `Device` of this machine's cores. Sessions that are open together have different cores.

    Args:
        window_ms: window of the quota, ms.
        idle_ms: pause between one batch and the next, ms.
        cores: numbers of the cores to use, in the order in which partitions take them; None: all that this
            process may use.
        memory_mib: memory that a worker may ask for, MiB; None: what is available now.
        call_timeout_s: longest time of one call to a worker, s.

    Raises:
        ConfigError: an argument out of its range, or cores that this process may not use.
        RappError: this system does not assign cores.
    """

    def __init__(
        self,
        *,
        window_ms: float = 40.0,
        idle_ms: float = 0.0,
        cores: Sequence[int] | None = None,
        memory_mib: float | None = None,
        call_timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        if not 0 < window_ms < float("inf"):
            raise ConfigError(f"window_ms is {window_ms:g}: it must be above 0")
        if not 0 <= idle_ms < float("inf"):
            raise ConfigError(f"idle_ms is {idle_ms:g}: it must be 0 or more")
        usable = usable_cores()
        self._cores = tuple(usable if cores is None else cores)
        if not self._cores or len(set(self._cores)) < len(self._cores) or not set(self._cores) <= set(usable):
            raise ConfigError(f"cores is {list(self._cores)}: it must be some of {list(usable)}, each once")
        self._window_ms, self._idle_ms, self._call_timeout_s = window_ms, idle_ms, call_timeout_s
        self._memory_mib = available_memory_mib() if memory_mib is None else memory_mib
        self._lock = threading.Lock()
        self._free = list(self._cores)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def info(self) -> DeviceInfo:
        """As `Device.info`; the name of the device holds the number of cores, which a share is of."""
        count = len(self._cores)
        return DeviceInfo(
            device=f"{cpu_name()}, {count} core{'s' * (count > 1)}",
            device_uuid=machine_identity(),
            runtime="ort-cpu",
            precision="fp32",
            quota_kind=QuotaKind.GPU_TIME,
            window_ms=self._window_ms,
            granularity_ms=None,
            idle_ms=self._idle_ms,
            memory_mib=self._memory_mib,
            software=_software(),
        )

    def why_not(self, sm_pct: float) -> str | None:
        """As `Device.why_not`: a partition is a whole number of cores."""
        return why_no_share(sm_pct, len(self._cores))

    @contextmanager
    def open(self, network: NetworkFile, sm_pct: float) -> Iterator[Session]:
        """As `Device.open`.

        Raises:
            MeasureError: no such partition, or other open sessions have its cores.
        """
        if network.path is None:
            raise MeasureError(Failure.UNSUPPORTED, f"{network.name} has no file to run")
        cores = self._take(sm_pct)
        try:
            arguments = {
                "path": str(network.path.absolute()),
                "cores": cores,
                "window_ms": self._window_ms,
                "idle_ms": self._idle_ms,
                "memory_mib": self._memory_mib,
            }
            with worker_session(
                "profiler.devices.cpu_executor:make_executor",
                arguments,
                env={**os.environ, **_ONE_THREAD},
                call_timeout_s=self._call_timeout_s,
            ) as session:
                yield session
        finally:
            with self._lock:
                self._free = [core for core in self._cores if core in self._free or core in cores]

    def close(self) -> None:
        """Nothing is held beyond the sessions."""

    def _take(self, sm_pct: float) -> list[int]:
        why = self.why_not(sm_pct)
        count = cores_of_share(sm_pct, len(self._cores))
        if why is not None or count is None:
            raise MeasureError(Failure.PARTITION, str(why))
        with self._lock:
            if len(self._free) < count:
                raise MeasureError(
                    Failure.PARTITION,
                    f"{count} of {len(self._cores)} cores were asked for, but {len(self._free)} are free",
                )
            taken, self._free = self._free[:count], self._free[count:]
        return taken


def _software() -> dict[str, str]:
    """Versions of what runs the network."""
    known = {"python": platform.python_version()}
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            known[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return known
