"""The journal of a campaign: each outcome on disk before the next point begins.

    OUT.journal    one JSON object a line: a header, then one line an outcome, each with its CRC-32

Every outcome is appended in one write and synchronised, so that a process that is killed loses the point in
flight and nothing else. A last line that was cut off is dropped when the campaign goes on; damage anywhere
else is an error, since what stood there cannot be known. The journal stays when the campaign is complete:
the same command then finds that there is nothing to measure.

While a campaign is open it holds a lock on its journal (flock, which ends with the process).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from profiler.journal_format import Record, header_line, outcome_line, parse_journal
from profiler.outcome import Outcome, Status
from profiler.plan import Point
from profiler.specification import Specification, differences
from rapp.errors import ConfigError, RappError


def journal_path(out: str | Path) -> Path:
    """The journal of the profile table `out`; beside the file that a symbolic link leads to."""
    target = Path(os.path.realpath(out))
    return target.with_name(target.name + ".journal")


class Journal:
    """The journal of a campaign that runs; a context manager that holds its lock.

    Made by `Journal.open`. `outcomes` is what is on disk.
    """

    def __init__(self, table: Path, descriptor: int, record: Record) -> None:
        self._table, self.path = table, journal_path(table)
        self._descriptor, self._record = descriptor, record

    @classmethod
    def open(cls, out: str | Path, specification: Specification, *, retry_failed: bool = False) -> Journal:
        """Begin the campaign that fills the table `out`, or go on with it.

        Args:
            retry_failed: forget points that failed, and those skipped for it, so that they are tried again.

        Raises:
            ConfigError: `out` is a folder, or holds a table or campaign of another specification.
            RappError: another campaign writes to `out`, or its folder cannot be written.
            JournalError: the journal is damaged.
        """
        target = Path(os.path.realpath(out))
        if target.is_dir():
            raise ConfigError(f"{out} is a folder: --out names the file to write")
        path = journal_path(out)
        with _reported(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor = _locked(path, out)
        fresh = False
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise RappError(f"{path}: cannot be written: it exists and is not a regular file")
            record = parse_journal(path.read_bytes(), path)
            fresh = record is None
            if record is None:
                record = _begin(descriptor, path, target, specification)
            else:
                _check_same(record.specification, specification, path, out)
            journal = cls(target, descriptor, record)
            with _reported(path):
                os.ftruncate(descriptor, record.length)
            if retry_failed:
                record.outcomes = {p: o for p, o in record.outcomes.items() if o.status == Status.OK}
        except BaseException:
            if fresh:
                path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        return journal

    @property
    def campaign_id(self) -> str:
        """Drawn when the campaign began."""
        return self._record.campaign_id

    @property
    def outcomes(self) -> Mapping[Point, Outcome]:
        """The outcomes on disk."""
        return self._record.outcomes

    def append(self, outcome: Outcome) -> None:
        """Put an outcome on disk.

        Raises:
            RappError: the disk is full or failed: the outcome is not counted, what is there is safe.
        """
        line = outcome_line(outcome)
        try:
            _write(self._descriptor, line)
        except OSError as error:
            # A part of the line may be there; it is cut off now, or when the campaign goes on.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._record.length)
            raise RappError(
                f"{self.path}: cannot be written: {error.strerror or error};"
                f" {len(self.outcomes):,} points are safe in it, and the same command goes on after them"
            ) from error
        self._record.length += len(line)
        self._record.outcomes[outcome.point] = outcome

    def close(self) -> None:
        """Let go of the lock. A journal without any outcome goes, unless a table is there that needs it."""
        if self._descriptor < 0:
            return
        try:
            if not self.outcomes and not self._table.exists():
                self.path.unlink(missing_ok=True)
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _begin(descriptor: int, path: Path, target: Path, specification: Specification) -> Record:
    """Write the header of a new campaign."""
    if target.exists():
        raise ConfigError(
            f"{target} exists, and there is no {path.name} of its campaign to go on with:"
            " give another --out, or move the file away"
        )
    started_at = datetime.now(UTC)
    campaign_id = f"{started_at:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
    line = header_line(campaign_id, started_at, specification)
    with _reported(path):
        os.ftruncate(descriptor, 0)
        _write(descriptor, line)
        _sync_folder(path.parent)
    return Record(campaign_id, specification, length=len(line))


def _check_same(there: Specification, here: Specification, path: Path, out: str | Path) -> None:
    found = differences(there, here)
    if found:
        more = f" and {len(found) - 3} more differences" if len(found) > 3 else ""
        raise ConfigError(
            f"{out} belongs to another campaign: {'; '.join(found[:3])}{more}. Give its options again to go"
            f" on, or another --out, or move it and {path.name} away"
        )


def _locked(path: Path, out: str | Path) -> int:
    """Open the journal, made if need be, and lock it.

    Raises:
        RappError: another campaign has it.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its owner may have removed it between the two calls: then this is a lock on nothing.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BlockingIOError as error:
            os.close(descriptor)
            raise RappError(
                f"another campaign is writing {out}: wait until it has ended, or give another --out"
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _write(descriptor: int, line: bytes) -> None:
    while line:
        line = line[os.write(descriptor, line) :]
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    """Put the name of a new file on disk, not its content alone."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RappError(f"{path}: cannot be written: {error.strerror or error}") from error
