"""`WorkerProcess`: a worker as the gateway holds it; all calls are on the event loop's thread."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from scaler.serving.child import child_environment

PACKET_BYTES = 1 << 16
_REAP_S = 0.01


class WorkerProcess:
    """A child that was started just now.

    Args:
        start: the first packet; `arena` in it is a descriptor, which the child inherits.
        environment: variables beside those of this process.
        on_message: called with each packet of the child.
        on_end: called once when the child is lost or has ended, with how, in words.
    """

    def __init__(
        self,
        start: Mapping[str, Any],
        environment: Mapping[str, str],
        on_message: Callable[[dict[str, Any]], None],
        on_end: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_message, self._on_end = on_message, on_end
        self._ended = False
        # Packets: a message arrives whole or not at all, and needs no framing.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._socket = ours
        command = [
            sys.executable, "-P", "-m", "scaler.serving.worker_main", str(theirs.fileno()), str(os.getpid()),
        ]  # fmt: skip
        with theirs:
            self._process = subprocess.Popen(
                command,
                env=child_environment(environment),
                pass_fds=[theirs.fileno(), start["arena"]],
                stdin=subprocess.DEVNULL,
                # A group of its own: Ctrl-C is for the gateway.
                process_group=0,
            )
        # From the first: importing a runtime would disturb the partitions of others.
        if cores := start["device"].get("cores"):
            with suppress(OSError):  # the child says so when it cannot have them itself
                os.sched_setaffinity(self._process.pid, cores)
        self._loop.add_reader(ours.fileno(), self._read)
        self.send(start)

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._process.pid

    def send(self, message: Mapping[str, Any]) -> None:
        """Write a packet; to a child that is gone, nothing: `on_end` tells."""
        with suppress(OSError):
            self._socket.send(orjson.dumps(message))

    def cpu_seconds(self) -> float | None:
        """CPU time that the child took, s; None: it is gone."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        ticks: int = os.sysconf("SC_CLK_TCK")
        return (int(fields[11]) + int(fields[12])) / ticks

    def close(self) -> None:
        """Let it end: it waits for a batch, and reads the end of the stream."""
        if not self._ended:
            self._socket.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """End it by force; `on_end` follows."""
        if self._process.returncode is None:
            # Not reaped before, so that its number cannot belong to another process by now.
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)

    def _read(self) -> None:
        try:
            packet = self._socket.recv(PACKET_BYTES)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if packet:
            self._on_message(orjson.loads(packet))
            return
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._ended = True
        # One that closed its end without ending has nothing more to say.
        self.kill()
        self._reap()

    def _reap(self) -> None:
        code = self._process.poll()
        if code is None:
            self._loop.call_later(_REAP_S, self._reap)
            return
        self._on_end(_how(code))


def _how(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
