"""What counts as a disturbance, and what this machine is called."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from profiler.devices.cpu_load import OTHER_PROCESS, STOLEN, BlockLoad, LoadMeter, disturbance
from profiler.devices.host import (
    available_memory_mib,
    busy_and_stolen_ticks,
    cpu_name,
    machine_identity,
    peak_memory_mib,
)

QUIET = BlockLoad(
    n_cores=1,
    elapsed_ms=2000.0,
    running_ms=1000.0,
    exposed_ms=1000.0,
    exposed_cpu_ms=1000.0,
    cpu_ms=1000.0,
    busy_ms=1000.0,
    stolen_ms=0.0,
)
QUIET_PAIR = replace(QUIET, n_cores=2, exposed_cpu_ms=1600.0, cpu_ms=1600.0, busy_ms=1600.0)


@pytest.mark.parametrize(
    ("load", "cause"),
    [
        (QUIET, None),
        (replace(QUIET, exposed_cpu_ms=960.0), None),
        (replace(QUIET, exposed_cpu_ms=940.0), OTHER_PROCESS),
        # On one core the runs themselves tell, whatever the kernel counts.
        (replace(QUIET, exposed_cpu_ms=940.0, busy_ms=None, stolen_ms=None), OTHER_PROCESS),
        (replace(QUIET, busy_ms=2000.0), None),
        # All results were held by the quota: nobody was harmed.
        (replace(QUIET, exposed_ms=0.0, exposed_cpu_ms=0.0, busy_ms=2000.0), None),
        (replace(QUIET, exposed_cpu_ms=800.0, stolen_ms=200.0), STOLEN),
        (replace(QUIET, stolen_ms=60.0), None),
        # Cores that wait for each other are no disturbance.
        (QUIET_PAIR, None),
        # Others may have had all of the 2 x 1000 ms of pauses, and 40 ms of ticks are uncertain.
        (replace(QUIET_PAIR, busy_ms=1600.0 + 2000.0 + 40.0 + 99.0), None),
        (replace(QUIET_PAIR, busy_ms=1600.0 + 2000.0 + 40.0 + 101.0), OTHER_PROCESS),
        (replace(QUIET_PAIR, busy_ms=1600.0 + 2000.0 + 40.0 + 150.0, exposed_ms=500.0), None),
        (replace(QUIET_PAIR, busy_ms=None), None),
        (replace(QUIET, running_ms=0.0, exposed_ms=0.0, exposed_cpu_ms=0.0), None),
    ],
)
def test_more_than_a_twentieth_of_the_time_is_a_disturbance(load: BlockLoad, cause: str | None) -> None:
    assert disturbance(load) == cause


def test_runs_that_the_quota_held_are_not_exposed() -> None:
    meter = LoadMeter([min(os.sched_getaffinity(0))])
    meter.add_run(running_ms=10.0, cpu_ms=9.0, wall_ms=10.05)
    meter.add_run(running_ms=10.0, cpu_ms=5.0, wall_ms=50.0)
    load = meter.end()
    assert (load.running_ms, load.exposed_ms, load.exposed_cpu_ms) == (20, 10, 9)
    assert load.busy_ms is not None
    assert load.stolen_ms is not None


def test_the_name_of_the_cpu(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nmodel name\t: Some  CPU @ 2 GHz\n")
    assert cpu_name(tmp_path) == "Some CPU @ 2 GHz"
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nBogoMIPS\t: 50\n")
    assert cpu_name(tmp_path)


def test_the_identity_is_stable_and_gives_nothing_away(tmp_path: Path) -> None:
    assert machine_identity(tmp_path) is None
    (tmp_path / "etc").mkdir()
    number = "0123456789abcdef0123456789abcdef"
    (tmp_path / "etc/machine-id").write_text(number + "\n")
    identity = machine_identity(tmp_path)
    assert identity is not None
    assert identity == machine_identity(tmp_path)
    assert not any(number[start : start + 4] in identity for start in range(29))
    (tmp_path / "etc/machine-id").write_text(number[::-1])
    assert machine_identity(tmp_path) != identity


def test_memory_is_the_least_of_what_is_free_and_what_is_allowed(tmp_path: Path) -> None:
    assert available_memory_mib(tmp_path) is None
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    4194304 kB\n")
    assert available_memory_mib(tmp_path) == 4096
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "proc/self/mountinfo").write_text("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(str(1 << 30))
    assert available_memory_mib(tmp_path) == 1024


def test_peak_memory_of_this_process_grows_with_what_it_touches() -> None:
    before = peak_memory_mib()
    assert before is not None
    touched = bytearray(os.urandom(1)) * (200 << 20)
    after = peak_memory_mib()
    assert after is not None
    assert after >= 200
    assert after >= before
    del touched


def test_ticks_are_summed_over_the_cores_asked_for(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    lines = ["cpu  9 9 9 9 9 9 9 9 0 0"]
    lines += [f"cpu{core} {core + 1} 2 3 400 50 6 7 {core} 0 0" for core in range(12)]
    (tmp_path / "proc/stat").write_text("\n".join([*lines, "intr 5"]))
    assert busy_and_stolen_ticks([1], tmp_path) == (2 + 2 + 3 + 6 + 7, 1)
    assert busy_and_stolen_ticks([1, 11], tmp_path) == (20 + 30, 12)
    assert busy_and_stolen_ticks([12], tmp_path) is None
