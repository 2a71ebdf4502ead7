"""`QuotaBlock`: a time quota in a small memory-mapped file, which another process can change at any moment.

    block = QuotaBlock.create(quota_pct=50)      # by whoever starts the worker, who hands on `block.path`
    block = QuotaBlock.open(path)                # in the worker, in a scheduler, in a monitor
    block.quota_pct = 20                         # the gate's next look sees it
    block.unlink()                               # by whoever created it

One block belongs to one enforcer, which writes the statistics: a `rapp.runtime.QuotaGate`, or the processes
under the C library that gates launches. The bytes are described in `quota_layout`.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from rapp.runtime.quota_layout import (
    FIELDS,
    LONGEST_NS,
    MILLION,
    MODES,
    SIZE_BYTES,
    BlockFault,
    QuotaBlockError,
    QuotaMode,
    block_bytes,
    check_head,
    duration_ns,
    quota_ppm,
    system_fault,
)

# Places in the block seen as an array of u32, and as one of u64.
_MODE, _QUOTA = (FIELDS[name][0] // 4 for name in ("mode", "quota_ppm"))
_WINDOW, _LAUNCHES, _GROUPS, _USED, _WAITED, _WAITS, _MAX_DEBT = (
    FIELDS[name][0] // 8
    for name in ("window_ns", "launches", "groups", "used_ns", "waited_ns", "waits", "max_debt_ns")
)


@dataclass(frozen=True, slots=True)
class QuotaStatistics:
    """What was counted since the block was created.

    Args:
        launches: launches that were gated; for a `QuotaGate` each charge is one.
        groups: groups of launches whose device time was charged together; for a `QuotaGate` likewise.
        used_ms: device time charged, ms.
        waited_ms: time spent waiting for the quota, ms, summed over threads.
        waits: how often somebody had to wait.
        max_debt_ms: largest debt of device time, ms.
    """

    launches: int
    groups: int
    used_ms: float
    waited_ms: float
    waits: int
    max_debt_ms: float


class QuotaBlock:
    """A mapped control block, from `create`, `anonymous` or `open`; leaving its context unmaps it.

    Every field is read and written in one piece, so that nobody ever sees half a value.
    """

    def __init__(self, mapped: mmap.mmap, path: Path | None) -> None:
        self._map, self._path = mapped, path
        # Views of whole words, in the machine's byte order: struct.pack_into clears the field first, and
        # other processes would now and then see a quota of 0.
        with memoryview(mapped) as content:
            self._u32, self._u64 = content.cast("I"), content.cast("Q")

    @classmethod
    def create(
        cls,
        path: str | Path | None = None,
        quota_pct: float = 100,
        window_ms: float = 40,
        *,
        mode: QuotaMode = QuotaMode.GPU_TIME,
        lead: int = 2,
        group_ms: float = 1,
    ) -> QuotaBlock:
        """Create the file, whole or not at all, for this user alone (0600), and map it.

        Args:
            path: a file that does not exist; None: a new name in `default_folder()`.
            quota_pct: device time allowed per window, %, in [0.0001, 100].
            window_ms: the window, ms.
            mode: what is limited.
            lead: groups of launches in flight at most, 1 to 64 (C library).
            group_ms: device time that a group of launches should have, ms (C library).

        Raises:
            ConfigError: an argument out of its range.
            QuotaBlockError: faults `EXISTS`, `MISSING` (the folder), `DENIED`, `SYSTEM` (a full disk, say).
        """
        content = block_bytes(quota_pct, window_ms, mode, lead, group_ms)
        folder = Path(path).parent if path is not None else default_folder()
        try:
            handle, made = tempfile.mkstemp(prefix="rapp-quota-", dir=folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                if path is None:
                    return cls.open(made)
                # Unlike a rename, a link never takes the place of a block that others have mapped.
                os.link(made, path)
            except BaseException:
                Path(made).unlink()
                raise
            Path(made).unlink()
        except OSError as error:
            raise system_fault(path or folder, error) from error
        return cls.open(path)

    @classmethod
    def anonymous(
        cls, quota_pct: float = 100, window_ms: float = 40, *, mode: QuotaMode = QuotaMode.GPU_TIME
    ) -> QuotaBlock:
        """A block without a file, for a quota that this process (or one that it forks) changes itself.

        Raises:
            ConfigError: an argument out of its range.
            QuotaBlockError: fault `SYSTEM`.
        """
        _check_byte_order("the control block")
        mapped = mmap.mmap(-1, SIZE_BYTES)
        mapped[:] = bytes(block_bytes(quota_pct, window_ms, mode, 2, 1))
        return cls(mapped, None)

    @classmethod
    def open(cls, path: str | Path) -> QuotaBlock:
        """Map an existing block.

        Raises:
            QuotaBlockError: faults `MISSING`, `DENIED` (it must be writable), `SHORT`, `FOREIGN` (wrong
                magic), `VERSION`, `VALUE`, `SYSTEM`.
        """
        _check_byte_order(path)
        try:
            with Path(path).open("r+b") as file:
                check_head(path, file.read(SIZE_BYTES))
                mapped = mmap.mmap(file.fileno(), SIZE_BYTES)
        except OSError as error:
            raise system_fault(path, error) from error
        block = cls(mapped, Path(path))
        try:
            block.limits()
        except QuotaBlockError:
            block.close()
            raise
        return block

    @property
    def path(self) -> Path | None:
        """The file; None: the block is anonymous."""
        return self._path

    def limits(self) -> tuple[QuotaMode, int, int]:
        """Mode, quota in millionths, and window in ns, as they are at this moment.

        Raises:
            QuotaBlockError: fault `VALUE`: somebody wrote what can be no quota.
        """
        mode, ppm, window_ns = self._u32[_MODE], self._u32[_QUOTA], self._u64[_WINDOW]
        if not (mode < len(MODES) and 1 <= ppm <= MILLION and 1 <= window_ns <= LONGEST_NS):
            detail = f"mode {mode}, quota_ppm {ppm}, window_ns {window_ns}"
            raise QuotaBlockError(self._path or "the control block", BlockFault.VALUE, detail)
        return MODES[mode], ppm, window_ns

    @property
    def quota_pct(self) -> float:
        """Device time allowed per window, %, in (0, 100]; setting another raises ConfigError."""
        return self.limits()[1] / 1e4

    @quota_pct.setter
    def quota_pct(self, value: float) -> None:
        self._u32[_QUOTA] = quota_ppm(value)

    @property
    def window_ms(self) -> float:
        """The window, ms, up to 10,000; setting another raises ConfigError."""
        return self.limits()[2] / MILLION

    @window_ms.setter
    def window_ms(self, value: float) -> None:
        self._u64[_WINDOW] = duration_ns("window_ms", value)

    @property
    def mode(self) -> QuotaMode:
        """What is limited; `OFF` lets everything through and forgives the debt."""
        return self.limits()[0]

    @mode.setter
    def mode(self, value: QuotaMode) -> None:
        self._u32[_MODE] = QuotaMode(value)

    @property
    def statistics(self) -> QuotaStatistics:
        """What was counted so far."""
        words = self._u64
        return QuotaStatistics(
            launches=words[_LAUNCHES],
            groups=words[_GROUPS],
            used_ms=words[_USED] / MILLION,
            waited_ms=words[_WAITED] / MILLION,
            waits=words[_WAITS],
            max_debt_ms=words[_MAX_DEBT] / MILLION,
        )

    def count_charge(self, used_ns: int, debt_ns: int) -> None:
        """Count one charge and the debt after it. Only for the block's enforcer, one thread at a time."""
        words = self._u64
        words[_LAUNCHES] += 1
        words[_GROUPS] += 1
        words[_USED] += used_ns
        words[_MAX_DEBT] = max(words[_MAX_DEBT], debt_ns)

    def count_wait(self, waited_ns: int) -> None:
        """Count one wait. Only for the block's enforcer, one thread at a time."""
        self._u64[_WAITS] += 1
        self._u64[_WAITED] += waited_ns

    def close(self) -> None:
        """Unmap the block, which cannot be used afterwards; the file stays. May be called again."""
        self._u32.release()
        self._u64.release()
        self._map.close()

    def unlink(self) -> None:
        """Remove the file; whoever has it mapped keeps it. May be called again, and after `close`.

        Raises:
            QuotaBlockError: fault `DENIED` or `SYSTEM`.
        """
        if self._path is None:
            return
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise system_fault(self._path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def default_folder() -> Path:
    """Where new blocks go: shared memory where the system has it, or else the folder for temporary files."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() else Path(tempfile.gettempdir())


def _check_byte_order(path: str | Path) -> None:
    if sys.byteorder != "little":
        raise QuotaBlockError(path, BlockFault.SYSTEM, "it is little-endian, and this machine is not")
