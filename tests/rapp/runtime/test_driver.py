"""The driver by ctypes, against the stub driver: what it sees, how it times, and its errors in words."""

from __future__ import annotations

import ctypes
import os
import pickle
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rapp.runtime.driver import Driver
from rapp.runtime.driver_errors import DriverError, NoDriverError

BARE_UUID = "52615050-2073-7475-6220-475055203030"

pytestmark = pytest.mark.usefixtures("visible")


@pytest.fixture
def visible(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def driver(stub_driver: Path) -> Driver:
    return Driver(str(stub_driver))


def kernel(driver: Driver, stream: int, duration_ms: float) -> None:
    """Launch what takes so long and does nothing: the stub's functions are durations in ns."""
    library = ctypes.CDLL(driver._library._name)
    duration_ns = ctypes.c_void_p(round(duration_ms * 1e6))
    assert library.cuLaunchKernel(duration_ns, 1, 1, 1, 1, 1, 1, 0, ctypes.c_void_p(stream), None, None) == 0


def elsewhere(stub: Path, code: str, **environment: str) -> str:
    """What `code` prints in a process of its own, where the driver reads the environment anew."""
    program = f"from rapp.runtime.driver import Driver\nstub = {str(stub)!r}\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_it_tells_what_this_process_sees(driver: Driver) -> None:
    assert (driver.version, driver.device_count()) == ("13.0", 1)
    device = driver.device(0)
    assert (device.name, device.uuid) == ("RaPP stub GPU", BARE_UUID)
    assert (device.sm_count, device.memory_mib) == (80, 16384)


def test_under_mps_the_count_is_that_of_the_partition(stub_driver: Path) -> None:
    code = "print(Driver(stub).device(0).sm_count)"
    assert elsewhere(stub_driver, code, CUDA_MPS_ACTIVE_THREAD_PERCENTAGE="50") == "40"
    # Without a daemon the percentage is ignored, and nothing else says so.
    assert elsewhere(stub_driver, code, CUDA_MPS_ACTIVE_THREAD_PERCENTAGE="50", RAPP_STUB_MPS="0") == "80"


def test_events_time_the_device_and_not_the_host(driver: Driver) -> None:
    with driver.context(0) as context, context.stream() as stream:
        timer = stream.timer()
        timer.start()
        before_s = time.perf_counter()
        kernel(driver, stream.handle, 30)
        kernel(driver, stream.handle, 12)
        timer.stop()
        launched_ms = (time.perf_counter() - before_s) * 1e3
        elapsed_ms = timer.elapsed_ms()
        # The first mark is passed at once, the kernel begins when the host has launched it.
        assert 41.99 < elapsed_ms < 42 + launched_ms
        assert (time.perf_counter() - before_s) * 1e3 >= 42
        assert launched_ms < 30
        timer.close()
        timer.close()


def test_a_stream_can_be_waited_for_and_closed_twice(driver: Driver) -> None:
    with driver.context(0) as context:
        stream = context.stream()
        kernel(driver, stream.handle, 20)
        before_s = time.perf_counter()
        stream.synchronize()
        assert (time.perf_counter() - before_s) * 1e3 > 5
        stream.close()
        stream.close()
        with pytest.raises(ValueError, match="after it was closed"):
            _ = stream.handle


def test_memory_is_in_mib(driver: Driver) -> None:
    with driver.context(0) as context:
        free_mib, total_mib = context.memory_mib()
        pointer = ctypes.c_uint64()
        library = ctypes.CDLL(driver._library._name)
        assert library.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(100 << 20)) == 0
        assert (free_mib - context.memory_mib()[0], total_mib) == (100, 16384)
        assert library.cuMemFree_v2(pointer) == 0


@pytest.mark.parametrize(
    ("fail", "code", "message"),
    [
        ("cuInit=100", "Driver(stub)", r"cuInit: CUDA_ERROR_NO_DEVICE \(100\): no GPU is visible"),
        ("cuInit=803", "Driver(stub)", r"\(803\): .*reboot after an update"),
        (
            "cuDevicePrimaryCtxRetain=805",
            "Driver(stub).context(0).__enter__()",
            r"Retain: .*\(805\): the MPS daemon cannot be reached",
        ),
        (
            "cuDeviceGetCount=1",
            "Driver(stub).device_count()",
            r"cuDeviceGetCount: CUDA_ERROR_INVALID_VALUE \(1\)$",
        ),
    ],
)
def test_errors_have_their_name_and_what_to_do(stub_driver: Path, fail: str, code: str, message: str) -> None:
    report = f"""
try:
    {code}
except Exception as error:
    print(type(error).__name__, error, sep=": ")
"""
    said = elsewhere(stub_driver, report, RAPP_STUB_FAIL=fail)
    assert said.startswith("DriverError: ")
    assert re.search(message, said), said


def test_every_mps_error_is_explained() -> None:
    for code in range(805, 811):
        assert "MPS" in str(DriverError("cuInit", code, "NAME"))


def test_the_first_error_is_the_one_to_see(driver: Driver) -> None:
    class FirstError(Exception):
        pass

    with pytest.raises(FirstError), driver.context(0) as context, context.stream() as stream:
        ctypes.CDLL(driver._library._name).cuStreamDestroy_v2(ctypes.c_void_p(stream.handle))
        raise FirstError


def test_an_error_survives_the_way_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(DriverError("cuMemAlloc", 2, "CUDA_ERROR_OUT_OF_MEMORY")))
    assert (error.call, error.code, error.out_of_memory) == ("cuMemAlloc", 2, True)
    assert "smaller batch" in str(error)


def test_no_driver_and_an_old_one_are_typed_errors(stub_driver: Path, tmp_path: Path) -> None:
    with pytest.raises(NoDriverError, match=r"no CUDA driver .*libnone\.so.*install the NVIDIA driver"):
        Driver("libnone.so")
    with pytest.raises(NoDriverError, match="has no cuInit"):
        Driver("libc.so.6")
