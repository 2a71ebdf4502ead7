"""Fixtures of the tests that need a GPU and have none: imitations of NVML and of the MPS daemon."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

FAKES = Path(__file__).parent
UUID = "GPU-52615050-2073-7475-6220-475055203030"
"""The stub driver's first device."""
OTHER_UUID = "GPU-ffeeddcc-bbaa-9988-7766-554433221100"


class FakeGpus:
    """The GPUs that the imitation of pynvml shows, in this process and in those that it starts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content: dict[str, Any] = {"gpus": [{"uuid": UUID}], "error": None}
        self._write()

    def set(self, index: int = 0, **values: Any) -> None:
        """Change a GPU; one that is not there yet is added."""
        gpus = self.read()["gpus"]
        while len(gpus) <= index:
            gpus.append({})
        gpus[index] |= values
        self._content["gpus"] = gpus
        self._write()

    def reset(self) -> None:
        """One Tesla V100 in its first state again."""
        self._content = {"gpus": [{"uuid": UUID, "used_mib": 0}], "error": None}
        self._write()

    def fail(self, code: int) -> None:
        """Let every call fail with this code of NVML."""
        self._content["error"] = code
        self._write()

    def read(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.path.read_text())
        return content

    def _write(self) -> None:
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self._content))
        part.replace(self.path)  # readers never see half a file


@dataclass(frozen=True)
class Machine:
    """An imitated machine: its GPUs, and the folder of this user's claims on them."""

    gpus: FakeGpus
    claims: Path


@pytest.fixture
def fake_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpus:
    """One Tesla V100 as NVML describes it."""
    gpus = FakeGpus(tmp_path / "nvml.json")
    monkeypatch.setenv("FAKE_NVML", str(gpus.path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", load("pynvml"))
    monkeypatch.setenv("PYTHONPATH", str(FAKES / "modules"), prepend=os.pathsep)
    return gpus


@pytest.fixture
def fake_mps(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A control program of MPS on PATH."""
    monkeypatch.setenv("PATH", str(FAKES / "bin"), prepend=os.pathsep)
    monkeypatch.delenv("FAKE_MPS", raising=False)
    return FAKES / "bin" / "nvidia-cuda-mps-control"


@pytest.fixture
def claims(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder of claims, of a short name, for this process and those that it starts."""
    tmp_path_factory.getbasetemp()  # pytest's own folder is made before TMPDIR changes
    base = Path(tempfile.mkdtemp(prefix="rt", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(base))
    monkeypatch.setattr(tempfile, "tempdir", None)
    root = base / f"rapp-{os.getuid()}"
    root.mkdir(mode=0o700)
    yield root
    shutil.rmtree(base)


def load(name: str) -> Any:
    """One of the imitated modules, without a place in `sys.modules`."""
    spec = importlib.util.spec_from_file_location(name, FAKES / "modules" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fake_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ONNX Runtime that claims the CUDA provider, in this process and in those that it starts."""
    monkeypatch.setitem(sys.modules, "onnxruntime", load("onnxruntime"))
    monkeypatch.setenv("PYTHONPATH", str(FAKES / "modules"), prepend=os.pathsep)
    monkeypatch.delenv("FAKE_ORT", raising=False)


@pytest.fixture(scope="session")
def stub_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stub of libcuda.so.1, built; a test that needs it is skipped where there is no C compiler."""
    if shutil.which("cc") is None or shutil.which("make") is None:
        pytest.skip("no C compiler, or no make: the stub driver cannot be built")
    out = tmp_path_factory.mktemp("native")
    native = FAKES.parents[1] / "native"
    subprocess.run(["make", "-s", "-C", str(native), "stub", f"OUT={out}"], check=True)
    return out / "stub" / "libcuda.so.1"


@pytest.fixture(scope="module")
def machine(stub_driver: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with one V100 and everything that measuring on it needs, for the tests of a module."""
    base = Path(tempfile.mkdtemp(prefix="rt", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("VISIBLE_DEVICES", "MPS_ACTIVE_THREAD_PERCENTAGE", "MPS_PIPE_DIRECTORY"):
            patch.delenv(f"CUDA_{name}", raising=False)
        patch.setenv("TMPDIR", str(base))
        patch.setattr(tempfile, "tempdir", None)
        gpus = FakeGpus(base / "nvml.json")
        gpus.reset()
        patch.setenv("FAKE_NVML", str(gpus.path))
        for name in ("pynvml", "onnxruntime"):
            patch.setitem(sys.modules, name, load(name))
        patch.setenv("PYTHONPATH", str(FAKES / "modules"), prepend=os.pathsep)
        patch.setenv("PATH", str(FAKES / "bin"), prepend=os.pathsep)
        patch.setenv("LD_LIBRARY_PATH", str(stub_driver.parent), prepend=os.pathsep)
        claims = base / f"rapp-{os.getuid()}"
        claims.mkdir(mode=0o700)
        yield Machine(gpus, claims)
    shutil.rmtree(base)


@pytest.fixture
def small_network(tmp_path: Path) -> Path:
    """y = relu(x W), x of shape (N, 6), with seeded W of shape (6, 4)."""
    weight = np.random.default_rng(7).standard_normal((6, 4)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Relu", ["z"], ["y"])],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.tobytes(), raw=True)],
    )
    path = tmp_path / "network.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
