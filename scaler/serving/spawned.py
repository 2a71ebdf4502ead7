"""`rapp serve` in a process of its own, for whoever needs a server for a while."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rapp.errors import RappError

START_S = 120.0
"""To prepare its networks, and listen."""
_END_S = 60.0
"""For its requests and workers to end, before it is killed."""
_POLL_S = 0.02

_SERVING_AT = re.compile(r"serving at (http://\S+);")


@dataclass(frozen=True, slots=True)
class Spawned:
    """A server that listens.

    Args:
        url: where. token_file: of its admin interface. log: what it prints. process: the gateway's.
    """

    url: str
    token_file: Path
    log: Path
    process: subprocess.Popen[bytes]


@contextmanager
def spawned(
    functions_file: Path, folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[Spawned]:
    """Run `rapp serve` while the block runs, on any free port of the loopback.

    Args:
        folder: where its token and its log, serve.log, go. arguments: more of `rapp serve`.
        environment: variables beside those of this process.

    Raises:
        RappError: it ends instead of listening, or does not listen in time.
    """
    token_file, log = folder / "token", folder / "serve.log"
    # The console script may not be on PATH.
    command = [sys.executable, "-c", "from rapp.cli.main import main; main()", "serve", str(functions_file)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", "0", "--token-file", str(token_file), *arguments],
            stdout=output,
            stderr=output,
            # In a group of its own: Ctrl-C is for this process, which ends it.
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200", **(environment or {})},
        )
    try:
        yield Spawned(_url(process, log), token_file, log, process)
    finally:
        _end(process)


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    """Read from what it prints when it listens."""
    end_s = time.monotonic() + START_S
    while True:
        ended = process.poll() is not None
        text = log.read_text(errors="replace")
        found = _SERVING_AT.search(text)
        if found:
            return found[1]
        if ended:
            last = text.strip().splitlines()[-1] if text.strip() else f"exit code {process.returncode}"
            raise RappError(f"rapp serve ended: {last.removeprefix('error: ')}")
        if time.monotonic() > end_s:
            raise RappError(f"rapp serve does not listen after {START_S:g} s: see {log}")
        time.sleep(_POLL_S)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
    if process.poll() is None:
        process.kill()
        process.wait()
