"""Who may compute on the GPU beside a worker, and whose memory counts; against an imitation of NVML."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "fakes"))

from gpu_fixtures import UUID, FakeGpus, fake_gpus

from profiler.devices.gpu_watch import GpuWatch
from rapp.runtime.mps import MpsControl

__all__ = ["fake_gpus"]

US = str(os.getpid())


class Daemon(MpsControl):
    """An MPS daemon with this process, a second session, and a server."""

    def server_pids(self) -> frozenset[int]:
        return frozenset({21})

    def client_pids(self) -> frozenset[int]:
        return frozenset({os.getpid(), 22})


@pytest.fixture
def watch(fake_gpus: FakeGpus) -> Iterator[GpuWatch]:
    fake_gpus.set(used_mib=1000)
    with GpuWatch(UUID) as watch:
        yield watch


def disturbed_by(watch: GpuWatch, gpus: FakeGpus, **processes: int) -> str | None:
    before = watch.state()
    gpus.set(processes={pid.removeprefix("p"): mib for pid, mib in processes.items()})
    return watch.disturbance(before)


def test_a_session_that_comes_later_is_known_and_a_stranger_is_not(
    watch: GpuWatch, fake_gpus: FakeGpus
) -> None:
    fake_gpus.set(processes={US: 500})
    watch.context_made(Daemon(Path("p"), Path("l"), "control"))
    assert disturbed_by(watch, fake_gpus, **{"p" + US: 500, "p21": 30, "p22": 500}) is None
    assert disturbed_by(watch, fake_gpus, **{"p" + US: 500, "p23": 5}) == "other process: pid 23"


def test_without_mps_this_process_alone_is_known(watch: GpuWatch, fake_gpus: FakeGpus) -> None:
    fake_gpus.set(processes={US: 500, "77": 100})
    watch.context_made(None)
    assert disturbed_by(watch, fake_gpus, **{"p" + US: 500}) == "other process: pid 77"


def test_where_processes_are_numbered_otherwise_those_of_the_start_are_known(
    watch: GpuWatch, fake_gpus: FakeGpus
) -> None:
    fake_gpus.set(processes={"4001": 500, "4002": 30})
    watch.context_made(None)
    assert disturbed_by(watch, fake_gpus, p4001=500) is None
    assert disturbed_by(watch, fake_gpus, p4001=500, p4003=1) == "other process: pid 4003"


def test_memory_is_what_the_driver_counts_for_this_process(watch: GpuWatch, fake_gpus: FakeGpus) -> None:
    assert watch.peak_memory_mib is None
    fake_gpus.set(processes={US: 500, "77": 9000}, used_mib=9900)
    watch.context_made(None)
    assert watch.peak_memory_mib == 500
    fake_gpus.set(processes={US: 450})
    watch.note_memory()
    assert watch.peak_memory_mib == 500


def test_or_what_more_is_used_than_before(watch: GpuWatch, fake_gpus: FakeGpus) -> None:
    fake_gpus.set(used_mib=1400)
    watch.context_made(None)
    fake_gpus.set(used_mib=1700)
    watch.note_memory()
    assert watch.peak_memory_mib == 700
