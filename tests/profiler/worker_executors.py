"""Executors for the tests of the worker process; the child imports this file."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from profiler.device import Block, Failure, MeasureError
from rapp.errors import MissingExtraError


class Scripted:
    """Does on `run` what its name says; batches take a millisecond on paper."""

    def __init__(self, deed: str, closed_file: str | None) -> None:
        self._deed, self._closed_file = deed, closed_file
        self.sm_count: int | None = None
        self.peak_memory_mib: float | None = None
        self._quota_pct = 100.0

    def prepare(self, batch: int) -> None:
        if batch > 8:
            raise MeasureError(Failure.OUT_OF_MEMORY, f"batch {batch}")
        self.sm_count, self.peak_memory_mib = 3, 10.0 * batch

    def set_quota(self, quota_pct: float) -> None:
        self._quota_pct = quota_pct

    def run(self, count: int) -> Block:
        DEEDS[self._deed]()
        wall_ms = np.arange(1, count + 1) * 100 / self._quota_pct
        return Block(wall_ms, device_ms=wall_ms / 2, disturbance="throttled" if count == 7 else None)

    def outputs(self) -> Sequence[Any] | None:
        if self._deed == "no outputs":
            return None
        return [np.arange(6, dtype=np.float32).reshape(2, 3), np.array([True, False]), np.float16(0.5)]

    def close(self) -> None:
        if self._closed_file is not None:
            Path(self._closed_file).write_text("closed")


def _say(text: str, deed: Callable[[], object]) -> Callable[[], object]:
    def say() -> None:
        print(f"{text}\n", file=sys.stderr, flush=True)
        deed()

    return say


def _segfault() -> None:
    ctypes.string_at(1)


def _hang_with_the_interpreter_locked() -> None:
    # A PyDLL call keeps the interpreter's lock: no other thread of this process runs again.
    ctypes.PyDLL(None).sleep(600)


def _garbage() -> None:
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b"no message" * 10)
        except OSError:
            continue


def _half_a_message() -> None:
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b"RaPP")
        except OSError:
            continue
    time.sleep(600)


def _bug() -> None:
    raise ZeroDivisionError("a bug of the executor")


def _no_memory() -> None:
    raise MemoryError


def _no_extra() -> None:
    raise MissingExtraError("ONNX Runtime", "cpu")


def _with_a_child_of_its_own() -> None:
    child = subprocess.Popen(["sleep", "600"])
    Path(os.environ["CHILD_FILE"]).write_text(str(child.pid))
    time.sleep(600)


DEEDS: dict[str, Callable[[], object]] = {
    "work": lambda: None,
    "no outputs": lambda: None,
    "crash": _say("about to crash", _segfault),
    "killed": _say("so far so good", lambda: os.kill(os.getpid(), signal.SIGKILL)),
    "exit": _say("fatal: no such kernel", lambda: os._exit(7)),
    "hang": _say("waiting for the device", lambda: time.sleep(600)),
    "hang locked": _hang_with_the_interpreter_locked,
    "garbage": _garbage,
    "half a message": _half_a_message,
    "bug": _bug,
    "no memory": _no_memory,
    "no extra": _no_extra,
    "with a child": _with_a_child_of_its_own,
}


def make(deed: str = "work", closed_file: str | None = None) -> Scripted:
    if deed == "refuse":
        raise MeasureError(Failure.PARTITION, "3 of 4 cores")
    if deed == "slow start":
        time.sleep(600)
    return Scripted(deed, closed_file)


class Environment(Scripted):
    """Tells its environment as outputs."""

    def outputs(self) -> Sequence[Any] | None:
        return [np.frombuffer("\n".join(f"{k}={v}" for k, v in os.environ.items()).encode(), np.uint8)]


def make_environment() -> Environment:
    return Environment("work", None)
