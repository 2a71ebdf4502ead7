"""Timers that fire within some 0.1 ms: those of an event loop have a resolution of 1 ms.

A load of which p50 is 0.5 ms would have 0.5 ms of such a timer in it.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """Calls back once at a moment of `time.perf_counter()`, after each `set`."""

    def set(self, at_s: float) -> None:
        """Fire then; at once if that is past. A moment set before is forgotten."""

    def close(self) -> None:
        """Fire no more."""


def precise_timer(loop: asyncio.AbstractEventLoop, fire: Callable[[], None]) -> Timer:
    """The best timer that the system has: timerfd on Linux, the loop's own (1 ms) elsewhere."""
    return _FileTimer(loop, fire) if sys.platform == "linux" else _LoopTimer(loop, fire)


class _Spec(ctypes.Structure):
    """struct itimerspec of <sys/timerfd.h>: interval and value, each in seconds and nanoseconds."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class _FileTimer:
    """timerfd_create(2) of glibc; Python has it itself from 3.13 on."""

    _MONOTONIC, _NONBLOCK_CLOEXEC, _ABSOLUTE = 1, os.O_NONBLOCK | os.O_CLOEXEC, 1

    def __init__(self, loop: asyncio.AbstractEventLoop, fire: Callable[[], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._handle = self._libc.timerfd_create(self._MONOTONIC, self._NONBLOCK_CLOEXEC)
        if self._handle < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._loop, self._fire, self._spec = loop, fire, _Spec()
        loop.add_reader(self._handle, self._fired)

    def set(self, at_s: float) -> None:
        # perf_counter and CLOCK_MONOTONIC are one clock on Linux. A value of 0 would disarm the timer.
        whole_s = int(at_s)
        self._spec.value_s, self._spec.value_ns = whole_s, max(int((at_s - whole_s) * 1e9), 1)
        if self._libc.timerfd_settime(self._handle, self._ABSOLUTE, ctypes.byref(self._spec), None):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def close(self) -> None:
        self._loop.remove_reader(self._handle)
        os.close(self._handle)

    def _fired(self) -> None:
        try:
            os.read(self._handle, 8)
        except BlockingIOError:  # set again meanwhile
            return
        self._fire()


class _LoopTimer:
    """A timer of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fire: Callable[[], None]) -> None:
        self._loop, self._fire = loop, fire
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at_s: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop.call_later(max(at_s - time.perf_counter(), 0.0), self._fire)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
