"""`Arena`: slots of shared memory in which tensors travel between the gateway and the workers of a function.

The gateway takes a slot, fills in a sample, and names the slot to a worker, which writes the answer into the
same slot. Memory is touched only where it is used: slots that were freed last are taken first, so that as
many pages are resident as there were samples at a time. What a burst filled is given back to the system once
it has lain idle (`age`, `release`); else the highest burst of all times would stay resident.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator


class Arena:
    """A mapped file in memory, without a name; `make` in the gateway, `Arena` in a worker that inherits it.

    Args:
        descriptor: of the file; it belongs to the arena.
        slots: how many. slot_bytes: size of each, a multiple of 64.
    """

    def __init__(self, descriptor: int, slots: int, slot_bytes: int) -> None:
        self.descriptor, self.slots, self.slot_bytes = descriptor, slots, slot_bytes
        self._map = mmap.mmap(descriptor, slots * slot_bytes)
        self.memory = memoryview(self._map)
        # A stack: what lies below its lowest level of a period was nobody's in all of the period.
        self._free = list(range(slots))[::-1]
        self._lowest = slots  # level since the last `age`
        self._idle = 0  # so many from the bottom were idle for the whole period before that
        self._empty = slots  # so many from the bottom have no pages

    @classmethod
    def make(cls, slots: int, slot_bytes: int) -> Arena:
        """A new one. Its pages count as this process's memory once they are used, not before."""
        descriptor = os.memfd_create("rapp-arena", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, slots * slot_bytes)
        return cls(descriptor, slots, slot_bytes)

    @property
    def free_slots(self) -> int:
        """Slots that nobody has."""
        return len(self._free)

    @property
    def resident_bytes(self) -> int:
        """Memory that its pages take. Blocks are of 512 bytes, whatever the file system: stat(2)."""
        return os.fstat(self.descriptor).st_blocks * 512

    def take(self, count: int) -> list[int] | None:
        """Slots for `count` samples; None: there are not so many."""
        if count > len(self._free):
            return None
        if count == 1:
            taken = [self._free.pop()]
        else:
            taken = self._free[-count:]
            del self._free[-count:]
        self._lowest = min(self._lowest, len(self._free))
        return taken

    def give_back(self, slot: int) -> None:
        """Let others take a slot again. No worker may have it any more."""
        self._free.append(slot)

    def age(self) -> None:
        """Begin a new period: slots that nobody had in the one that ends here count as idle."""
        self._empty = min(self._empty, self._lowest)
        self._idle, self._lowest = self._lowest, len(self._free)

    def release(self, most_bytes: int) -> bool:
        """Give pages of idle slots back to the system; a slot taken later reads as zeros there.

        Args:
            most_bytes: about so much at once, at least one slot: it takes the kernel 0.3 ms/MiB.

        Returns:
            Whether there is more to give back.
        """
        idle = min(self._idle, self._lowest)
        begin = self._empty  # above `idle` if what lies below was used since `age`: not idle
        end = min(begin + max(most_bytes // self.slot_bytes, 1), idle)
        if begin >= end:
            return False
        for first, behind in _runs(sorted(self._free[begin:end])):
            # Whole pages alone: the outermost may hold a part of a neighbour that is in use.
            start = -(-first * self.slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
            length = behind * self.slot_bytes // mmap.PAGESIZE * mmap.PAGESIZE - start
            if length > 0:
                # Of the file, so out of the workers' maps, too: madvise(2).
                self._map.madvise(mmap.MADV_REMOVE, start, length)
        self._empty = end
        return end < idle

    def close(self) -> None:
        """Unmap it; workers keep it until they end."""
        self.memory.release()
        self._map.close()
        os.close(self.descriptor)


def _runs(slots: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as ranges: first, and behind the last."""
    first = behind = -1
    for slot in slots:
        if slot != behind:
            if behind >= 0:
                yield first, behind
            first = slot
        behind = slot + 1
    if behind >= 0:
        yield first, behind
