"""What of RaPP works on this machine, and what to do about the rest.

Each `check_*` is a function of what it is given and answers with a `Check`; `examine` alone looks at the
machine. Nothing here imports torch: its version is read from the installed metadata.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any

from rapp import __version__
from rapp.errors import MissingExtraError, RappError
from rapp.runtime import import_onnxruntime

ONNXRUNTIME_DISTRIBUTIONS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-rocm",
    "onnxruntime-training",
)
"""Distributions that install the module `onnxruntime`, and overwrite each other's files."""

TRAIN_MODULES = {
    "torch": "torch",
    "torch-geometric": "torch_geometric",
    "mlflow": "mlflow",
    "optuna": "optuna",
    "onnxscript": "onnxscript",
    "pandas": "pandas",
}
"""Distributions of the extra `train`, and the module each installs."""

_COMPUTE_MODES = {0: "default", 1: "exclusive thread", 2: "prohibited", 3: "exclusive process"}
"""NVML_COMPUTEMODE_* of nvml.h."""

_NO_DRIVER = (9, 12)
"""NVML_ERROR_DRIVER_NOT_LOADED and NVML_ERROR_LIBRARY_NOT_FOUND of nvml.h."""

Installed = Callable[[str], str | None]
"""Version of a distribution, None if it is not installed."""


class State(StrEnum):
    """`missing` limits what can be done; `problem` is broken and gives exit code 2."""

    OK = "ok"
    MISSING = "missing"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report.

    Args:
        name: what was looked at.
        state: how it is.
        found: what was found, for a person.
        action: the next action, most often a command; None if there is nothing to do.
        facts: the same as `found`, for a program; units are in the keys.
    """

    name: str
    state: State
    found: str
    action: str | None = None
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as NVML describes it; `mig` is None where the GPU knows no MIG."""

    index: int
    name: str
    memory_mib: int
    compute_mode: str
    mig: bool | None


def check_onnxruntime(installed: Installed, load: Callable[[], ModuleType], *, has_gpu: bool) -> Check:
    """Which distribution gives onnxruntime, whether it loads, and the execution providers built into it."""
    name, extra = "onnxruntime", "gpu" if has_gpu else "cpu"
    found = {one: version for one in ONNXRUNTIME_DISTRIBUTIONS if (version := installed(one))}
    title = " and ".join(f"{one} {version}" for one, version in found.items())
    if len(found) > 1:
        action = f"pip uninstall -y {' '.join(found)} && pip install 'rapp[{extra}]'"
        clash = f"{title} overwrite each other: keep exactly one"
        return Check(name, State.PROBLEM, clash, action, {"distributions": found})
    try:
        providers: list[str] = load().get_available_providers()
    except MissingExtraError:
        if not found:
            action = f"pip install 'rapp[{extra}]'"
            return Check(name, State.MISSING, "predictors cannot be run", action, {"distributions": found})
        return Check(name, State.PROBLEM, f"{title} has lost its files", _reinstall(found))
    except RappError as error:
        return Check(name, State.PROBLEM, str(error), _reinstall(found), {"distributions": found})
    facts = {"distributions": found, "providers": providers}
    short = ", ".join(provider.removesuffix("ExecutionProvider") for provider in providers)
    text = f"{title or 'of unknown origin'}; providers {short}"
    if "onnxruntime-gpu" in found and "CUDAExecutionProvider" not in providers:
        # What is left when the CPU distribution was installed over it and taken away again.
        return Check(name, State.PROBLEM, f"{text}: CUDA is not among them", _reinstall(found), facts)
    if has_gpu and "CUDAExecutionProvider" not in providers:
        action = f"to use the GPU: pip uninstall -y {' '.join(found)} && pip install 'rapp[gpu]'"
        return Check(name, State.OK, text, action if found else None, facts)
    return Check(name, State.OK, text, None, facts)


def _reinstall(found: Mapping[str, str]) -> str:
    return f"pip install --force-reinstall --no-deps {' '.join(found) or 'onnxruntime'}"


def check_train(installed: Installed, importable: Callable[[str], bool]) -> Check:
    """The distributions of the extra `train`, by their metadata alone."""
    versions = {one: installed(one) for one in TRAIN_MODULES}
    facts = {"versions": versions}
    present = ", ".join(f"{one} {version}" for one, version in versions.items() if version)
    broken = [
        one for one, version in versions.items() if (version is not None) != importable(TRAIN_MODULES[one])
    ]
    if broken:
        text = f"module and metadata disagree: {', '.join(broken)}"
        action = f"pip install --force-reinstall {' '.join(broken)}"
        return Check("train extra", State.PROBLEM, text, action, facts)
    absent = [one for one, version in versions.items() if version is None]
    if absent:
        text = f"cannot train: no {', '.join(absent)}"
        return Check("train extra", State.MISSING, text, "pip install 'rapp[train]'", facts)
    return Check("train extra", State.OK, present, None, facts)


