"""Is the time quota of the device `cpu` the share of CPU time that it says? Prints a table.

    python scripts/check_cpu_quota.py [NET.onnx] [--seconds 3] [--repeats 3]

Runs a network on one core under quotas of 10 to 100 % and compares the CPU time of its whole process, as the
kernel counts it, with the time that passed. The quota is a limit: where other load keeps the process from its
share, the share is lower and marked with a star: run it on an idle machine. The exit code is 1 if the median
of the repeats is more than 3 points off at some quota.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

from profiler.device import NetworkFile
from profiler.devices.cpu import CpuDevice
from profiler.worker import WorkerSession
from rapp.runtime.cores import usable_cores

WORST_ERROR_POINTS = 3.0
QUOTAS_PCT = range(10, 101, 10)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("network", nargs="?", type=Path, help="ONNX file; one of the onnx package by default")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a repeat")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    path = options.network or light_network()
    worst, busy = 0.0, False
    print(f"{path.name} on one core: CPU time of the process over time, %\n")
    print(f"{'quota':>6} {'share':>8} {'error':>7}  repeats")
    with (
        CpuDevice(cores=usable_cores()[:1]) as device,
        device.open(NetworkFile(path.stem, path), 100) as session,
    ):
        assert isinstance(session, WorkerSession)
        session.prepare(1)
        for quota_pct in QUOTAS_PCT:
            session.set_quota(quota_pct)
            repeats = [share_pct(session, options.seconds) for _ in range(options.repeats)]
            share = statistics.median(one for one, _ in repeats)
            worst = max(worst, abs(share - quota_pct))
            each = " ".join(f"{one:.1f}{'*' * disturbed}" for one, disturbed in repeats)
            busy |= any(disturbed for _, disturbed in repeats)
            print(f"{quota_pct:>6} {share:>8.1f} {share - quota_pct:>+7.1f}  {each}", flush=True)
    print(f"\nlargest error {worst:.1f} points, of {WORST_ERROR_POINTS:g} allowed")
    if busy:
        print("* other processes took more than 5 % of the core's time: repeat it on an idle machine")
    return int(worst > WORST_ERROR_POINTS)


def share_pct(session: WorkerSession, seconds: float) -> tuple[float, bool]:
    """CPU time of the worker over the time that passed, %, once the credit of the first window is used up;
    and whether others kept it from its share."""
    run_ms = statistics.median(session.run(10).wall_ms)
    count = max(1, round(seconds * 1e3 / run_ms))
    used_s, begun_s = cpu_s(session.pid), time.monotonic()
    block = session.run(count)
    share = 100 * (cpu_s(session.pid) - used_s) / (time.monotonic() - begun_s)
    return share, block.disturbance is not None


def cpu_s(pid: int) -> float:
    """CPU time of a process, s; Linux makes the id of its clock of its number (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


def light_network() -> Path:
    """A small network that ships with the onnx package."""
    import onnx

    return Path(onnx.__file__).parent / "backend/test/data/light/light_squeezenet.onnx"


if __name__ == "__main__":
    sys.exit(main())
