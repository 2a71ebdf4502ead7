"""`Lease`: of several controllers one leads.

`FileLease` is for controllers on one machine. Two things tell that a leader is gone: a lock that the
operating system lets go of when its process ends, however it ends; and a time of the last renewal, for one
that still exists and does nothing. The monotonic clock is common to all processes of a machine and nobody
sets it; a reboot, after which it begins anew, is known by the machine's boot id.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from scaler.errors import BackendError

VERSION = 1
RECORD_BYTES = 1024
"""A record is written in one piece of this size, padded, so that no longer one shows behind a shorter."""

LOCK_WAIT_S = 0.25
"""Longest wait for the lock of the record, which is held for microseconds."""

_log = logging.getLogger(__name__)


class Lease(Protocol):
    """The right to make changes, which one of several controllers has at a time.

    `scaler.testing.LeaseContract` is the test that each lease passes.
    """

    @property
    def holder(self) -> str:
        """Who asks: a name that no other process has, this one's successors included."""

    @property
    def term(self) -> int:
        """A number that is higher for whoever leads later; 0: this one did not lead when it asked last.

        What makes changes refuses those of a term below one that it was told (`scaler.backends.fencing`).
        """

    @property
    def duration_s(self) -> float:
        """A leader that has not renewed for so long may lead no more, s."""

    def lead(self) -> bool:
        """Take the lease if it is free, renew it if it is ours; it never waits for another to let go.

        The controller calls it at each tick, once more right before it makes changes, and between two changes
        if its last answer is not fresh any more. A renewal has to be a compare-and-swap. One who led
        and finds that the lease is not its own any more is told False once, even if it is free again: what
        it decided before is not to be made.

        Returns:
            Whether this one leads now.

        Raises:
            BackendError: where leases are kept cannot be reached; then this one does not lead.
        """

    def release(self) -> None:
        """Let the next one lead at once, if this one leads.

        Raises:
            BackendError: it cannot be reached; the lease then expires.
        """


def holder_name() -> str:
    """A name for this process: machine, process id, and a random part, as process ids come again."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def next_term(before: int) -> int:
    """The term after another one.

    Not below the milliseconds of the day: where the record of terms is lost, what makes changes still knows
    the last one, and would refuse every leader that counts from 1 again.
    """
    return max(before + 1, time.time_ns() // 1_000_000)


@dataclass(frozen=True, slots=True)
class _Record:
    """Who leads. locked: whether the holder has the lock of `.leader` too."""

    holder: str
    term: int
    renewed_s: float
    duration_s: float
    boot: str
    locked: bool
    version: int = VERSION


class FileLease:
    """A lease in a file, for the processes of one machine; the file must not be on a network.

    Args:
        path: the file; beside it `<path>.leader` is made, which the leader keeps locked.
        duration_s: a leader that has not renewed for so long does not lead any more, s.
        clock: monotonic time, common to all that ask, s. boot: id of the machine's start.
        holder: see `Lease.holder`.

    Raises:
        BackendError: the file cannot be made.
    """

    def __init__(
        self,
        path: str | Path,
        duration_s: float = 5.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        boot: str | None = None,
        holder: str | None = None,
    ) -> None:
        self.path, self._duration_s = Path(path), duration_s
        self._clock = clock
        self._boot = _boot_id() if boot is None else boot
        self._holder = holder_name() if holder is None else holder
        self._presence: int | None = None
        self._term = 0
        with self._reported():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(self._open(self.path))

    @property
    def holder(self) -> str:
        """As `Lease.holder`."""
        return self._holder

    @property
    def term(self) -> int:
        """As `Lease.term`."""
        return self._term

    @property
    def duration_s(self) -> float:
        """As `Lease.duration_s`."""
        return self._duration_s

    def lead(self) -> bool:
        """As `Lease.lead`."""
        with self._reported(), self._record_locked() as file:
            if file is None:
                return False
            record, now_s = _read(file, self.path), self._clock()
            led, self._term = self._term > 0, 0
            if record is None or record.holder != self.holder:
                # Whoever lost the lease must not seem to be alive in its place.
                self._let_go()
                if led:
                    return False
                if record is not None and not (self._is_over(record, now_s) or self._is_gone(record)):
                    return False
            locked = self._lock_presence()
            term = 0 if record is None else record.term
            if record is None or record.holder != self.holder:
                term = next_term(term)
            _write(file, _Record(self.holder, term, now_s, self.duration_s, self._boot, locked))
            self._term = term
            return True

    def release(self) -> None:
        """As `Lease.release`."""
        with self._reported(), self._record_locked() as file:
            self._term = 0
            self._let_go()
            record = None if file is None else _read(file, self.path)
            if file is not None and record is not None and record.holder == self.holder:
                _write(file, _Record("", record.term, 0.0, 0.0, self._boot, False))

    def _is_over(self, record: _Record, now_s: float) -> bool:
        age_s = now_s - record.renewed_s
        return record.boot != self._boot or not 0 <= age_s < record.duration_s

    def _is_gone(self, record: _Record) -> bool:
        """Whether the process that leads has ended."""
        return record.locked and self._lock_presence()

    def _lock_presence(self) -> bool:
        if self._presence is None:
            file = self._open(self.path.with_name(f"{self.path.name}.leader"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                return False
            self._presence = file
        return True

    def _let_go(self) -> None:
        if self._presence is not None:
            os.close(self._presence)
            self._presence = None

    @contextlib.contextmanager
    def _record_locked(self) -> Iterator[int | None]:
        """The record's file while nobody else uses it; None if another one keeps it."""
        file = self._open(self.path)
        try:
            end_s = time.monotonic() + LOCK_WAIT_S
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() > end_s:
                        yield None
                        return
                    time.sleep(0.005)
                else:
                    break
            yield file
        finally:
            os.close(file)

    @staticmethod
    def _open(path: Path) -> int:
        # Not inherited by children: a worker that outlives the controller would keep its lock.
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BackendError(
                f"lease {self.path}: cannot be used: {error.strerror or error}; --lease names another file"
            ) from error


def _read(file: int, path: Path) -> _Record | None:
    text = os.pread(file, RECORD_BYTES, 0)
    if not text.strip():
        return None
    try:
        content = json.loads(text)
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']}, this program reads {VERSION}")
        return _Record(
            str(content["holder"]), int(content["term"]), float(content["renewed_s"]),
            float(content["duration_s"]), str(content["boot"]), bool(content["locked"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        _log.warning("lease %s: damaged (%s): taken as free", path, error)
        return None


def _write(file: int, record: _Record) -> None:
    text = json.dumps(asdict(record)).encode()
    if len(text) > RECORD_BYTES:
        raise BackendError(f"the holder's name is too long for a lease: {record.holder[:40]}...")
    os.pwrite(file, text.ljust(RECORD_BYTES), 0)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        # Only Linux has it. Without it a record from before a reboot expires by its time.
        return ""
