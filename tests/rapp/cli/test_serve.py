"""`rapp serve` as a user starts it: what it prints, and what it says when it cannot start."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="needs the extra serve")

from scaler.serving.testing import random_network, running


def start(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from rapp.cli.main import main; main()", "serve", *arguments]
    environment = {**os.environ, "COLUMNS": "80", **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


def written(folder: Path, *functions: Any) -> str:
    file = folder / "functions.yaml"
    file.write_text(json.dumps({"version": 1, "functions": functions}))
    return str(file)


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]


def test_it_prints_a_table_and_where_it_serves_and_ends_with_0_on_sigint(tmp_path: Path) -> None:
    random_network(tmp_path / "net.onnx")
    functions = [
        {"name": "one", "network": "net.onnx", "slo_ms": 60},
        {"name": "two", "network": "net.onnx", "slo_multiplier": 3, "min_instances": 0},
    ]
    with running(tmp_path, functions) as server:
        text = server.log.read_text()
        for word in ("one-0", "two", "none", "100 %", "60.0 ms", "token of the admin interface"):
            assert word in text
        assert server.token not in text
        assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
        server.wait_until(lambda: "two: has no instance" in server.log.read_text(), "it is told")
        assert "no answer is counted as late" in server.log.read_text()
        # Also while its instances still start.
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 0


def test_killed_it_leaves_no_worker_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    random_network(tmp_path / "net.onnx")
    with running(tmp_path, [{"name": "one", "network": "net.onnx", "slo_ms": 60}]) as server:
        server.wait_ready()
        (pid,) = server.pids().values()
        server.process.kill()
        server.process.wait()
        end_s = time.monotonic() + 20
        while Path(f"/proc/{pid}").exists() and time.monotonic() < end_s:
            time.sleep(0.02)
        assert not Path(f"/proc/{pid}").exists()
    # What it left on the disk goes with the next start.
    (left,) = tmp_path.glob("rapp-serve-*")
    with running(tmp_path, [{"name": "one", "network": "net.onnx", "slo_ms": 60}]) as server:
        (folder,) = tmp_path.glob("rapp-serve-*")
        assert folder != left
        assert server.stop() == 0
    assert list(tmp_path.glob("rapp-serve-*")) == []


class TestCannotStart:
    def test_a_port_that_is_taken(self, tmp_path: Path) -> None:
        random_network(tmp_path / "net.onnx")
        file = written(tmp_path, {"name": "one", "network": "net.onnx", "slo_ms": 60})
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            refused(start(file, "--port", port), port, "Address already in use", "--port")

    def test_a_network_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "net.onnx").write_bytes(b"nothing")
        file = written(tmp_path, {"name": "one", "network": "net.onnx", "slo_ms": 60})
        refused(start(file, "--port", "0"), "function one", "net.onnx")

    def test_a_name_in_a_profile_table(self, tmp_path: Path) -> None:
        file = written(tmp_path, {"name": "one", "network": "resnet50", "slo_ms": 60})
        refused(start(file, "--port", "0"), "function one", "ONNX file")

    def test_instances_that_do_not_fit(self, tmp_path: Path) -> None:
        random_network(tmp_path / "net.onnx")
        whole = {"sm_pct": 100, "quota_pct": 60}
        listed = [
            {"name": name, "network": "net.onnx", "slo_ms": 60, "initial": whole} for name in ("one", "two")
        ]
        refused(start(written(tmp_path, *listed), "--port", "0"), "function two", "do not fit")

    def test_another_device(self, tmp_path: Path) -> None:
        random_network(tmp_path / "net.onnx")
        file = written(tmp_path, {"name": "one", "network": "net.onnx", "slo_ms": 60})
        refused(start(file, "--port", "0", "--device", "tpu"), "--device tpu", "cuda")

    def test_tokens(self, tmp_path: Path) -> None:
        random_network(tmp_path / "net.onnx")
        file = written(tmp_path, {"name": "one", "network": "net.onnx", "slo_ms": 60})
        token = tmp_path / "token"
        token.write_text("x" * 30)
        token.chmod(0o640)
        refused(start(file, "--port", "0", "--token-file", str(token)), "chmod 600")
        refused(start(file, "--port", "0", RAPP_ADMIN_TOKEN="short"), "RAPP_ADMIN_TOKEN")
