"""Memory that requests leave behind in the gateway: kept while it is used again, given back once it is idle.

A burst of n requests fills n slots of an arena and leaves n bodies in the heap of C. Nothing of that goes
back by itself: a server that ran for long would have the memory of the highest burst it ever saw.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
from collections.abc import Callable, Iterable

from scaler.serving.arena import Arena

IDLE_S = 10.0
"""Memory that nobody used for so long, and at most twice as long, is given back, s."""
_PIECE_BYTES = 8 << 20
_PAUSE_S = 0.01
"""An arena is given back piece by piece, with pauses: each takes 3 ms, in which no request has its turn."""
# Of <malloc.h>; glibc takes no larger threshold than 32 MiB for mapping.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MMAP_BYTES, _KEPT_BYTES = 32 << 20, 128 << 20


def keep_memory() -> None:
    """Have glibc keep what bodies of requests were read into, instead of giving it back and asking again.

    Else every body above 128 KiB is memory that the kernel maps and clears anew: a third of the gateway's
    time for tensors of 600 KB. Other libraries of C know no such call, and do as they do.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


class Tidying:
    """Gives back what is idle, until it is closed. To be made on the event loop's thread.

    Args:
        arenas: of all functions. idle_s: what was not used for so long is given back.
    """

    def __init__(self, arenas: Iterable[Arena], idle_s: float = IDLE_S) -> None:
        self._arenas, self._idle_s = tuple(arenas), idle_s
        self._left: list[Arena] = []
        self._trim_heap = _malloc_trim()
        self._loop = asyncio.get_running_loop()
        self._next_period = self._loop.call_later(idle_s, self._age)
        self._next_piece: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """End it; arenas can be closed then."""
        self._next_period.cancel()
        if self._next_piece is not None:
            self._next_piece.cancel()

    def _age(self) -> None:
        self._next_period = self._loop.call_later(self._idle_s, self._age)
        for arena in self._arenas:
            arena.age()
        # Free chunks between those in use, too, at 0.1 ms/MiB: about 1 ms of 10 s under a steady load.
        self._trim_heap(0)
        if self._next_piece is None:
            self._left = list(self._arenas)
            self._next_piece = self._loop.call_later(_PAUSE_S, self._release)

    def _release(self) -> None:
        self._next_piece = None
        if not self._left[-1].release(_PIECE_BYTES):
            self._left.pop()
        if self._left:
            self._next_piece = self._loop.call_later(_PAUSE_S, self._release)


def _malloc_trim() -> Callable[[int], object]:
    """glibc's malloc_trim(3); where there is none, nothing: musl keeps no such chunks."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return lambda kept_bytes: None
    trim.argtypes = [ctypes.c_size_t]
    found: Callable[[int], object] = trim
    return found
