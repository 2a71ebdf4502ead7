"""A claim: one process of a user holds a GPU, and what it changed on it is undone whatever becomes of it.

Measuring changes things outside the process: it starts an MPS daemon, it locks clocks. A claim undoes them
in two ways: at `release`, at the end of the interpreter and on SIGTERM or SIGHUP by the functions given to
`on_release`; after `kill -9` by the next start, which finds in `abandoned` what was noted with `note`
(`rapp.runtime.leftovers` knows what to do about each).

The folder `<temporary files>/rapp-<uid>`, private to the user, holds one folder a GPU:

    lock          locked (flock) while the owner lives, whatever its process id
    state.json    who it is, and what it changed
    ...           files of the changes, such as the pipes of the daemon

The kernel drops the lock with the process, so an owner that lives is never taken for dead. Processes
with different folders for temporary files (TMPDIR) do not see each other.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from rapp.errors import RappError
from rapp.fileio import atomic_path

_UUID_CHARACTERS = 12
"""Last ones of a UUID, for a folder's name: few, for the path of a socket below it has 107 bytes at most."""


class ClaimError(RappError):
    """The GPU is held by another process, or the folder of claims cannot be used."""


class GpuClaim:
    """This process holds a GPU; no other process of this user that asks for a claim gets one.

    Args:
        gpu_uuid: as nvidia-smi prints it. root: folder of claims; None: the user's.

    Raises:
        ClaimError: another process of this user holds it, or left it dirty; or the folder cannot be used.
    """

    def __init__(self, gpu_uuid: str, root: Path | None = None) -> None:
        self.folder = (root or claims_root()) / _folder_name(gpu_uuid)
        self._lock = _Lock(self.folder)
        if not self._lock.acquire():
            owner = read_state(self.folder).get("pid", "unknown")
            raise ClaimError(f"{gpu_uuid} is in use by rapp process {owner}: wait for it, or end it")
        if read_state(self.folder):
            self._lock.release()
            raise ClaimError(f"{self.folder}: left by a process that was killed: run `rapp doctor`")
        self._undo = contextlib.ExitStack()
        self.gpu_uuid, self._pid = gpu_uuid, os.getpid()
        self._state: dict[str, Any] = {"pid": self._pid, "gpu_uuid": gpu_uuid, "since_s": time.time()}
        try:
            self._write()
        except BaseException:
            self._lock.release()
            raise
        _at_end(self)

    def note(self, **facts: object) -> None:
        """Remember JSON-able facts for whoever cleans up after this process; before the change is made."""
        self._state.update(facts)
        self._write()

    def on_release(self, undo: Callable[[], object]) -> None:
        """Call `undo` at the release; the last given is the first called, each once, even if one fails."""
        self._undo.callback(undo)

    def release(self) -> None:
        """Undo everything and give the GPU back; may be called again. A forked child does nothing."""
        if os.getpid() != self._pid or not self._lock.held:
            return
        _held.discard(self)
        atexit.unregister(self.release)
        try:
            self._undo.close()
            remove(self.folder)
        finally:  # what could not be undone stays noted, for the next start
            self._lock.release()

    def _write(self) -> None:
        with atomic_path(self.folder / "state.json") as path:
            path.write_text(json.dumps(self._state))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


@contextlib.contextmanager
def abandoned(root: Path | None = None) -> Iterator[Sequence[tuple[Path, Mapping[str, Any]]]]:
    """Folders of claims whose owner is gone, and their states; nobody else gets them inside the block.

    Those that the block `remove`s are gone afterwards, the others can be found again.
    """
    root = root or claims_root(make=False)
    with contextlib.ExitStack() as locks:
        found = []
        for folder in sorted(path for path in root.glob("*") if path.is_dir()):
            lock = _Lock(folder)
            if lock.acquire():
                locks.callback(lock.release)
                if state := read_state(folder):
                    found.append((folder, state))
        yield found


def remove(folder: Path) -> None:
    """Remove what a claim's folder holds, its lock excepted, which goes when it is released."""
    # The state goes last: a process killed in between leaves what the next one looks for.
    for path in sorted(folder.iterdir(), key=lambda path: path.name == "state.json"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != "lock":
            path.unlink(missing_ok=True)


def read_state(folder: Path) -> dict[str, Any]:
    """State of a claim; empty if there is none or it cannot be read."""
    try:
        state = json.loads((folder / "state.json").read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def claims_root(make: bool = True) -> Path:
    """The folder of this user's claims.

    Args:
        make: whether to make it, if it is not there.

    Raises:
        ClaimError: there is something of that name that is not a private folder of this user.
    """
    root = Path(tempfile.gettempdir()) / f"rapp-{os.getuid()}"
    try:
        if make:
            root.mkdir(mode=0o700, exist_ok=True)
        found = root.lstat()
    except FileNotFoundError:
        return root
    except OSError as error:
        raise ClaimError(
            f"{root}: cannot be made ({error.strerror}): set TMPDIR to a folder of yours"
        ) from error
    # In a folder that all may write to, somebody else could have made it first.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ClaimError(f"{root}: not a private folder of yours: remove it, or set TMPDIR")
    return root


def _folder_name(gpu_uuid: str) -> str:
    # A slice (MIG) has a UUID of its own, and is a device of its own.
    return gpu_uuid[-_UUID_CHARACTERS:]


class _Lock:
    """The file `lock` of a folder, exclusively locked."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._handle = folder, -1

    @property
    def held(self) -> bool:
        return self._handle >= 0

    def acquire(self) -> bool:
        """Whether it could be had; never waits.

        Raises:
            ClaimError: the folder cannot be written, or knows no locks.
        """
        try:
            return self._acquire()
        except OSError as error:
            reason = f"{self._folder}: cannot be locked ({error.strerror}): set TMPDIR to a local folder"
            raise ClaimError(reason) from error

    def _acquire(self) -> bool:
        while True:
            with contextlib.suppress(FileExistsError):
                self._folder.mkdir(mode=0o700)
            try:
                # Not inherited by programs that are started: the lock ends with this process alone.
                handle = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:  # its owner removed the folder in between
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(handle).st_ino == (self._folder / "lock").stat().st_ino:
                    self._handle = handle
                    return True
            except BlockingIOError:
                return False
            except FileNotFoundError:  # as before: the next attempt makes a new one
                pass
            finally:
                if not self.held:
                    os.close(handle)

    def release(self) -> None:
        """Unlock, and remove file and folder if nothing else is in it."""
        if self.held:
            if not (self._folder / "state.json").exists():
                (self._folder / "lock").unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # not empty
                    self._folder.rmdir()
            os.close(self._handle)
            self._handle = -1


_held: set[GpuClaim] = set()


def _at_end(claim: GpuClaim) -> None:
    """Release the claim when the interpreter ends, and on signals that the program does not handle itself."""
    _held.add(claim)
    atexit.register(claim.release)
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Python's SIGINT is an exception already; a handler of the application is its own business.
        with contextlib.suppress(ValueError):  # not in the main thread
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _release_and_die)


def _release_and_die(number: int, frame: FrameType | None) -> None:
    for claim in tuple(_held):
        with contextlib.suppress(RappError):
            claim.release()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
