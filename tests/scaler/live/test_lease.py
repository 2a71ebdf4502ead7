"""Leases: the contract, files that are damaged, and controllers in processes of their own that are killed."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from live_parts import After, Moved, Told, cluster, core_of

from scaler.backends.fencing import UNFENCED, Fence
from scaler.backends.simulated import Simulated
from scaler.core.decision import Decision
from scaler.core.observation import Observation
from scaler.errors import BackendError
from scaler.live.controller import Controller
from scaler.live.lease import FileLease, Lease
from scaler.live.tick import Happening, Mode
from scaler.testing import LeaseContract

DURATION_S = 5.0
Spawn = Callable[[str], "subprocess.Popen[str]"]


class TestFileLease(LeaseContract):
    @pytest.fixture
    def lease(self, tmp_path: Path) -> Lease:
        self.now_s, self.path = 100.0, tmp_path / "deep" / "lease"
        return self.made()

    def made(self) -> FileLease:
        return FileLease(self.path, DURATION_S, clock=lambda: self.now_s, boot="a")

    def another(self, lease: Lease) -> Lease:
        return self.made()

    def expire(self, lease: Lease) -> None:
        self.now_s += DURATION_S

    def test_a_reboot_frees_it(self, lease: FileLease) -> None:
        assert lease.lead()
        # The other process of after the reboot cannot find the lock of before it.
        lease._let_go()
        self.now_s = 1.0
        after = FileLease(self.path, DURATION_S, clock=lambda: self.now_s, boot="b")
        assert after.lead()

    @pytest.mark.parametrize(
        "text", ["{", '{"version": 9}', "null", "\x00\xff", '{"version": 1, "holder": 3}']
    )
    def test_a_damaged_file_is_free_and_that_is_said(
        self, lease: FileLease, text: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.path.write_text(text)
        with caplog.at_level(logging.WARNING):
            assert lease.lead()
        assert "damaged" in caplog.text
        assert lease.lead()
        assert json.loads(self.path.read_text())["holder"] == lease.holder

    @pytest.mark.parametrize("is_kept", [True, False])
    def test_terms_grow_even_if_the_file_is_lost(self, lease: FileLease, is_kept: bool) -> None:
        other = self.made()
        assert lease.lead()
        term = lease.term
        assert json.loads(self.path.read_text())["term"] == term
        lease.release()
        if not is_kept:
            self.path.unlink()
            time.sleep(0.002)
        assert other.lead()
        assert other.term > term

    def test_a_folder_that_cannot_be_used_is_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(BackendError, match=r"lease .*file/lease: cannot be used: .*--lease"):
            FileLease(tmp_path / "file" / "lease")


def test_a_leader_that_lost_its_lease_while_it_observed_changes_nothing(tmp_path: Path) -> None:
    """Fencing: the lease is asked for right before changes, not only when the tick begins."""
    clock, told = Moved(), Told()
    first = FileLease(tmp_path / "lease", DURATION_S, clock=clock.now_s, boot="a")
    other = FileLease(tmp_path / "lease", DURATION_S, clock=clock.now_s, boot="a")
    applied: list[float] = []

    class Hanging(Simulated):
        def observe(self) -> Observation:
            seen = super().observe()
            if not applied:
                clock.s += DURATION_S + 0.5
                assert other.lead()
            return seen

        def apply(self, decision: Decision, fence: Fence = UNFENCED) -> list[tuple[str, str]]:
            applied.extend(clock.s for _ in decision.actions)
            return super().apply(decision, fence)

    controller = Controller(
        core_of(), Hanging(cluster(), clock.now_s), apply=True, lease=first, reporters=[told], clock=clock
    )
    controller.tick()
    assert told.ticks[0].decision.actions
    assert told.ticks[0].mode == Mode.STANDBY
    assert applied == []
    assert told.happened(Happening.LOST_LEASE)


def test_a_lease_that_cannot_be_asked_for_means_not_to_lead() -> None:
    class Away:
        holder, term, duration_s = "me", 0, DURATION_S

        def lead(self) -> bool:
            raise BackendError("nobody answers")

        def release(self) -> None:
            raise AssertionError("it never led")

    clock, told = Moved(), Told()
    backend = Simulated(cluster(), clock.now_s)
    Controller(core_of(), backend, apply=True, lease=Away(), reporters=[told], clock=clock).run(After(5))
    assert {tick.mode for tick in told.ticks} == {Mode.STANDBY}
    assert told.happened(Happening.NO_LEASE)[0] == "nobody answers"
    assert backend.cluster.instances == {}


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    """`spawn(name)`: a controller in a process of its own, once it runs."""
    running: list[subprocess.Popen[str]] = []
    script = Path(__file__).with_name("lead_until_killed.py")

    def made(name: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, script, tmp_path / "lease", tmp_path / "log", name, "4", "0.1"],
            stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield made
    for process in running:
        process.kill()
        process.wait()


def test_of_two_processes_one_leads_and_the_other_goes_on_when_it_is_killed(
    spawn: Spawn, tmp_path: Path
) -> None:
    first = spawn("a")
    _until(tmp_path, lambda lines: len(lines) >= 3)
    second = spawn("b")
    seen = len(_applied(tmp_path))
    _until(tmp_path, lambda lines: len(lines) >= seen + 5)
    assert {name for _, name in _applied(tmp_path)} == {"a"}
    first.send_signal(signal.SIGKILL)
    first.wait()
    killed_s = time.monotonic()
    _until(tmp_path, lambda lines: lines[-1][1] == "b")
    # Its lock went with it: nobody waits for the lease to run out.
    assert next(at for at, name in _applied(tmp_path) if name == "b") - killed_s < 3.5
    third = spawn("c")
    second.terminate()
    assert second.wait(10) == 0
    _until(tmp_path, lambda lines: lines[-1][1] == "c")
    # A leader that hangs is left behind when its time is over, and changes nothing when it wakes up.
    third.send_signal(signal.SIGSTOP)
    spawn("d")
    _until(tmp_path, lambda lines: lines[-1][1] == "d")
    woken = len(_applied(tmp_path))
    third.send_signal(signal.SIGCONT)
    _until(tmp_path, lambda lines: len(lines) >= woken + 5)
    names = [name for _, name in _applied(tmp_path)]
    # One stopped between asking for the lease and making its changes makes those, and no others.
    assert names[woken:].count("c") <= 1
    assert names[:woken] == sorted(names[:woken]), "two led at once"


def _applied(folder: Path) -> list[tuple[float, str]]:
    lines = (line.split() for line in (folder / "log").read_text().splitlines() if line.count(" ") == 2)
    return [(float(at), name) for at, name, _ in lines]


def _until(folder: Path, holds: Callable[[list[tuple[float, str]]], bool]) -> None:
    end_s = time.monotonic() + 30
    while True:
        lines = _applied(folder) if (folder / "log").exists() else []
        if lines and holds(lines):
            return
        assert time.monotonic() < end_s, lines[-5:]
        time.sleep(0.02)
