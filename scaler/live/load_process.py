"""What a load needs of its process: open files, an event loop, and no pauses for garbage."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rapp.errors import ConfigError

OTHER_FILES = 256
"""That a process may have open besides its connections."""


def allow_files(connections: int) -> None:
    """Let this process have so many connections: the usual limit of open files is 1,024.

    Raises:
        ConfigError: the system does not allow them.
    """
    try:
        import resource
    except ModuleNotFoundError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigError(
            f"connections is {connections}: the system does not allow so many, this process may open {hard}"
            " files (`ulimit -Hn`)"
        )
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    except (ValueError, OSError) as error:  # the kernel has a limit of its own
        raise ConfigError(
            f"connections is {connections}: the system does not allow so many ({error})"
        ) from error


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Of uvloop, where there is one."""
    try:
        import uvloop
    except ModuleNotFoundError:  # there is none for Windows; asyncio's own needs twice the CPU
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


@contextmanager
def without_collection() -> Iterator[None]:
    """Without garbage collection, whose pauses of some ms would be taken for the server's."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
