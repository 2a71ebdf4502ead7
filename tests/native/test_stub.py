"""The stub of the driver, which the other tests and those of the CUDA device stand on."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from quota_harness import NATIVE, Built, environment, measure

PROGRAM = """
import ctypes, json, sys
sys.path.insert(0, {folder!r})
from scenarios import GLOBAL, MS, THREAD_LOCAL, Cuda
{body}
"""


def run(built: Built, body: str, **variables: str) -> object:
    code = PROGRAM.format(folder=str(Path(__file__).parent), body=body)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(built, None) | variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, 80),
        ({"RAPP_STUB_SM_COUNT": "108"}, 108),
        ({"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "50"}, 40),
        ({"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "33"}, 26),
        ({"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "1"}, 2),
        ({"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "50", "RAPP_STUB_MPS": "0"}, 80),
    ],
)
def test_partition(built: Built, variables: dict[str, str], expected: int) -> None:
    body = """
cuda, value = Cuda(), ctypes.c_int()
cuda.ok.cuDeviceGetAttribute(ctypes.byref(value), 16, 0)
print(json.dumps(value.value))"""
    assert run(built, body, **variables) == expected


def test_visible_devices(built: Built) -> None:
    body = """
cuda, count, uuids = Cuda(), ctypes.c_int(), []
cuda.ok.cuDeviceGetCount(ctypes.byref(count))
for device in range(count.value):
    uuid = ctypes.create_string_buffer(16)
    cuda.ok.cuDeviceGetUuid_v2(uuid, device)
    uuids.append(uuid.raw.decode())
print(json.dumps(uuids))"""
    devices = {"RAPP_STUB_DEVICES": "3"}
    assert run(built, body, **devices) == [f"RaPP stub GPU 0{index}" for index in range(3)]
    assert run(built, body, CUDA_VISIBLE_DEVICES="2,0", **devices) == ["RaPP stub GPU 02", "RaPP stub GPU 00"]
    uuid = "GPU-52615050-2073-7475-6220-475055203031"
    assert run(built, body, CUDA_VISIBLE_DEVICES=uuid, **devices) == ["RaPP stub GPU 01"]


def test_no_device(built: Built) -> None:
    variables = environment(built, None) | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([built.workload], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 100, "CUDA_ERROR_NO_DEVICE"


def test_events_tell_device_time_exactly(built: Built) -> None:
    body = """
cuda, found = Cuda(), ctypes.c_float()
cuda.primary()
a, b = (cuda.make("cuEventCreate", 0) for _ in range(2))
assert cuda.launch(MS) == 0
cuda.ok.cuEventRecord(a, None)
for _ in range(10):
    assert cuda.launch(2 * MS) == 0
cuda.ok.cuEventRecord(b, None)
assert cuda.cuEventQuery(b) == 600
assert cuda.cuEventElapsedTime(ctypes.byref(found), a, b) == 600
cuda.ok.cuEventSynchronize(b)
cuda.ok.cuEventElapsedTime(ctypes.byref(found), a, b)
print(json.dumps(found.value))"""
    assert run(built, body) == pytest.approx(20, abs=0.001)


def test_wrong_handles_are_errors(built: Built) -> None:
    body = """
cuda = Cuda()
before = cuda.launch(MS)
context = cuda.primary()
event = cuda.make("cuEventCreate", 0)
other = cuda.make("cuCtxCreate_v2", 0, 0)
foreign = cuda.cuEventRecord(event, None)
cuda.ok.cuEventDestroy_v2(event)
stream = cuda.stream()
cuda.ok.cuStreamDestroy_v2(stream)
print(json.dumps([before, foreign, cuda.cuEventQuery(event), cuda.launch(MS, stream)]))"""
    assert run(built, body) == [201, 400, 400, 400]


def test_a_global_capture_forbids_queries_and_breaks(built: Built) -> None:
    body = """
def attempt(mode, thread_mode):
    stream, graph = cuda.stream(), ctypes.c_void_p()
    cuda.ok.cuStreamBeginCapture_v2(stream, mode)
    previous = ctypes.c_int(thread_mode)
    cuda.ok.cuThreadExchangeStreamCaptureMode(ctypes.byref(previous))
    query = cuda.cuEventQuery(event)
    cuda.ok.cuThreadExchangeStreamCaptureMode(ctypes.byref(previous))
    assert cuda.launch(MS, stream) == (901 if query else 0)
    return query, cuda.cuStreamEndCapture(stream, ctypes.byref(graph))
cuda = Cuda()
cuda.primary()
event = cuda.make("cuEventCreate", 0)
print(json.dumps([attempt(GLOBAL, 0), attempt(GLOBAL, 2), attempt(2, 0)]))"""
    assert run(built, body) == [[900, 901], [0, 0], [0, 0]]


def test_memory(built: Built) -> None:
    body = """
cuda = Cuda()
cuda.primary()
free, total, pointer = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_ulonglong()
def info():
    cuda.ok.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    return free.value >> 20, total.value >> 20
size = ctypes.c_size_t(30 << 20)
found = [info(), cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(200 << 20)),
         cuda.cuMemAlloc_v2(ctypes.byref(pointer), size), info()]
source, target = ctypes.create_string_buffer(b"device"), ctypes.create_string_buffer(6)
cuda.ok.cuMemcpyHtoD_v2(pointer, source, ctypes.c_size_t(6))
cuda.ok.cuMemcpyDtoH_v2(target, pointer, ctypes.c_size_t(6))
cuda.ok.cuMemFree_v2(pointer)
print(json.dumps([*found, info(), target.raw.decode()]))"""
    found = run(built, body, RAPP_STUB_MEMORY_MIB="100")
    assert found == [[100, 100], 2, 0, [70, 100], [100, 100], "device"]


def test_a_full_queue_blocks(built: Built) -> None:
    """1,024 launches are taken at once, and the next ones as the device gets to them."""
    runs = measure(built, None, "--kernels", "1500", "--ns", "200000", "--runs", "1").runs
    launching_ms = (runs[0, 2] - runs[0, 1]) / 1e6
    assert 0.9 * 476 * 0.2 <= launching_ms < 250
    runs = measure(built, None, "--kernels", "1000", "--ns", "200000", "--runs", "1").runs
    assert (runs[0, 2] - runs[0, 1]) / 1e6 < 50


def test_a_busy_device_needs_no_core(built: Built) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = measure(built, None, "--kernels", "50", "--ns", "1000000", "--seconds", "1")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.share(0.1, 0.8) > 0.8
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3


@pytest.mark.skipif(
    not Path(os.environ.get("CUDA_INCLUDE", "/usr/local/cuda/include"), "cuda.h").is_file(),
    reason="needs the cuda.h of a CUDA toolkit, in the folder that CUDA_INCLUDE names",
)
def test_declarations_are_those_of_cuda_h(built: Built) -> None:
    assert shutil.which("make")
    folder = os.environ.get("CUDA_INCLUDE", "/usr/local/cuda/include")
    done = subprocess.run(
        ["make", "-C", NATIVE, "check-abi", f"CUDA_INCLUDE={folder}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
