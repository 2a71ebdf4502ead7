"""A server of its own for a trial: `rapp serve` in a process, its CPU time, and its end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rapp.errors import RappError
from scaler.backends.local import Local
from scaler.core.observation import InstanceView, Phase
from scaler.serving.spawned import spawned

START_S = 120.0
"""Time for its first instances to be ready."""

POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class TrialServer:
    """A server that listens.

    Args:
        url: where. token_file: of its admin interface. pid: of the gateway's process.
    """

    url: str
    token_file: Path
    pid: int

    def backend(self) -> Local:
        """A new reader of it."""
        return Local.at(self.url, self.token_file)

    def wait_ready(self) -> dict[str, float]:
        """Wait for its first instances, if it has any; by function, the longest that one took to start, s.

        Raises:
            RappError: an instance does not start in time.
        """
        backend, end_s = self.backend(), time.monotonic() + START_S
        began: dict[str, float] = {}
        took: dict[str, float] = {}
        while True:
            seen = backend.observe()
            for one in seen.instances:
                _note(one, began, took)
            if all(one.phase == Phase.READY for one in seen.instances):
                backend.close()
                return took
            if time.monotonic() > end_s:
                raise RappError(f"{self.url}: its instances are not ready after {START_S:g} s: see serve.log")
            time.sleep(POLL_S)

    def gateway_cpu_s(self) -> float:
        """CPU time of the gateway's process so far, s; its workers are others. NaN where that is not told."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return float("nan")
        # utime and stime, proc(5).
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(functions_file: Path, folder: Path) -> Iterator[TrialServer]:
    """Run `rapp serve` on this machine's CPU while the block runs; its log is serve.log in the folder.

    Raises:
        RappError: it ends instead of listening, or does not listen in time.
    """
    with spawned(functions_file, folder) as server:
        yield TrialServer(server.url, server.token_file, server.process.pid)


def _note(one: InstanceView, began: dict[str, float], took: dict[str, float]) -> None:
    if one.phase == Phase.STARTING:
        began[one.id] = one.since_s
    elif one.phase == Phase.READY and one.id in began:
        took[one.function] = max(took.get(one.function, 0.0), one.since_s - began.pop(one.id))
