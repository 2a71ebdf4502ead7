"""A network on an SM partition of a GPU: what runs in the worker of the device `cuda`.

The device time of a batch is the time between two events on the session's stream, from before its first to
after its last kernel. Where the device is faster than the host can launch, it waits between kernels, and
that counts too: such a batch has about the same `device_ms` and `launch_ms`.

It has never run on a physical GPU: only on a stub driver, with an ONNX Runtime that computes on the CPU.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from profiler.device import Block, Failure, MeasureError
from profiler.devices.gpu_watch import GpuWatch
from profiler.devices.network_io import compared_outputs, fp32_inputs, network_at_batch
from rapp.errors import DataError
from rapp.runtime.cuda_session import (
    BoundNetwork,
    CudaSessionError,
    OutOfDeviceMemoryError,
    UnsupportedOperatorError,
    cuda_session,
)
from rapp.runtime.driver import Driver
from rapp.runtime.driver_errors import DriverError
from rapp.runtime.gate import QuotaGate
from rapp.runtime.inputs import Array
from rapp.runtime.mps import MpsControl, MpsError
from rapp.runtime.partition import check_partition
from rapp.runtime.quota import QuotaBlock


def make_executor(
    path: str, gpu_uuid: str, sm_pct: float, sm_total: int, mps: bool, window_ms: float, idle_ms: float
) -> CudaExecutor:
    """The executor of a network on the GPU and partition that the environment of this process gives it.

    Args:
        path: the ONNX file.
        gpu_uuid: of the GPU it must be.
        sm_pct: the partition it must be, %. sm_total: multiprocessors of the GPU. mps: whether under MPS.
        window_ms: window of the quota, ms.
        idle_ms: pause before each batch, ms.

    Raises:
        MeasureError: this process has another GPU or another partition.
    """
    executor = CudaExecutor(Path(path), gpu_uuid, mps, window_ms, idle_ms)
    try:
        executor.check(gpu_uuid, sm_pct, sm_total)
    except BaseException:
        executor.close()
        raise
    return executor


class CudaExecutor:
    """An `Executor` on the first GPU that this process sees; batches run one at a time."""

    def __init__(self, path: Path, gpu_uuid: str, mps: bool, window_ms: float, idle_ms: float) -> None:
        self._path, self._idle_ns = path, round(idle_ms * 1e6)
        self._resources = ExitStack()
        with _as_measure_error():
            # First of all, for it counts the memory that a context takes as this process's.
            self._watch = self._resources.enter_context(GpuWatch(gpu_uuid))
            driver = Driver()
            context = self._resources.enter_context(driver.context(0))
            self._stream = self._resources.enter_context(context.stream())
            self._timer = self._stream.timer()
            self._resources.callback(self._timer.close)
            self._device = driver.device(0)
            self._control = MpsControl.of_client() if mps else None
            self._watch.context_made(self._control)
        self._block = self._resources.enter_context(QuotaBlock.anonymous(100, window_ms))
        self._gate = QuotaGate(self._block)
        self._network: BoundNetwork | None = None
        self._ended_ns = 0
        self._launch_ms = 0.0
        # Collections would come in the middle of batches.
        gc.disable()

    def check(self, gpu_uuid: str, sm_pct: float, sm_total: int) -> None:
        """Check that this is the GPU and the partition that were asked for.

        Raises:
            MeasureError: it is not; of failure `PARTITION`.
        """
        if self._device.uuid not in gpu_uuid:
            detail = f"this process has GPU {self._device.uuid}, not {gpu_uuid}"
            raise MeasureError(Failure.PARTITION, detail)
        try:
            check_partition(sm_pct, self._device.sm_count, sm_total)
            if self._control is not None:
                self._control.check_client(os.getpid())
        except MpsError as error:
            raise MeasureError(Failure.PARTITION, str(error)) from error

    @property
    def sm_count(self) -> int:
        """Multiprocessors of the partition."""
        return self._device.sm_count

    @property
    def peak_memory_mib(self) -> float | None:
        """Most device memory that this process has used, its context included, MiB."""
        return self._watch.peak_memory_mib

    def prepare(self, batch: int) -> None:
        """As `Session.prepare`."""
        self._network = None
        gc.collect()
        with _as_measure_error(), network_at_batch(self._path, batch) as model:
            session = cuda_session(model, stream=self._stream.handle)
            self._network = BoundNetwork(session, fp32_inputs(session, batch))
            self.set_quota(100.0)
            self._work()
            self._watch.note_memory()
        self._ended_ns = time.perf_counter_ns()

    def set_quota(self, quota_pct: float) -> None:
        """As `Session.set_quota`."""
        self._block.quota_pct = quota_pct

    def run(self, count: int) -> Block:
        """As `Session.run`."""
        wall_ms, device_ms, launch_ms = np.empty(count), np.empty(count), np.empty(count)
        with _as_measure_error():
            before = self._watch.state()
            for index in range(count):
                rest_ns = self._ended_ns + self._idle_ns - time.perf_counter_ns()
                if rest_ns > 0:
                    time.sleep(rest_ns / 1e9)
                begun_ns = time.perf_counter_ns()
                self._gate.run(self._work, self._timer.elapsed_ms)
                self._ended_ns = time.perf_counter_ns()
                wall_ms[index] = (self._ended_ns - begun_ns) / 1e6
                device_ms[index], launch_ms[index] = self._timer.elapsed_ms(), self._launch_ms
            self._watch.note_memory()
            return Block(wall_ms, device_ms, launch_ms, self._watch.disturbance(before))

    def outputs(self) -> Sequence[Array] | None:
        """The float outputs of the last run, as `compared_outputs`."""
        if self._network is None:
            return None
        with _as_measure_error():
            return compared_outputs(self._network.outputs())

    def close(self) -> None:
        """As `Executor.close`."""
        self._network = None
        gc.collect()
        self._resources.close()

    def _work(self) -> None:
        """Run a batch, and keep how long the host took to launch it."""
        assert self._network is not None, "prepare comes first"
        self._timer.start()
        begun_ns = time.perf_counter_ns()
        self._network.launch()
        self._launch_ms = (time.perf_counter_ns() - begun_ns) / 1e6
        self._timer.stop()
        self._stream.synchronize()


@contextmanager
def _as_measure_error() -> Iterator[None]:
    """How an error of the GPU ends a point; other errors pass."""
    try:
        yield
    except OutOfDeviceMemoryError as error:
        raise MeasureError(Failure.OUT_OF_MEMORY, str(error)) from error
    except UnsupportedOperatorError as error:
        raise MeasureError(Failure.UNSUPPORTED, str(error)) from error
    except (CudaSessionError, DataError) as error:
        raise MeasureError(Failure.DEVICE, str(error)) from error
    except DriverError as error:
        failure = Failure.OUT_OF_MEMORY if error.out_of_memory else Failure.DEVICE
        raise MeasureError(failure, str(error)) from error
