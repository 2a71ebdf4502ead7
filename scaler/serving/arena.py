"""`Arena`: slots of shared memory in which tensors travel between the gateway and the workers of a function.

The gateway takes a slot, fills in a sample, and names the slot to a worker, which writes the answer into the
same slot. Memory is touched only where it is used: slots that were freed last are taken first, so that as
many pages are resident as there were samples at a time.
"""

from __future__ import annotations

import mmap
import os


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
        self._free = list(range(slots))[::-1]

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

    def take(self, count: int) -> list[int] | None:
        """Slots for `count` samples; None: there are not so many."""
        if count > len(self._free):
            return None
        if count == 1:
            return [self._free.pop()]
        taken = self._free[-count:]
        del self._free[-count:]
        return taken

    def give_back(self, slot: int) -> None:
        """Let others take a slot again. No worker may have it any more."""
        self._free.append(slot)

    def close(self) -> None:
        """Unmap it; workers keep it until they end."""
        self.memory.release()
        self._map.close()
        os.close(self.descriptor)
