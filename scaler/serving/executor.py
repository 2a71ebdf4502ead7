"""What runs the batches in a worker: on cores of this machine, or on a GPU.

The device time of a batch on a CPU is the CPU time that the process spent on it over the number of cores, as
the profiler charges it (`profiler.devices.cpu_executor`); on a GPU the time between two events on its stream.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rapp.runtime import cpu_session
from rapp.runtime.cores import pin

Feeds = Mapping[str, NDArray[Any]]


class Executor(Protocol):
    """Runs one batch at a time."""

    def run(self, feeds: Feeds) -> Sequence[NDArray[Any]]:
        """Run until the device has finished; the outputs, on the host."""

    def device_ms(self) -> float:
        """Device time of the last run, ms."""

    def close(self) -> None:
        """Give back what it holds."""


class CpuExecutor:
    """A session with one thread a core.

    Args:
        file: the ONNX file. cores: numbers of the cores of its partition.

    Raises:
        RappError: the cores cannot be had, or the network cannot be loaded.
    """

    def __init__(self, file: Path, cores: Sequence[int]) -> None:
        pin(cores)
        self._session = cpu_session(file, threads=len(cores))
        self._cores = len(cores)
        self._cpu_ns = 0

    def run(self, feeds: Feeds) -> Sequence[NDArray[Any]]:
        """As `Executor.run`."""
        begun_ns = time.process_time_ns()
        outputs: Sequence[NDArray[Any]] = self._session.run(None, dict(feeds))
        self._cpu_ns = time.process_time_ns() - begun_ns
        return outputs

    def device_ms(self) -> float:
        """As `Executor.device_ms`."""
        return self._cpu_ns / self._cores / 1e6

    def close(self) -> None:
        """As `Executor.close`."""


class CudaExecutor:
    """A session on the GPU and SM partition that the environment of this process gives it.

    It has never run on a physical GPU: only on a stub driver, with an ONNX Runtime that computes on the CPU.

    Args:
        file: the ONNX file. sm_pct: the partition it must be, %. sm_total: multiprocessors of the GPU.
        mps: whether it has to be a client of MPS.

    Raises:
        RappError: this process has another partition, or the network cannot be loaded.
    """

    def __init__(self, file: Path, sm_pct: float, sm_total: int, mps: bool) -> None:
        from rapp.runtime.cuda_session import cuda_session
        from rapp.runtime.driver import Driver
        from rapp.runtime.mps import MpsControl
        from rapp.runtime.partition import check_partition

        self._resources = ExitStack()
        try:
            driver = Driver()
            context = self._resources.enter_context(driver.context(0))
            check_partition(sm_pct, driver.device(0).sm_count, sm_total)
            if mps:
                MpsControl.of_client().check_client(os.getpid())
            self._stream = self._resources.enter_context(context.stream())
            self._timer = self._stream.timer()
            self._resources.callback(self._timer.close)
            self._session = cuda_session(file, stream=self._stream.handle)
        except BaseException:
            self._resources.close()
            raise

    def run(self, feeds: Feeds) -> Sequence[NDArray[Any]]:
        """As `Executor.run`; copying to and from the device is no device time."""
        from rapp.runtime.cuda_session import BoundNetwork

        network = BoundNetwork(self._session, feeds)
        self._timer.start()
        network.launch()
        self._timer.stop()
        self._stream.synchronize()
        return network.outputs()

    def device_ms(self) -> float:
        """As `Executor.device_ms`."""
        return self._timer.elapsed_ms()

    def close(self) -> None:
        """As `Executor.close`."""
        del self._session
        self._resources.close()


def make_executor(file: Path, device: Mapping[str, Any]) -> Executor:
    """The executor for a place: `{"cores": [...]}`, or `{"sm_pct": ..., "sm_total": ..., "mps": ...}`."""
    if "cores" in device:
        return CpuExecutor(file, device["cores"])
    return CudaExecutor(file, device["sm_pct"], device["sm_total"], device["mps"])


def zeros(dtype: str, shape: Sequence[int]) -> NDArray[Any]:
    """An array to fill with samples."""
    return np.zeros(shape, dtype=dtype)
