"""The gate on this machine's own clock, which may be busy, and across processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rapp.runtime.gate import QuotaGate
from rapp.runtime.quota import QuotaBlock

WINDOW_MS = 40.0

Setter = tuple[QuotaBlock, "subprocess.Popen[str]"]


@pytest.mark.parametrize("quota_pct", [20.0, 50.0, 80.0])
def test_the_share_on_a_real_clock(quota_pct: float) -> None:
    with QuotaBlock.anonymous(quota_pct) as block:
        gate = QuotaGate(block)
        gate.charge(quota_pct / 100 * WINDOW_MS)
        begun_s = time.monotonic()
        while time.monotonic() < begun_s + 2:
            gate.run(lambda: time.sleep(0.005))
        elapsed_ms = 1e3 * (time.monotonic() - begun_s)
        share_pct = 100 * (block.statistics.used_ms - quota_pct / 100 * WINDOW_MS) / elapsed_ms
    assert share_pct == pytest.approx(quota_pct, abs=2.5)


def test_threads_share_one_quota_on_a_real_clock() -> None:
    with QuotaBlock.anonymous(30) as block:
        gate = QuotaGate(block)
        gate.charge(0.3 * WINDOW_MS)
        end_s = time.monotonic() + 1
        runs = [0] * 4

        def serve(number: int) -> None:
            while time.monotonic() < end_s:
                gate.run(lambda: time.sleep(0.002), lambda: 2.0)
                runs[number] += 1

        begun_s = time.monotonic()
        threads = [threading.Thread(target=serve, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed_ms = 1e3 * (time.monotonic() - begun_s)
    # All was repaid when the last result was handed out.
    assert 2 * sum(runs) / elapsed_ms == pytest.approx(0.3, abs=0.025)
    assert min(runs) >= max(runs) / 4


def test_close_wakes_a_waiting_thread_on_a_real_clock() -> None:
    with QuotaBlock.anonymous(0.1) as block:
        gate = QuotaGate(block)
        gate.charge(1000)
        thread = threading.Thread(target=gate.wait)
        thread.start()
        time.sleep(0.02)
        assert thread.is_alive()
        gate.close()
        thread.join(timeout=2)
        assert not thread.is_alive()


SETTER = """
import sys, time
from rapp.runtime.quota import QuotaBlock
with QuotaBlock.open(sys.argv[1]) as block:
    print("ready", flush=True)
    for _ in sys.stdin:
        time.sleep(0.01)
        block.quota_pct = 100
        print(time.monotonic_ns(), flush=True)
"""


@pytest.fixture
def setter(tmp_path: Path) -> Iterator[Setter]:
    """A block, and another process that raises its quota 10 ms after each line that it is sent."""
    with (
        QuotaBlock.create(tmp_path / "block") as block,
        subprocess.Popen(
            [sys.executable, "-c", SETTER, str(block.path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        yield block, process
        process.stdin.close()


def test_another_process_changes_the_quota_and_the_waiter_wakes(setter: Setter) -> None:
    block, process = setter
    assert process.stdin is not None
    assert process.stdout is not None
    gate = QuotaGate(block)
    delays_ms = []
    for _ in range(20):
        assert gate.wait(timeout_ms=2000)
        block.quota_pct = 0.1
        assert gate.wait(timeout_ms=0)
        gate.charge(0.5)  # at 0.1 % half a second, at 100 % half a millisecond
        process.stdin.write("\n")
        process.stdin.flush()
        assert gate.wait(timeout_ms=2000)
        woken_ns = time.monotonic_ns()
        delays_ms.append((woken_ns - int(process.stdout.readline())) / 1e6)
    assert statistics.median(delays_ms) < 8
