"""What a process of a given environment may do with CUDA, on the stub driver; failures keep their reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rapp.runtime.probe import ProbeError, probe


@pytest.fixture
def environment(stub_driver: Path, fake_runtime: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"):
        monkeypatch.delenv(name, raising=False)
    return {**os.environ, "LD_LIBRARY_PATH": str(stub_driver.parent)}


def test_it_sees_what_that_environment_leaves(environment: dict[str, str]) -> None:
    found = probe({**environment, "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "25"})
    assert (found.driver, found.device.sm_count, found.onnxruntime) == ("13.0", 20, None)
    with pytest.raises(ProbeError, match=r"\(100\): no GPU is visible"):
        probe({**environment, "CUDA_VISIBLE_DEVICES": "7"})


def test_a_network_is_run_and_its_numbers_are_checked(environment: dict[str, str], tmp_path: Path) -> None:
    assert probe(environment, session=True).onnxruntime is not None
    (tmp_path / "sitecustomize.py").write_text("import numpy\nnumpy.array_equal = lambda *_: False\n")
    wrong = {**environment, "PYTHONPATH": f"{tmp_path}{os.pathsep}{environment['PYTHONPATH']}"}
    with pytest.raises(ProbeError, match="wrong numbers"):
        probe(wrong, session=True)


def test_a_process_that_names_a_daemon_must_be_its_client(
    environment: dict[str, str], fake_mps: Path
) -> None:
    environment |= {"PATH": os.environ["PATH"], "CUDA_MPS_PIPE_DIRECTORY": "/nowhere"}
    with pytest.raises(ProbeError, match="refused `get_server_list`"):
        probe(environment)


def test_a_crash_and_a_hang_are_told(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os\nos.abort()\n")
    with pytest.raises(ProbeError, match="a process that uses CUDA ends with -6"):
        probe({**environment, "PYTHONPATH": str(tmp_path)})
    (tmp_path / "sitecustomize.py").write_text("import time\ntime.sleep(60)\n")
    with pytest.raises(ProbeError, match=r"no answer within 0\.2 s"):
        probe({**environment, "PYTHONPATH": str(tmp_path)}, timeout_s=0.2)
