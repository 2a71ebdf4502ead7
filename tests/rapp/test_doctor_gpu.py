"""`rapp doctor` on an imitated machine with GPUs: what it sees, tries, and says of each failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))

from gpu_fixtures import (
    OTHER_UUID,
    UUID,
    FakeGpus,
    Machine,
    claims,
    fake_gpus,
    fake_mps,
    machine,
    stub_driver,
)

from rapp.doctor import examine
from rapp.doctor_check import Check, State
from rapp.doctor_gpu import check_gpus, check_leftovers, check_mps, check_native

__all__ = ["claims", "fake_gpus", "fake_mps", "machine", "stub_driver"]


class TestGpus:
    def test_each_gpu_is_a_row(self, fake_gpus: FakeGpus) -> None:
        fake_gpus.set(1, uuid=OTHER_UUID, name="NVIDIA A100-SXM4-40GB", memory_mib=40960, mig=0, mode=3)
        checks, gpus = check_gpus()
        assert [check.state for check in checks] == [State.OK] * 3
        assert [check.found for check in checks] == [
            "550.54.15; 2 GPUs",
            "Tesla V100-SXM2-16GB, 16,384 MiB, compute mode default, no MIG",
            "NVIDIA A100-SXM4-40GB, 40,960 MiB, compute mode exclusive process, MIG off",
        ]
        assert [gpu.mig for gpu in gpus] == [None, False]
        assert json.loads(json.dumps(dict(checks[2].facts)))["uuid"] == OTHER_UUID

    def test_a_prohibited_gpu_is_a_problem_with_its_command(self, fake_gpus: FakeGpus) -> None:
        fake_gpus.set(1, uuid=OTHER_UUID, mode=2)
        checks, _ = check_gpus()
        assert [check.state for check in checks] == [State.OK, State.OK, State.PROBLEM]
        assert checks[2].action == "sudo nvidia-smi -i 1 -c DEFAULT"

    def test_a_gpu_in_slices_is_ok_with_a_hint(self, fake_gpus: FakeGpus) -> None:
        fake_gpus.set(mig=1)
        check = check_gpus()[0][1]
        assert check.state is State.OK
        assert "MIG on" in check.found
        assert check.action is not None and "cuda:MIG-<uuid>" in check.action

    def test_a_busy_gpu_names_the_processes(self, fake_gpus: FakeGpus) -> None:
        fake_gpus.set(processes={"4711": 1000})
        check = check_gpus()[0][1]
        assert check.found.endswith("used by pid 4711")
        assert check.action == "end these processes before measuring"

    @pytest.mark.parametrize(
        ("code", "state"),
        [(12, State.MISSING), (9, State.MISSING), (18, State.PROBLEM), (999, State.PROBLEM)],
    )
    def test_no_driver_is_missing_and_a_broken_one_a_problem(
        self, fake_gpus: FakeGpus, code: int, state: State
    ) -> None:
        fake_gpus.fail(code)
        checks, gpus = check_gpus()
        assert [check.state for check in checks] == [state]
        assert f"error {code}" in checks[0].found
        assert checks[0].action
        assert gpus == []

    def test_without_pynvml_the_action_does_not_bring_a_second_onnxruntime(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", None)
        (check,), gpus = check_gpus()
        assert (check.state, check.action, gpus) == (State.MISSING, "pip install nvidia-ml-py", [])


def test_mps_is_found_on_the_path_or_missing(fake_mps: Path) -> None:
    assert check_mps().found == str(fake_mps)
    assert check_mps(lambda name: None).state is State.MISSING


def test_a_daemon_of_somebody_else_is_named(fake_mps: Path, tmp_path: Path) -> None:
    other = {**os.environ, "CUDA_MPS_PIPE_DIRECTORY": str(tmp_path), "CUDA_MPS_LOG_DIRECTORY": str(tmp_path)}
    subprocess.run([fake_mps, "-d"], env=other, check=True)
    pid_file = tmp_path / "nvidia-cuda-mps-control.pid"
    while not pid_file.exists() or not pid_file.read_text().endswith("\n"):
        pass
    check = check_mps()
    subprocess.run([fake_mps], input=b"quit\n", env=other, check=True, capture_output=True)
    assert check.state is State.OK
    assert pid_file.exists() is False
    assert "a daemon runs already (pid " in check.found
    assert check.action is not None


class TestLeftovers:
    def test_none_is_ok_and_makes_no_folder(self, claims: Path) -> None:
        claims.rmdir()
        assert check_leftovers().state is State.OK
        assert not claims.exists()

    def test_what_is_undone_is_told_and_what_cannot_be_is_a_problem(
        self, claims: Path, fake_gpus: FakeGpus
    ) -> None:
        code = f"import os; from rapp.runtime.claim import GpuClaim; claim = GpuClaim('{UUID}')\n"
        code += "claim.note(clocks_locked=True); os.kill(os.getpid(), 9)"
        subprocess.run([sys.executable, "-c", code])
        check = check_leftovers()
        assert check.state is State.PROBLEM
        assert check.action is not None
        fake_gpus.set(root=True)
        check = check_leftovers()
        assert (check.state, check.action) == (State.OK, None)
        assert check.found.startswith(f"reset locked clocks on {UUID}")

    def test_a_folder_that_is_not_private_is_a_problem(self, claims: Path) -> None:
        claims.chmod(0o755)
        assert check_leftovers().state is State.PROBLEM


def test_the_quota_library_is_there_or_the_command_that_builds_it(tmp_path: Path) -> None:
    assert check_native(tmp_path).action == "make native, in a checkout of the sources"
    (tmp_path / "native").mkdir()
    (tmp_path / "native" / "Makefile").touch()
    assert check_native(tmp_path, lambda name: "/usr/bin/cc").action == "make native"
    assert check_native(tmp_path, lambda name: None).action == "install a C compiler, then make native"
    library = tmp_path / "native" / "build" / "librapp_quota.so"
    library.parent.mkdir()
    library.touch()
    assert (check_native(tmp_path).state, check_native(tmp_path).found) == (State.OK, str(library))


class TestTrying:
    @pytest.fixture(autouse=True)
    def first_state(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        machine.gpus.reset()
        monkeypatch.delenv("FAKE_ORT", raising=False)

    def look(self, gpu: bool | None = None) -> dict[str, Check]:
        return {check.name: check for check in examine(gpu)}

    def test_a_machine_with_everything_is_ok_throughout(self, machine: Machine) -> None:
        machine.gpus.set(root=True)
        checks = self.look()
        tried = ["GPU 0 CUDA", "GPU 0 network", "GPU 0 partitions", "GPU 0 clocks"]
        assert [name for name in checks if name.startswith("GPU 0 ")] == tried
        assert {checks[name].state for name in (*tried, "NVIDIA driver", "GPU 0", "MPS", "leftovers")} == {
            State.OK
        }
        assert checks["GPU 0 CUDA"].found == "CUDA 13.0, 80 multiprocessors"
        assert checks["GPU 0 partitions"].facts == {"sm_count": {"25": 20, "50": 40}}
        assert checks["GPU 0 clocks"].found == "can be held at 1,312 MHz"
        assert machine.gpus.read()["gpus"][0]["locked"] is None
        assert list(machine.claims.iterdir()) == []

    def test_no_gpu_is_tried_when_told_so_and_none_is_a_problem_when_asked_for(
        self, machine: Machine
    ) -> None:
        assert not [name for name in self.look(gpu=False) if name.startswith("GPU 0 ")]
        machine.gpus.fail(12)
        checks = self.look(gpu=True)
        assert (checks["GPU"].state, checks["GPU"].action) == (State.PROBLEM, "run nvidia-smi")
        assert "GPU" not in self.look()

    def test_each_failure_is_named_where_it_is(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FAKE_ORT", json.dumps({"provider": "broken"}))
        monkeypatch.setenv("FAKE_MPS", "refuses")
        checks = self.look()
        assert checks["GPU 0 CUDA"].state is State.OK
        assert checks["GPU 0 network"].state is State.PROBLEM
        assert "(libcublasLt.so.13: cannot open shared object file" in checks["GPU 0 network"].found
        assert "onnxruntime-gpu[cuda,cudnn]" in str(checks["GPU 0 network"].action)
        assert checks["GPU 0 partitions"].state is State.PROBLEM
        assert "already running" in checks["GPU 0 partitions"].found
        assert checks["GPU 0 clocks"].state is State.MISSING
        assert all(check.action for check in checks.values() if check.state is not State.OK)

    def test_a_driver_that_fails_ends_the_trying(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAPP_STUB_FAIL", "cuInit=803")
        checks = self.look()
        assert [name for name in checks if name.startswith("GPU 0 ")] == ["GPU 0 CUDA"]
        assert "(803)" in checks["GPU 0 CUDA"].found

    def test_mps_that_is_ignored_is_found_out(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAPP_STUB_MPS", "0")
        assert "runs without MPS" in self.look()["GPU 0 partitions"].found

    def test_the_command_prints_it(self, machine: Machine) -> None:
        command = "from rapp.cli.main import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", command, "doctor", "--json"], capture_output=True, text=True
        )
        assert "GPU 0 partitions" in {row["name"] for row in json.loads(done.stdout)["checks"]}, done.stderr
