"""The law on the simulated device: shares, latencies, streams, threads, processes, a new quota, the cost.

Others may use the machine meanwhile, so a figure may be taken again: a wrong law is wrong each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest
from quota_harness import (
    WINDOW_MS,
    WORKLOADS,
    Built,
    Measured,
    busy_ns,
    closed_loop,
    launch_ns,
    measure,
    quota,
    reactions_ms,
    result,
    started,
)

from rapp.runtime.quota import QuotaBlock

SMALL, LARGE, GRAPH = WORKLOADS
SKIP_S, LENGTH_S = 0.25, 0.7  # the bucket begins full: at 80 %, that is used up after 0.16 s
ERROR_GOAL = 0.025


def in_one_of(attempts: int, figure: Callable[[], float], limit: float) -> None:
    """Assert that the figure is within the limit in one of so many attempts."""
    found = []
    for _ in range(attempts):
        found.append(figure())
        if found[-1] <= limit:
            return
    raise AssertionError(f"{found} and not one within {limit}")


def share_error(built: Built, name: str, quota_pct: float) -> float:
    arguments, _ = WORKLOADS[name]
    with quota(quota_pct) as block:
        done = measure(built, block, *arguments, "--seconds", str(SKIP_S + LENGTH_S + 0.05))
    return abs(done.share(SKIP_S, LENGTH_S) - quota_pct / 100)


@pytest.mark.parametrize("name", WORKLOADS)
def test_share(built: Built, name: str) -> None:
    def largest() -> float:
        with ThreadPoolExecutor() as pool:  # they sleep for most of the time
            return max(pool.map(lambda quota_pct: share_error(built, name, quota_pct), (10, 50, 80)))

    in_one_of(4, largest, ERROR_GOAL)


def test_lead_keeps_the_device_busy(built: Built) -> None:
    """At quota 100 % the gate takes next to nothing from what the program reaches without it."""

    def lost() -> float:
        arguments = (*WORKLOADS[SMALL][0], "--seconds", "0.5")
        alone = measure(built, None, *arguments).share(0.1, 0.35)
        with quota(100) as block:
            return alone - measure(built, block, *arguments).share(0.1, 0.35)

    in_one_of(4, lost, 0.03)


def test_work_longer_than_the_window_is_let_in_ahead(built: Built) -> None:
    """Graphs of 60 ms at a window of 40 ms and quota 100 %: each is launched before the last has ended."""
    arguments = ("--api", "graph", "--kernels", "60", "--ns", "1000000", "--sync", "none")
    with quota(100) as block:
        busy = measure(built, block, *arguments, "--seconds", "0.8").busy
    assert len(busy) > 8
    assert np.median(busy[1:, 0] - busy[:-1, 1]) == 0, "the device goes from one to the next"


def test_closed_loop(built: Built) -> None:
    def error(case: tuple[str, float, float]) -> float:
        mean_ms, law_ms = closed_loop(built, *case, 0.9)
        return abs(mean_ms / law_ms - 1)

    def largest() -> float:
        cases = [(SMALL, 20.0, 0.0), (SMALL, 50.0, 5.0), (GRAPH, 20.0, 5.0), (GRAPH, 50.0, 0.0)]
        with ThreadPoolExecutor() as pool:
            return max(pool.map(error, cases))

    in_one_of(4, largest, 0.05)


@pytest.mark.parametrize("serial", ["0", "1"])
@pytest.mark.parametrize("several", [("--streams", "2"), ("--threads", "3")])
def test_streams_share_one_quota(built: Built, several: tuple[str, str], serial: str) -> None:
    """Side by side or by turns on the device: the time in which it is busy is what is limited."""

    def error() -> float:
        with quota(40) as block:
            arguments = (*WORKLOADS[SMALL][0], *several, "--seconds", str(SKIP_S + LENGTH_S))
            done = measure(built, block, *arguments, variables={"RAPP_STUB_SERIAL": serial})
        assert done.statistics is not None
        begin, end = int(done.busy.min()), int(done.busy.max())
        assert done.statistics.used_ms >= 0.98 * busy_ns(done.busy, begin, end) / 1e6
        return abs(done.share(SKIP_S, LENGTH_S - 0.1) - 0.4)

    in_one_of(3, error, ERROR_GOAL)


def test_processes_share_one_quota(built: Built) -> None:
    """Each has a device of its own here: the sum of their device times is what is limited."""

    def error() -> float:
        arguments, _ = WORKLOADS[SMALL]
        with quota(60) as block, ExitStack() as both:
            running = [
                both.enter_context(
                    started(built, block, *arguments, "--seconds", str(SKIP_S + LENGTH_S + 0.3))
                )
                for _ in range(2)
            ]
            done: list[Measured] = [result(process, log, block) for process, log in running]
        begin = max(int(one.busy.min()) for one in done) + round(SKIP_S * 1e9)
        shares = [busy_ns(one.busy, begin, begin + 700_000_000) / 7e8 for one in done]
        assert min(shares) > 0.1, "neither starves"
        return abs(sum(shares) - 0.6)

    in_one_of(3, error, ERROR_GOAL)


def test_a_killed_process_leaves_the_quota_to_the_other(built: Built) -> None:
    def error() -> float:
        arguments, _ = WORKLOADS[SMALL]
        with (
            quota(60) as block,
            started(built, block, *arguments, "--seconds", "9") as (killed, _),
            started(built, block, *arguments, "--seconds", "1.3") as (left, log),
        ):
            time.sleep(0.2)
            killed.kill()
            done = result(left, log, block)
        return abs(done.share(0.5, 0.7) - 0.6)

    in_one_of(3, error, ERROR_GOAL)


def test_the_window_bounds_every_stretch(built: Built) -> None:
    """Over any stretch of t, at most quota x (t + window) is used, and one group."""
    arguments, device_ms = WORKLOADS[GRAPH]
    with quota(20) as block:
        done = measure(built, block, *arguments, "--seconds", "1")
    begun, ended = done.busy[:, 0], done.busy[:, 1]
    for first in range(len(begun)):
        for last in range(first, len(begun)):
            used_ms = (last - first + 1) * device_ms
            allowed_ms = 0.2 * ((ended[last] - begun[first]) / 1e6 + WINDOW_MS)
            assert used_ms <= allowed_ms + device_ms


def test_a_new_quota_is_obeyed_soon(built: Built) -> None:
    in_one_of(2, lambda: float(np.median(np.abs(reactions_ms(built, 20, 80, 4)[0]))), 5)


def test_cost_of_a_launch(built: Built) -> None:
    def added(quota_pct: float) -> float:
        return launch_ns(built, quota_pct, repeats=10) - launch_ns(built, None, repeats=10)

    in_one_of(3, lambda: added(0), 100)
    in_one_of(3, lambda: added(100), 2000)


def test_counts(built: Built, block: QuotaBlock) -> None:
    done = measure(built, block, *WORKLOADS[LARGE][0], "--runs", "2", "--seconds", "9")
    assert done.statistics is not None
    assert done.statistics.launches == len(done.busy) == 40
    # Each kernel is longer than a group should be, so it is one.
    assert done.statistics.groups == 40
    assert done.statistics.used_ms == pytest.approx(120, rel=0.05)
    assert done.statistics.waits > 10
    assert 1.2 < done.statistics.max_debt_ms < 12
