"""CUDA programs for the tests, each a function: `python scenarios.py NAME` prints what it returns as JSON.

They reach the driver through ctypes, as Python runtimes do, and use nothing of this project.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from typing import Any

US, MS = 1_000, 1_000_000
GLOBAL, THREAD_LOCAL = 0, 1
NON_BLOCKING = 1


class Cuda:
    """The driver: `cuda.cuCtxSynchronize()` returns its CUresult, `cuda.ok.cuCtxSynchronize()` wants 0."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")
        self.ok = _Checked(self)
        self.ok.cuInit(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def make(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        """What a function returns through its first argument."""
        made = ctypes.c_void_p()
        getattr(self.ok, name)(ctypes.byref(made), *arguments)
        return made

    def primary(self) -> ctypes.c_void_p:
        """The primary context of device 0, current from now on."""
        context = self.make("cuDevicePrimaryCtxRetain", 0)
        self.ok.cuCtxSetCurrent(context)
        return context

    def stream(self, flags: int = NON_BLOCKING) -> ctypes.c_void_p:
        return self.make("cuStreamCreate", flags)

    def launch(self, duration_ns: int, stream: Any = None, suffix: str = "") -> int:
        """CUresult of the launch of a kernel that takes so long."""
        function = getattr(self, "cuLaunchKernel" + suffix)
        return int(function(ctypes.c_void_p(duration_ns), 1, 1, 1, 1, 1, 1, 0, stream, None, None))


class _Checked:
    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> None:
            code = getattr(self._cuda, name)(*arguments)
            if code != 0:
                raise SystemExit(f"{name}: CUresult {code}")

        return call


def capture() -> dict[str, Any]:
    """Capture a graph in mode "global", the strictest, while other streams and threads are gated."""
    cuda = Cuda()
    context = cuda.primary()
    captured, other = cuda.stream(), cuda.stream()
    stop = threading.Event()

    def keep_launching() -> None:
        cuda.ok.cuCtxSetCurrent(context)
        mine = cuda.stream()
        while not stop.is_set():
            assert cuda.launch(500 * US, mine) == 0

    thread = threading.Thread(target=keep_launching)
    thread.start()
    for stream in (captured, other):
        for _ in range(3):
            assert cuda.launch(MS, stream) == 0
    cuda.ok.cuStreamBeginCapture_v2(captured, GLOBAL)
    results = []
    for _ in range(100):
        results.append(cuda.launch(MS, captured))
        results.append(cuda.launch(20 * US, other))
        time.sleep(0.0005)
    graph = ctypes.c_void_p()
    ended = cuda.cuStreamEndCapture(captured, ctypes.byref(graph))
    stop.set()
    thread.join()
    if ended or any(results):
        return {"ended": ended, "failed": sum(map(bool, results))}
    nodes = ctypes.c_size_t()
    cuda.ok.cuGraphGetNodes(graph, None, ctypes.byref(nodes))
    cuda.ok.cuStreamSynchronize(captured)
    exec_ = cuda.make("cuGraphInstantiateWithFlags", graph, ctypes.c_ulonglong(0))
    first, second = cuda.make("cuEventCreate", 0), cuda.make("cuEventCreate", 0)
    cuda.ok.cuEventRecord(first, captured)
    cuda.ok.cuGraphLaunch(exec_, captured)
    cuda.ok.cuEventRecord(second, captured)
    cuda.ok.cuStreamSynchronize(captured)
    elapsed_ms = ctypes.c_float()
    cuda.ok.cuEventElapsedTime(ctypes.byref(elapsed_ms), first, second)
    return {"nodes": nodes.value, "graph_ms": elapsed_ms.value}


def captured_only() -> dict[str, Any]:
    """Nothing but a capture: no launch reaches the device."""
    cuda = Cuda()
    cuda.primary()
    stream = cuda.stream()
    cuda.ok.cuStreamBeginCapture_v2(stream, THREAD_LOCAL)
    results = [cuda.launch(MS, stream) for _ in range(1000)]
    cuda.ok.cuStreamEndCapture(stream, ctypes.byref(ctypes.c_void_p()))
    return {"failed": sum(map(bool, results))}


def legacy_during_capture() -> dict[str, Any]:
    """A launch into the legacy stream while a stream that waits for it is captured."""
    cuda = Cuda()
    cuda.primary()
    assert cuda.launch(MS) == 0
    stream = cuda.stream(0)
    cuda.ok.cuStreamBeginCapture_v2(stream, THREAD_LOCAL)
    return {"launch": cuda.launch(MS)}


def contexts() -> None:
    """Default streams of two contexts by turns; one context is destroyed and made again, three times."""
    cuda = Cuda()
    first = cuda.primary()
    for _ in range(3):
        second = cuda.make("cuCtxCreate_v2", 0, 0)
        for _ in range(5):
            for context in (first, second):
                cuda.ok.cuCtxSetCurrent(context)
                stream = cuda.stream()
                for where in (None, stream):
                    assert cuda.launch(700 * US, where) == 0
                cuda.ok.cuCtxSynchronize()
        cuda.ok.cuCtxDestroy_v2(second)
        cuda.ok.cuCtxSetCurrent(first)
    cuda.ok.cuDevicePrimaryCtxRelease_v2(0)
    cuda.primary()
    assert cuda.launch(MS) == 0
    cuda.ok.cuCtxSynchronize()


def stream_of_another_context() -> None:
    """Launch into a stream whose context is not the current one."""
    cuda = Cuda()
    first = cuda.primary()
    stream = cuda.stream()
    cuda.make("cuCtxCreate_v2", 0, 0)
    for _ in range(10):
        assert cuda.launch(MS, stream) == 0
    cuda.ok.cuStreamSynchronize(stream)
    cuda.ok.cuCtxSetCurrent(first)


def short_streams() -> None:
    """Streams that are destroyed while their kernels run."""
    cuda = Cuda()
    cuda.primary()
    for _ in range(60):
        stream = cuda.stream()
        for _ in range(3):
            assert cuda.launch(300 * US, stream) == 0
        cuda.ok.cuStreamDestroy_v2(stream)
        time.sleep(0.001)
    last = cuda.stream()
    time.sleep(0.01)
    assert cuda.launch(MS, last) == 0
    cuda.ok.cuCtxSynchronize()


def short_threads() -> None:
    """Threads that end with kernels in flight on their own default streams."""
    cuda = Cuda()
    context = cuda.primary()

    def work() -> None:
        cuda.ok.cuCtxSetCurrent(context)
        for _ in range(4):
            assert cuda.launch(200 * US, suffix="_ptsz") == 0

    for _ in range(30):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        time.sleep(0.001)
    cuda.ok.cuCtxSynchronize()


def waits_of_others() -> None:
    """One thread waits for the context while another has kernels on a default stream of its own."""
    cuda = Cuda()
    context = cuda.primary()

    def work() -> None:
        cuda.ok.cuCtxSetCurrent(context)
        for _ in range(30):
            for _ in range(6):
                assert cuda.launch(100 * US, suffix="_ptsz") == 0
            time.sleep(0.003)

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        cuda.ok.cuCtxSynchronize()
        time.sleep(0.00005)
    thread.join()


def unseen_waits() -> None:
    """Bursts with pauses between them in which no function of the driver is called."""
    cuda = Cuda()
    cuda.primary()
    for _ in range(40):
        for _ in range(5):
            assert cuda.launch(100 * US) == 0
        time.sleep(0.005)
    cuda.ok.cuCtxSynchronize()


def errors() -> dict[str, Any]:
    """What the driver answers to a launch of nothing, and to launches after it."""
    cuda = Cuda()
    cuda.primary()
    nothing = cuda.launch(0)
    first, second = cuda.launch(MS), cuda.launch(MS)
    synchronized = cuda.cuCtxSynchronize()
    return {"nothing": nothing, "launches": [first, second], "synchronized": synchronized}


def forks() -> dict[str, Any]:
    """Children are forked while another thread launches; they and the parent launch as well."""
    cuda = Cuda()
    context = cuda.primary()
    stop = threading.Event()

    def keep_launching() -> None:
        cuda.ok.cuCtxSetCurrent(context)
        stream = cuda.stream()
        while not stop.is_set():
            assert cuda.launch(100 * US, stream) == 0

    thread = threading.Thread(target=keep_launching)
    thread.start()
    failed = 0
    for _ in range(15):
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # ends a child that hangs
            lost = cuda.launch(100 * US)
            cuda.ok.cuInit(0)
            cuda.primary()
            stream = cuda.stream()
            results = [lost != 3, *(cuda.launch(100 * US, where) for where in (None, stream) * 10)]
            os._exit(any(results) or cuda.cuCtxSynchronize() != 0)
        assert cuda.launch(100 * US) == 0
        failed += os.waitpid(child, 0)[1] != 0
    stop.set()
    thread.join()
    cuda.ok.cuCtxSynchronize()
    return {"failed": failed}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]]()))
