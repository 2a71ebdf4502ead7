"""`scripts/gpu_acceptance.sh` on an imitated machine: it goes to the end, and its report says what failed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "fakes"))

from gpu_fixtures import Machine, machine, small_network, stub_driver

__all__ = ["machine", "small_network", "stub_driver"]

SCRIPT = Path(__file__).parents[1] / "scripts" / "gpu_acceptance.sh"


def accept(
    network: Path, out: Path, only: str, **kernels: object
) -> tuple[subprocess.CompletedProcess[str], Mapping[str, Any]]:
    """Run some steps; what the script printed, and the report's steps by name."""
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "FAKE_ORT": json.dumps({"kernel_us": 300, **kernels}),
    }
    command = [SCRIPT, "cuda:0", "--quick", "--network", network, "--out", out, "--only", only]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    report = out / "report.json"
    steps = json.loads(report.read_text())["steps"] if report.is_file() else []
    return done, {step["name"]: step for step in steps}


@pytest.mark.slow
def test_every_promise_is_checked_and_the_report_is_packed(
    machine: Machine, small_network: Path, tmp_path: Path
) -> None:
    machine.gpus.reset()
    only = "machine,launching,gate,side by side,out of memory,after a kill"
    done, steps = accept(small_network, tmp_path / "out", only)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(steps) == only.split(",")
    assert {step["state"] for step in steps.values()} == {"ok"}
    share_pct = steps["gate"]["facts"]["share_pct"]
    assert all(abs(share - float(quota)) <= 3 for quota, share in share_pct.items())
    assert steps["side by side"]["said"].startswith("16 and 48 multiprocessors")
    assert steps["after a kill"]["said"].startswith("stopped an MPS daemon")
    with tarfile.open(tmp_path / "out.tar.gz") as archive:
        assert {"out/report.md", "out/report.json"} <= set(archive.getnames())
    assert "| gate | ok |" in (tmp_path / "out" / "report.md").read_text()
    assert list(machine.claims.iterdir()) == []


@pytest.mark.slow
def test_the_sweep_has_20_points(machine: Machine, small_network: Path, tmp_path: Path) -> None:
    machine.gpus.reset()
    done, steps = accept(small_network, tmp_path / "out", "sweep", kernel_us=150)
    assert done.returncode == 0, done.stdout + done.stderr
    assert steps["sweep"]["facts"]["sm_count"] == {
        "20.0": 16,
        "40.0": 32,
        "60.0": 48,
        "80.0": 64,
        "100.0": 80,
    }
    assert (tmp_path / "out" / "profiles.parquet").is_file()


def test_a_step_that_fails_is_named_and_the_others_are_done(
    machine: Machine, small_network: Path, tmp_path: Path
) -> None:
    machine.gpus.reset()
    done, steps = accept(small_network, tmp_path / "out", "machine,doctor,launching", provider="broken")
    assert done.returncode == 1
    assert [step["state"] for step in steps.values()] == ["ok", "failed", "failed"]
    assert "CUDA provider does not load" in steps["launching"]["said"]
    assert done.stdout.splitlines()[-1] == "failed: doctor, launching"
    assert "GPU 0 network: " in steps["doctor"]["said"]


def test_a_step_that_has_a_bug_keeps_its_traceback(
    machine: Machine, small_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.gpus.reset()
    (tmp_path / "sitecustomize.py").write_text("import numpy\nnumpy.median = lambda *_: 1 / 0\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    done, steps = accept(small_network, tmp_path / "out", "launching,side by side")
    assert done.returncode == 1
    assert "ZeroDivisionError" in steps["launching"]["trace"]
    assert steps["side by side"]["state"] == "ok"


def test_a_folder_that_exists_and_a_step_that_does_not_are_refused(
    tmp_path: Path, small_network: Path
) -> None:
    done, _ = accept(small_network, tmp_path, "machine")
    assert done.returncode == 2
    assert "exists" in done.stdout
    done, _ = accept(small_network, tmp_path / "out", "machine,nonsense")
    assert done.returncode == 2
    assert "no step nonsense" in done.stderr
