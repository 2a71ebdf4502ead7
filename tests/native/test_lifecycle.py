"""Contexts, streams, threads and processes that come and go; captures; errors of the driver."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from quota_harness import busy_ns, read_log

from rapp.runtime.quota import QuotaBlock, default_folder

Scenario = Callable[..., Any]


def test_captured_launches_are_left_alone(scenario: Scenario, block: QuotaBlock) -> None:
    block.quota_pct = 0.1  # any gated launch would wait for a very long time
    assert scenario("captured_only", block) == {"failed": 0}
    assert block.statistics.launches == 0
    assert block.statistics.waits == 0


def test_the_gate_does_not_break_the_capture_of_others(scenario: Scenario, block: QuotaBlock) -> None:
    block.quota_pct = 90
    found = scenario("capture", block)
    assert found["nodes"] == 100, "kernels alone are in the graph, and none of the gate's events"
    assert found["graph_ms"] == pytest.approx(100, abs=0.1)


def test_an_implicit_capture_conflict_is_the_drivers_to_report(scenario: Scenario, block: QuotaBlock) -> None:
    assert scenario("legacy_during_capture", block) == {"launch": 906}
    assert block.statistics.launches == 1


@pytest.mark.parametrize("serial", ["0", "1"])
@pytest.mark.parametrize(
    "name",
    [
        "contexts",
        "stream_of_another_context",
        "short_streams",
        "short_threads",
        "waits_of_others",
        "unseen_waits",
    ],
)
def test_device_time_is_charged_once(scenario: Scenario, block: QuotaBlock, name: str, serial: str) -> None:
    block.quota_pct = 100
    with tempfile.NamedTemporaryFile(dir=default_folder()) as log:
        scenario(name, block, variables={"RAPP_STUB_SERIAL": serial, "RAPP_STUB_LOG": log.name})
        busy = read_log(Path(log.name))
    busy_ms = busy_ns(busy, int(busy.min()), int(busy.max())) / 1e6
    assert block.statistics.launches == len(busy)
    # A group begins with its start event, a little before its first launch; on a busy machine not so little.
    assert 0.8 * busy_ms <= block.statistics.used_ms <= 1.4 * busy_ms


def test_errors_of_the_driver_pass(scenario: Scenario, block: QuotaBlock) -> None:
    assert scenario("errors", block) == {"nothing": 400, "launches": [0, 0], "synchronized": 0}
    assert block.statistics.launches == 2


def test_a_failed_launch_is_not_counted(scenario: Scenario, block: QuotaBlock) -> None:
    found = scenario("errors", block, variables={"RAPP_STUB_FAIL": "cuLaunchKernel=719"})
    assert found == {"nothing": 719, "launches": [719, 719], "synchronized": 0}
    assert (block.statistics.launches, block.statistics.used_ms) == (0, 0)


@pytest.mark.parametrize(
    ("fails", "says"),
    [
        ("cuEventCreate=2", "no event to measure with (CUresult 2): the launch passes without a quota"),
        ("cuEventRecord=700", "device time cannot be measured (CUresult 700): expected times are charged"),
        (
            "cuEventElapsedTime=700",
            "device time cannot be measured (CUresult 700): expected times are charged",
        ),
    ],
)
def test_the_program_goes_on_where_measuring_fails(
    scenario: Scenario, block: QuotaBlock, fails: str, says: str
) -> None:
    found = scenario("errors", block, variables={"RAPP_STUB_FAIL": fails}, says=says)
    assert found["launches"] == [0, 0]


def test_fork(scenario: Scenario, block: QuotaBlock) -> None:
    assert scenario("forks", block) == {"failed": 0}
