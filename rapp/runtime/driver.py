"""The CUDA driver as far as profiling needs it: ctypes on `libcuda.so.1`, and nothing else to install.

    driver = Driver()
    with driver.context(0) as context, context.stream() as stream:
        timer = stream.timer()
        timer.start()
        ...                                  # work launched on `stream.handle`
        timer.stop()
        timer.elapsed_ms()                   # waits for the work

The context is the device's primary one, which ONNX Runtime and PyTorch share. What the driver reports
(`DeviceProperties.sm_count`) is what this process may use: under MPS, the partition.

Names, values and signatures are those of cuda.h (CUDA 12 and 13). Tested against a stub library that
simulates a device; it has never run on a physical GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import uuid
from collections.abc import Iterator
from ctypes import POINTER, c_char_p, c_float, c_int, c_size_t, c_uint, c_void_p
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from rapp.runtime.driver_errors import DriverError, NoDriverError

LIBRARY = "libcuda.so.1"

_MULTIPROCESSOR_COUNT = 16
"""CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT"""
_STREAM_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: no implicit synchronisation with the legacy default stream."""

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetUuid": (c_void_p, c_int),
    "cuDeviceGetUuid_v2": (c_void_p, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDeviceTotalMem_v2": (POINTER(c_size_t), c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxPushCurrent_v2": (c_void_p,),
    "cuCtxPopCurrent_v2": (POINTER(c_void_p),),
    "cuMemGetInfo_v2": (POINTER(c_size_t), POINTER(c_size_t)),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuEventCreate": (POINTER(c_void_p), c_uint),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventSynchronize": (c_void_p,),
    "cuEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
    "cuEventDestroy_v2": (c_void_p,),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
}


@dataclass(frozen=True, slots=True)
class DeviceProperties:
    """A GPU as this process sees it.

    Args:
        uuid: without the prefix `GPU-` or `MIG-` that nvidia-smi prints.
        sm_count: streaming multiprocessors this process may use; under MPS those of its partition.
    """

    name: str
    uuid: str
    sm_count: int
    memory_mib: int


