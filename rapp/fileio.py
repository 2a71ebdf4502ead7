"""Files and folders that appear whole or not at all.

Both context managers yield a temporary name beside the target; what is written there takes the target's
name in one step at the end. A process that is killed in between leaves the old target as it was, and a
hidden `.<target>.*.part` beside it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rapp.errors import RappError


@contextlib.contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it replaces `target`, on failure it goes.

    A symbolic link stays, and what it points to is replaced. Missing parent folders are made.

    Raises:
        RappError: the folder cannot be written, the disk is full, or `target` is no regular file.
    """
    shown, target = target, Path(os.path.realpath(target))
    with _reported(shown, Path(target.anchor)):
        if target.exists() and not target.is_file():
            # Renaming onto /dev/null would take the device away from everyone.
            raise RappError(f"{shown}: cannot be written: it exists and is not a regular file")
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        os.close(handle)
    temporary = Path(name)
    try:
        with _reported(shown, target, temporary):
            yield temporary
            _sync(temporary)
            os.chmod(temporary, 0o666 & ~_umask())  # noqa: PTH101  mkstemp makes 0600
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(target: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target`; on success it takes the place of `target`, contents and all.

    On Linux the two folders change places in one step, so that `target` is whole at every moment. Where
    the system cannot, `target` is absent for the moment between two renames.

    Raises:
        RappError: the parent cannot be written, the disk is full, or `target` is no folder.
    """
    shown, target = target, Path(os.path.realpath(target))
    with _reported(shown, Path(target.anchor)):
        if target.exists() and not target.is_dir():
            raise RappError(f"{shown}: cannot be written: it exists and is not a folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    try:
        with _reported(shown, target, temporary):
            yield temporary
            for path in temporary.rglob("*"):
                if path.is_file():
                    _sync(path)
            temporary.chmod(0o777 & ~_umask())  # mkdtemp makes 0700
            if not target.exists():
                temporary.replace(target)
            elif not _exchange(temporary, target):
                _replace_in_two_steps(temporary, target)
    finally:
        # On success this is the old folder under the temporary name.
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _reported(shown: str | Path, *ours: Path) -> Iterator[None]:
    """Turn an OSError of writing into one line; one that names a file outside `ours` is the caller's own."""
    try:
        yield
    except OSError as error:
        name = error.filename
        if isinstance(name, str | Path) and not any(Path(name).is_relative_to(path) for path in ours):
            raise
        raise RappError(f"{shown}: cannot be written: {error.strerror or error}") from error


def _exchange(first: Path, second: Path) -> bool:
    """Let two paths change places in one step; False where the system or the filesystem cannot."""
    # renameat2(2), in glibc since 2.28. The values are those of <linux/fcntl.h> and <linux/fs.h>.
    at_fdcwd, rename_exchange = -100, 2
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # no such call, no such libc, Windows
        return False
    if renameat2(at_fdcwd, os.fsencode(first), at_fdcwd, os.fsencode(second), rename_exchange) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(code, os.strerror(code), str(second))


def _replace_in_two_steps(temporary: Path, target: Path) -> None:
    aside = temporary.with_suffix(".old")
    target.replace(aside)
    try:
        temporary.replace(target)
    except BaseException:
        aside.replace(target)
        raise
    aside.replace(temporary)


def _sync(path: Path) -> None:
    with path.open("rb") as written:
        os.fsync(written.fileno())


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