def check_gpus(nvml: Any | None) -> tuple[list[Check], list[Gpu]]:
    """Driver and GPUs through NVML (the module pynvml, None if absent): a row for the driver, one a GPU."""
    name = "NVIDIA driver"
    if nvml is None:
        # Not `rapp[gpu]`: beside the extra `cpu` that would put two ONNX Runtimes into one folder.
        return [Check(name, State.MISSING, "GPUs cannot be seen: no pynvml", "pip install nvidia-ml-py")], []
    try:
        nvml.nvmlInit()
        try:
            driver = str(nvml.nvmlSystemGetDriverVersion())
            gpus = [_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        if error.value in _NO_DRIVER:
            return [Check(name, State.MISSING, f"no GPU: {error}", "install the NVIDIA driver")], []
        action = "run nvidia-smi; after a driver update, reboot"
        return [Check(name, State.PROBLEM, f"NVML fails: {error}", action)], []
    summary = f"{driver}; {len(gpus)} GPU{'' if len(gpus) == 1 else 's'}"
    checks = [Check(name, State.OK, summary, None, {"driver": driver})]
    return checks + [_check_gpu(gpu) for gpu in gpus], gpus


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    try:
        mig = nvml.nvmlDeviceGetMigMode(handle)[0] == 1  # (current, pending)
    except nvml.NVMLError:  # GPUs before Ampere
        mig = None
    mode = nvml.nvmlDeviceGetComputeMode(handle)
    return Gpu(
        index,
        str(nvml.nvmlDeviceGetName(handle)),
        nvml.nvmlDeviceGetMemoryInfo(handle).total // 2**20,
        _COMPUTE_MODES.get(mode, f"mode {mode}"),
        mig,
    )


def _check_gpu(gpu: Gpu) -> Check:
    mig = {None: "no MIG", False: "MIG off", True: "MIG on"}[gpu.mig]
    text = f"{gpu.name}, {gpu.memory_mib:,} MiB, compute mode {gpu.compute_mode}, {mig}"
    if gpu.compute_mode == "prohibited":
        action = f"sudo nvidia-smi -i {gpu.index} -c EXCLUSIVE_PROCESS"
        return Check(f"GPU {gpu.index}", State.PROBLEM, text, action, asdict(gpu))
    return Check(f"GPU {gpu.index}", State.OK, text, None, asdict(gpu))


def check_mps(which: Callable[[str], str | None]) -> Check:
    """The control program of MPS, with which SM partitions are set."""
    path = which("nvidia-cuda-mps-control")
    if path is None:
        text = "SM partitions cannot be set: no nvidia-cuda-mps-control"
        return Check("MPS", State.MISSING, text, "install the NVIDIA driver, or add its folder to PATH")
    return Check("MPS", State.OK, path, None, {"path": path})


def check_cpu(usable: int, total: int, memory_mib: int) -> Check:
    """Cores this process may use of those there are, and its memory (MiB)."""
    text = f"{usable} of {total} cores, {memory_mib:,} MiB memory"
    return Check("CPU", State.OK, text, None, {"cores": usable, "memory_mib": memory_mib})


def check_temporary(folder: Callable[[], str]) -> Check:
    """The folder for temporary files: `folder` names it, and raises OSError where none can be written."""
    try:
        path = folder()
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"x")
            file.flush()
        free_mib = shutil.disk_usage(path).free // 2**20
    except OSError as error:
        action = "free space there, or set TMPDIR to a writable folder"
        return Check("temporary files", State.PROBLEM, f"cannot be written: {error}", action)
    text = f"{path}, {free_mib:,} MiB free"
    return Check("temporary files", State.OK, text, None, {"path": path, "free_mib": free_mib})


def examine() -> list[Check]:
    """Look at this machine; about half a second, nearly all of it loading ONNX Runtime."""
    python = platform.python_version()
    facts = {"rapp": __version__, "python": python, "executable": sys.executable}
    gpu_checks, gpus = check_gpus(_optional("pynvml"))
    return [
        Check("rapp", State.OK, f"{__version__} on Python {python}", None, facts),
        check_onnxruntime(_installed, import_onnxruntime, has_gpu=bool(gpus)),
        check_train(_installed, lambda module: importlib.util.find_spec(module) is not None),
        *gpu_checks,
        check_mps(shutil.which),
        check_cpu(_usable_cores(), os.cpu_count() or 1, _memory_mib()),
        check_temporary(tempfile.gettempdir),
    ]


def exit_code(checks: Sequence[Check]) -> int:
    """2 if there is a problem; what is merely missing is 0."""
    return 2 if any(check.state is State.PROBLEM for check in checks) else 0


def _installed(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _optional(module: str) -> ModuleType | None:
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_mib() -> int:
    """Memory of the machine, or of the container (control groups v2) if that has less; MiB."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no such group, or "max"
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total // 2**20
