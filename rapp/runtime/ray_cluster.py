"""Joining a Ray cluster, with errors that say what to do."""

from __future__ import annotations

import socket
from types import ModuleType

from rapp.errors import MissingExtraError, RappError

REACH_TIMEOUT_S = 5.0
"""Time to reach the head of the cluster."""


def join(address: str) -> tuple[ModuleType, bool]:
    """Connect this process to a Ray cluster, unless it is connected.

    Args:
        address: `auto`, HOST:PORT or ray://HOST:PORT.

    Returns:
        The module `ray`, and whether the connection was made here: who made it ends it.

    Raises:
        MissingExtraError: Ray is not installed.
        RappError: there is no such cluster.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingExtraError("Ray", "ray") from error
    if ray.is_initialized():
        return ray, False
    _check_reachable(address)
    try:
        ray.init(address=address, logging_level="ERROR", log_to_driver=False, configure_logging=True)
    except Exception as error:  # ConnectionError, ValueError, RuntimeError of another version, ...
        reason = " ".join(str(error).split())[:200]
        raise RappError(
            f"--ray {address}: no Ray cluster can be joined there ({reason}): start one with"
            " `ray start --head`, or name the address of its head"
        ) from error
    return ray, True


def outcome_behind(error: BaseException) -> RappError | None:
    """The expected outcome behind an error of Ray, such as a device that an actor could not open."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, RappError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    return None


def _check_reachable(address: str) -> None:
    """Raise RappError if nobody listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=REACH_TIMEOUT_S).close()
    except OSError as error:
        raise RappError(
            f"--ray {address}: nobody answers there ({error.strerror or error}): start a cluster with"
            " `ray start --head`, or name the address of its head"
        ) from error
