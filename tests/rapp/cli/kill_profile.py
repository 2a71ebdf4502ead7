"""Run by test_profile_ends.py: a campaign that is killed again and again, each time in a process of its own.

    python kill_profile.py SEED KILLS -- ARGUMENTS OF rapp...

Forks a process that runs the command and kills it with SIGKILL, KILLS times: a random time after it began, or
after the journal got a random number of points. Prints for each kill how many bytes the journal had. To fork
what has imported everything saves seconds.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import signal
import sys
import time
from pathlib import Path

from rapp.cli.main import main as rapp
from rapp.profiles import ProfileTable

# What the command imports when it runs; pandas is pyarrow's.
for module in ("rapp.cli.profile_run", "profiler.devices.replay", "pyarrow.parquet", "pandas"):
    with contextlib.suppress(ImportError):
        importlib.import_module(module)


def child(arguments: list[str]) -> int:
    pid = os.fork()
    if pid == 0:
        sys.argv = ["rapp", *arguments]
        try:
            rapp()
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    return pid


def size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def main() -> None:
    seed, kills, arguments = int(sys.argv[1]), int(sys.argv[2]), sys.argv[4:]
    out = Path(arguments[arguments.index("--out") + 1])
    journal = out.with_name(out.name + ".journal")
    moments = random.Random(seed)
    for _ in range(kills):
        before, points, pause_s = size(journal), moments.randint(0, 3), moments.uniform(0, 0.05)
        pid = child(arguments)
        until = time.monotonic() + 60
        # A point is a line of some 500 bytes.
        while size(journal) < before + 400 * points and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(pause_s)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), "the campaign had ended before it was killed"
        assert not out.exists() or len(ProfileTable.read(out)), "a table is whole or not there"
        print(size(journal))


if __name__ == "__main__":
    main()
