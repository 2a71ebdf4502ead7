"""The private MPS daemon, against a program that imitates NVIDIA's: it starts, serves, ends, never stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rapp.runtime import mps
from rapp.runtime.claim import GpuClaim
from rapp.runtime.leftovers import Leftover, clean_up
from rapp.runtime.mps import MpsControl, MpsDaemon, MpsError
from rapp.runtime.processes import processes_with

UUID = "GPU-52615050-2073-7475-6220-475055203030"

BRIEFLY_S = 1.5
"""Longer than the imitation takes on a busy machine, and waited for where it does not answer."""

pytestmark = pytest.mark.usefixtures("claims", "fake_mps")


def daemons(root: Path) -> set[int]:
    """Everything of MPS that runs for the claims in `root`."""
    pipes = str(root / UUID[-12:] / "p")
    return processes_with("nvidia-cuda-mps-", "CUDA_MPS_PIPE_DIRECTORY", pipes)


@contextmanager
def client(daemon: MpsDaemon, sm_pct: float = 50) -> Iterator[subprocess.Popen[bytes]]:
    """A process with the environment of a client; it ends with its standard input."""
    environment = {**os.environ, **daemon.client_environment(sm_pct)}
    with subprocess.Popen(["cat"], env=environment, stdin=subprocess.PIPE) as process:
        yield process


def test_it_serves_clients_and_nothing_is_left_of_it(claims: Path) -> None:
    with GpuClaim(UUID) as claim, MpsDaemon(claim) as daemon:
        assert len(daemons(claims)) == 1
        assert (daemon.control.pipes.stat().st_mode & 0o777, claims.stat().st_mode & 0o777) == (0o700, 0o700)
        assert daemon.control.client_pids() == set()
        with client(daemon) as one, client(daemon, 12.5) as other:
            assert daemon.control.client_pids() == {one.pid, other.pid}
            daemon.control.check_client(one.pid)
            assert len(daemons(claims)) == 2, "the daemon and its server"
        with pytest.raises(MpsError, match=f"process {one.pid} is not among the clients"):
            daemon.control.check_client(one.pid)
    assert daemons(claims) == set()
    assert list(claims.iterdir()) == []


def test_clients_and_daemon_get_the_variables_and_no_others(
    claims: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")
    monkeypatch.setenv("CUDA_MPS_CLIENT_PRIORITY", "1")
    with GpuClaim(UUID) as claim, MpsDaemon(claim) as daemon:
        (pid,) = daemons(claims)
        started = dict(
            entry.split("=", 1)
            for entry in Path(f"/proc/{pid}/environ").read_text().split("\0")
            if "=" in entry
        )
        own = {name: value for name, value in started.items() if name.startswith("CUDA_")}
        pipes, logs = str(daemon.control.pipes), str(daemon.control.logs)
        assert own == {
            "CUDA_MPS_PIPE_DIRECTORY": pipes,
            "CUDA_MPS_LOG_DIRECTORY": logs,
            "CUDA_VISIBLE_DEVICES": UUID,
        }
        assert daemon.client_environment(12.5) == {
            "CUDA_MPS_PIPE_DIRECTORY": pipes,
            "CUDA_MPS_LOG_DIRECTORY": logs,
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "12.5",
            "CUDA_VISIBLE_DEVICES": UUID,
        }
        for name, value in daemon.client_environment(50).items():
            monkeypatch.setenv(name, value)
        assert MpsControl.of_client().pipes == daemon.control.pipes
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY")
    with pytest.raises(MpsError, match="CUDA_MPS_PIPE_DIRECTORY is not set: this process runs without MPS"):
        MpsControl.of_client()


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("refuses", "refused to start: An instance of this daemon is already running"),
        ("never", r"did not start within 1\.5 s"),
        ("mute", "made no socket; its log ends: Start control daemon for GPU-5261"),
        ("hangs", r"did not answer `get_server_list` within 1\.5 s"),
        ("deaf", r"did not answer `get_server_list` within 1\.5 s"),
    ],
)
def test_a_daemon_that_fails_is_a_typed_error_and_nothing_is_left(
    claims: Path, monkeypatch: pytest.MonkeyPatch, mode: str, message: str
) -> None:
    monkeypatch.setenv("FAKE_MPS", mode)
    with GpuClaim(UUID) as claim:
        with pytest.raises(MpsError, match=message) as caught:
            MpsDaemon(claim, timeout_s=BRIEFLY_S).start()
        assert str(caught.value).endswith("run `rapp doctor --gpu`")
        assert daemons(claims) == set()
    assert list(claims.iterdir()) == []


def test_one_that_stops_answering_is_ended_by_signals(claims: Path) -> None:
    with GpuClaim(UUID) as claim:
        daemon = MpsDaemon(claim, timeout_s=BRIEFLY_S)
        daemon.start()
        (pid,) = daemons(claims)
        os.kill(pid, 19)  # SIGSTOP: it neither answers nor handles SIGTERM
        with pytest.raises(MpsError, match="did not answer"):
            daemon.control.command("get_server_list")
        daemon.stop()
        assert daemons(claims) == set()


def test_a_killed_profiler_s_daemon_is_stopped_by_the_next_start_and_no_other_is(claims: Path) -> None:
    owner_code = (
        "import time; from rapp.runtime.claim import GpuClaim; from rapp.runtime.mps import MpsDaemon\n"
        f"daemon = MpsDaemon(GpuClaim('{UUID}')); daemon.start(); print('up', flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", owner_code], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "up\n"
    assert clean_up() == [], "its owner lives"
    owner.kill()
    owner.wait()
    other_uuid = "GPU-ffeeddcc-bbaa-9988-7766-554433221100"
    with GpuClaim(other_uuid) as claim, MpsDaemon(claim) as other:
        assert len(daemons(claims)) == 1
        assert clean_up() == [Leftover(f"stopped an MPS daemon on {UUID}, of pid {owner.pid}", True)]
        assert daemons(claims) == set()
        assert other.control.command("get_default_active_thread_percentage") == "100.0"
    assert list(claims.iterdir()) == []
    assert clean_up() == []


def test_sigterm_of_the_owner_stops_the_daemon(claims: Path) -> None:
    owner_code = (
        "import time; from rapp.runtime.claim import GpuClaim; from rapp.runtime.mps import MpsDaemon\n"
        f"daemon = MpsDaemon(GpuClaim('{UUID}')); daemon.start(); print('up', flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", owner_code], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "up\n"
    owner.terminate()
    assert owner.wait(10) == -15
    assert daemons(claims) == set()
    assert list(claims.iterdir()) == []


def test_a_pid_file_that_names_another_process_harms_nobody(claims: Path) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        with GpuClaim(UUID) as claim, MpsDaemon(claim, timeout_s=BRIEFLY_S) as daemon:
            (daemon.control.pipes / "nvidia-cuda-mps-control.pid").write_text(str(bystander.pid))
            for pid in daemons(claims):
                os.kill(pid, 9)
        time.sleep(0.05)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_without_the_program_the_package_is_named(monkeypatch: pytest.MonkeyPatch, claims: Path) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with (
        GpuClaim(UUID) as claim,
        pytest.raises(MpsError, match=r"no nvidia-cuda-mps-control on PATH.*package"),
    ):
        MpsDaemon(claim)
    with GpuClaim(UUID) as claim, pytest.raises(MpsError, match="cannot be run: No such file"):
        MpsDaemon(claim, program="/nowhere/nvidia-cuda-mps-control").start()


def test_a_socket_whose_path_is_too_long_is_refused_before_anything_starts(claims: Path) -> None:
    root = claims / ("long" * 20)
    root.mkdir()
    with GpuClaim(UUID, root) as claim, pytest.raises(MpsError, match="107 are allowed: set TMPDIR"):
        MpsDaemon(claim)
    assert mps._SUN_PATH_BYTES == 107
    assert list(root.iterdir()) == []
