"""What of RaPP works on this machine, and what to do about the rest.

Each `check_*` is a function of what it is given and answers with a `Check`; `examine` alone looks at the
machine. GPUs are in `doctor_gpu` and `doctor_cuda`. Nothing here imports torch: its version is read from the
installed metadata.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from rapp import __version__
from rapp.doctor_check import Check, State
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

Installed = Callable[[str], str | None]
"""Version of a distribution, None if it is not installed."""


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


def check_ray(installed: Installed) -> Check:
    """The distribution that spreads a campaign over GPUs and machines, by its metadata."""
    version = installed("ray")
    if version is None:
        return Check("ray", State.MISSING, "campaigns stay on this machine", "pip install 'rapp[ray]'")
    return Check("ray", State.OK, version, None, {"version": version})


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


def examine(gpu: bool | None = None) -> list[Check]:
    """Look at this machine.

    About half a second, nearly all of it loading ONNX Runtime; some ten seconds for each GPU that is tried.

    Args:
        gpu: whether to try things out on the GPUs; None: if there are any.
    """
    from rapp.doctor_cuda import try_gpu
    from rapp.doctor_gpu import check_gpus, check_leftovers, check_mps, check_native

    python = platform.python_version()
    facts = {"rapp": __version__, "python": python, "executable": sys.executable}
    # First, for what a killed process left would be in the way of the rest.
    leftovers = check_leftovers()
    gpu_checks, gpus = check_gpus()
    if gpu and not gpus:
        gpu_checks.append(Check("GPU", State.PROBLEM, "there is none to try", "run nvidia-smi"))
    tried = [check for info in gpus for check in try_gpu(info)] if gpu is not False else []
    return [
        Check("rapp", State.OK, f"{__version__} on Python {python}", None, facts),
        check_onnxruntime(_installed, import_onnxruntime, has_gpu=bool(gpus)),
        check_train(_installed, lambda module: importlib.util.find_spec(module) is not None),
        check_ray(_installed),
        *gpu_checks,
        check_mps(),
        *tried,
        leftovers,
        check_native(Path(__file__).parents[1]),
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
