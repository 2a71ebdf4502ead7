"""A network on some cores of this machine: what runs in the worker of the device `cpu`.

The device time of a batch is the CPU time that the process spent on it, over the number of cores: what it
used up of the partition's capacity, which is what a quota of device time limits. It is not the time from
begin to end: cores that wait for each other, or that another process has taken, did no work for the network.
"""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.device import Block, Failure, MeasureError
from profiler.devices.cpu_load import LoadMeter, disturbance
from profiler.devices.host import peak_memory_mib
from profiler.devices.network_io import compared_outputs, fp32_inputs, network_at_batch
from rapp.errors import DataError, RappError
from rapp.runtime import cpu_session
from rapp.runtime.cores import pin
from rapp.runtime.gate import QuotaGate
from rapp.runtime.inputs import Array
from rapp.runtime.quota import QuotaBlock

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# What ONNX Runtime and the C++ library say when memory runs out.
_OUT_OF_MEMORY = ("failed to allocate memory", "bad_alloc", "out of memory", "cannot allocate memory")


def make_executor(
    path: str, cores: Sequence[int], window_ms: float, idle_ms: float, memory_mib: float | None
) -> CpuExecutor:
    """The executor of a network on these cores.

    Args:
        path: the ONNX file.
        cores: numbers of the cores of the partition.
        window_ms: window of the quota, ms.
        idle_ms: pause before each batch, ms.
        memory_mib: memory that the process may ask for, MiB; None: any.

    Raises:
        MeasureError: the cores cannot be had.
    """
    try:
        pin(cores)
    except RappError as error:
        raise MeasureError(Failure.PARTITION, str(error)) from error
    if memory_mib is not None:
        # A typed error for us instead of the OOM killer for whoever is largest.
        limit = int(memory_mib * 2**20)
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    return CpuExecutor(Path(path), tuple(cores), window_ms, idle_ms)


class CpuExecutor:
    """An `Executor` on cores of this machine; batches run one at a time with a thread a core."""

    def __init__(self, path: Path, cores: tuple[int, ...], window_ms: float, idle_ms: float) -> None:
        self._path, self._cores, self._idle_ns = path, cores, round(idle_ms * 1e6)
        self._block = QuotaBlock.anonymous(100, window_ms)
        self._gate = QuotaGate(self._block)
        self._session: InferenceSession | None = None
        self._feeds: dict[str, Array] = {}
        self._outputs: Sequence[Any] = ()
        self._ended_ns = self._charged_ns = 0
        self._running_ms = self._cpu_ms = self._peak_memory_mib = 0.0
        # Collections would come in the middle of batches.
        gc.disable()

    @property
    def sm_count(self) -> int:
        """Cores."""
        return len(self._cores)

    @property
    def peak_memory_mib(self) -> float | None:
        """Most memory that this process has had resident, MiB."""
        # The kernel adds up the counters of several cores, so that its peak may seem to fall by a few KiB.
        self._peak_memory_mib = max(self._peak_memory_mib, peak_memory_mib() or 0.0)
        return self._peak_memory_mib or None

    def prepare(self, batch: int) -> None:
        """As `Session.prepare`."""
        self._session, self._feeds, self._outputs = None, {}, ()
        gc.collect()
        session = self._load(batch)
        self._feeds = fp32_inputs(session, batch)
        self._session = session
        self.set_quota(100.0)
        self._work()
        self._ended_ns = time.perf_counter_ns()

    def set_quota(self, quota_pct: float) -> None:
        """As `Session.set_quota`."""
        self._block.quota_pct = quota_pct

    def run(self, count: int) -> Block:
        """As `Session.run`; no launch time: on a CPU nothing is launched ahead."""
        wall_ms, device_ms = np.empty(count), np.empty(count)
        meter = LoadMeter(self._cores)
        self._charged_ns = time.process_time_ns()
        for index in range(count):
            rest_ns = self._ended_ns + self._idle_ns - time.perf_counter_ns()
            if rest_ns > 0:
                time.sleep(rest_ns / 1e9)
            begun_ns = time.perf_counter_ns()
            self._gate.run(self._work, self._charge_ms)
            self._ended_ns = time.perf_counter_ns()
            wall_ms[index], device_ms[index] = (self._ended_ns - begun_ns) / 1e6, self._device_ms()
            meter.add_run(self._running_ms, self._cpu_ms, float(wall_ms[index]))
        return Block(wall_ms, device_ms, disturbance=disturbance(meter.end()))

    def outputs(self) -> Sequence[Array] | None:
        """The float outputs of the last run, large ones thinned; None: it has none."""
        return compared_outputs(self._outputs)

    def close(self) -> None:
        """As `Executor.close`."""
        self._session = None
        self._block.close()

    def _work(self) -> None:
        """Run a batch, and keep its outputs and times."""
        assert self._session is not None, "prepare comes first"
        begun_ns, cpu_ns = time.perf_counter_ns(), time.process_time_ns()
        try:
            self._outputs = self._session.run(None, self._feeds)
        except Exception as error:  # ONNX Runtime's own exceptions share no base but Exception
            raise _failure(str(error), Failure.DEVICE) from error
        self._cpu_ms = (time.process_time_ns() - cpu_ns) / 1e6
        self._running_ms = (time.perf_counter_ns() - begun_ns) / 1e6

    def _device_ms(self) -> float:
        """Of the last run, ms."""
        return self._cpu_ms / len(self._cores)

    def _charge_ms(self) -> float:
        """What the quota is to pay, ms: the device is the CPU, of which waiting and waking take some too."""
        begun_ns, self._charged_ns = self._charged_ns, time.process_time_ns()
        return (self._charged_ns - begun_ns) / len(self._cores) / 1e6

    def _load(self, batch: int) -> InferenceSession:
        """The network at `batch` in ONNX Runtime."""
        try:
            with network_at_batch(self._path, batch) as network:
                return cpu_session(network, threads=len(self._cores))
        except DataError as error:
            raise _failure(error.reason, Failure.UNSUPPORTED) from error


def _failure(reason: str, otherwise: Failure) -> MeasureError:
    """What an error of ONNX Runtime means for the point."""
    memory = any(words in reason.lower() for words in _OUT_OF_MEMORY)
    return MeasureError(Failure.OUT_OF_MEMORY if memory else otherwise, reason)