class Driver:
    """The loaded and initialised library.

    Args:
        library: file name or path of the driver's library.

    Raises:
        NoDriverError: it cannot be loaded, or lacks a function.
        DriverError: it does not initialise; code 100 means that no GPU is visible.
    """

    def __init__(self, library: str = LIBRARY) -> None:
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise NoDriverError(f"no CUDA driver ({error}): install the NVIDIA driver") from error
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver.

        Raises:
            NoDriverError: the library has no such function.
            DriverError: the function answers with an error.
        """
        code = self._function(name)(*arguments)
        if code != 0:
            raise DriverError(name, code, self._error_name(code))

    def _function(self, name: str) -> Any:
        try:
            function = getattr(self._library, name)
        except AttributeError as error:
            raise NoDriverError(f"the CUDA driver has no {name}: install a newer NVIDIA driver") from error
        function.argtypes, function.restype = _SIGNATURES[name], c_int
        return function

    def _error_name(self, code: int) -> str:
        name = c_char_p()
        if self._function("cuGetErrorName")(code, ctypes.byref(name)) != 0 or not name.value:
            return "unknown error"
        return name.value.decode()

    @property
    def version(self) -> str:
        """CUDA version that the driver supports, such as `12.4`."""
        number = self._integer("cuDriverGetVersion")
        return f"{number // 1000}.{number % 1000 // 10}"

    def device_count(self) -> int:
        """GPUs that this process sees."""
        return self._integer("cuDeviceGetCount")

    def device(self, ordinal: int) -> DeviceProperties:
        """What the `ordinal`-th GPU that this process sees offers it."""
        device = self._integer("cuDeviceGet", ordinal)
        name, identity, memory = ctypes.create_string_buffer(256), (ctypes.c_ubyte * 16)(), c_size_t()
        self.call("cuDeviceGetName", name, len(name), device)
        # The first version gives the UUID of the whole GPU where the device is a slice of it (MIG).
        slices = hasattr(self._library, "cuDeviceGetUuid_v2")
        self.call("cuDeviceGetUuid_v2" if slices else "cuDeviceGetUuid", ctypes.byref(identity), device)
        self.call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
        sm_count = self._integer("cuDeviceGetAttribute", _MULTIPROCESSOR_COUNT, device)
        return DeviceProperties(
            name.value.decode(), str(uuid.UUID(bytes=bytes(identity))), sm_count, memory.value // 2**20
        )

    @contextlib.contextmanager
    def context(self, ordinal: int) -> Iterator[Context]:
        """The primary context of a GPU, current in this thread until the end of the block."""
        device, handle = self._integer("cuDeviceGet", ordinal), c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(handle), device)
        try:
            self.call("cuCtxPushCurrent_v2", handle)
            try:
                yield Context(self)
            finally:
                self._function("cuCtxPopCurrent_v2")(ctypes.byref(c_void_p()))
        finally:
            # Without a look at the answer: after a fatal error, the error to see is the first one.
            self._function("cuDevicePrimaryCtxRelease_v2")(device)

    def _integer(self, name: str, *arguments: Any) -> int:
        value = c_int()
        self.call(name, ctypes.byref(value), *arguments)
        return value.value


@dataclass(frozen=True, slots=True)
class Context:
    """A current context; of use until the block of `Driver.context` ends."""

    driver: Driver

    def stream(self) -> Stream:
        """A new stream; close it, or use it as a context manager."""
        return Stream(self.driver)

    def memory_mib(self) -> tuple[float, float]:
        """Free and total memory of the device, MiB."""
        free, total = c_size_t(), c_size_t()
        self.driver.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value / 2**20, total.value / 2**20


class _Owned:
    """A handle that the driver must be told to destroy."""

    _destroy: str

    def __init__(self, driver: Driver, create: str, flags: int) -> None:
        self._driver, self._handle = driver, c_void_p()
        driver.call(create, ctypes.byref(self._handle), flags)

    @property
    def handle(self) -> int:
        """The driver's pointer, as ONNX Runtime's option `user_compute_stream` takes it."""
        if self._handle.value is None:
            raise ValueError("used after it was closed")
        return self._handle.value

    def close(self) -> None:
        """Destroy it; may be called again."""
        if self._handle.value is not None:
            handle, self._handle = self._handle, c_void_p()
            self._driver.call(self._destroy, handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After a fatal error every call fails; the first error is the one to see.
        with contextlib.suppress(*((DriverError,) if kind else ())):
            self.close()


class Stream(_Owned):
    """Work of the device that runs in order."""

    _destroy = "cuStreamDestroy_v2"

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver, "cuStreamCreate", _STREAM_NON_BLOCKING)

    def synchronize(self) -> None:
        """Wait until everything launched so far has run."""
        self._driver.call("cuStreamSynchronize", self.handle)

    def timer(self) -> DeviceTimer:
        """A stopwatch of the device on this stream."""
        return DeviceTimer(self._driver, self)


class _Event(_Owned):
    _destroy = "cuEventDestroy_v2"

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver, "cuEventCreate", 0)


class DeviceTimer:
    """A pair of events: the time of the device between them, with a resolution of about 0.5 us (cuda.h)."""

    def __init__(self, driver: Driver, stream: Stream) -> None:
        self._driver, self._stream = driver, stream
        self._start, self._stop = _Event(driver), _Event(driver)

    def start(self) -> None:
        """Mark the start; what is launched from now on counts."""
        self._driver.call("cuEventRecord", self._start.handle, self._stream.handle)

    def stop(self) -> None:
        """Mark the end; returns at once."""
        self._driver.call("cuEventRecord", self._stop.handle, self._stream.handle)

    def elapsed_ms(self) -> float:
        """Device time between the marks, ms; waits until the device has passed the second."""
        elapsed_ms = c_float()
        self._driver.call("cuEventSynchronize", self._stop.handle)
        self._driver.call(
            "cuEventElapsedTime", ctypes.byref(elapsed_ms), self._start.handle, self._stop.handle
        )
        return elapsed_ms.value

    def close(self) -> None:
        """Destroy the events; may be called again."""
        self._start.close()
        self._stop.close()
