"""What of RaPP works with the GPUs of this machine: seen from outside, by NVML and the files that are there.

`rapp.doctor_cuda` tries things out on a GPU.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from rapp.doctor_check import Check, State
from rapp.errors import MissingExtraError
from rapp.runtime.claim import ClaimError
from rapp.runtime.gpu import GpuInfo
from rapp.runtime.leftovers import clean_up
from rapp.runtime.mps import CONTROL
from rapp.runtime.nvml import NO_DRIVER, Nvml, NvmlError
from rapp.runtime.partition import GpuSetupError, check_gpu
from rapp.runtime.processes import processes_named

_LIBRARY = Path("native", "build", "librapp_quota.so")
"""Where `make native` puts the quota library, in a checkout."""


def check_gpus() -> tuple[list[Check], list[GpuInfo]]:
    """Driver and GPUs as NVML shows them: a row for the driver, one a GPU."""
    name = "NVIDIA driver"
    try:
        library = Nvml()
    except MissingExtraError:
        # Not `rapp[gpu]`: beside the extra `cpu` that would put two ONNX Runtimes into one folder.
        return [Check(name, State.MISSING, "GPUs cannot be seen: no pynvml", "pip install nvidia-ml-py")], []
    except NvmlError as error:
        if error.code in NO_DRIVER:
            return [Check(name, State.MISSING, f"no GPU: {error.reason}", "install the NVIDIA driver")], []
        action = "run nvidia-smi; after a driver update, reboot"
        return [Check(name, State.PROBLEM, f"NVML fails: {error.reason}", action)], []
    with closing(library):
        try:
            driver, gpus = library.driver_version(), library.gpus()
            about = [(gpu.info(), sorted(gpu.state().pids)) for gpu in gpus]
        except NvmlError as error:
            return [Check(name, State.PROBLEM, f"NVML fails: {error}", "run nvidia-smi")], []
    summary = f"{driver}; {len(about)} GPU{'' if len(about) == 1 else 's'}"
    checks = [Check(name, State.OK, summary, None, {"driver": driver})]
    return checks + [_check_gpu(info, pids) for info, pids in about], [info for info, _ in about]


def _check_gpu(info: GpuInfo, pids: Sequence[int]) -> Check:
    mig = {None: "no MIG", False: "MIG off", True: "MIG on"}[info.mig]
    text = f"{info.name}, {info.memory_mib:,} MiB, compute mode {info.compute_mode}, {mig}"
    name, facts = f"GPU {info.index}", {**asdict(info), "pids": pids}
    if pids:
        text += f"; used by pid {', '.join(map(str, pids))}"
    try:
        check_gpu(info)
    except GpuSetupError as error:
        # Slices of a GPU can be measured, one by one.
        state = State.OK if error.slices else State.PROBLEM
        return Check(name, state, text, error.action, facts)
    action = "end these processes before measuring" if pids else None
    return Check(name, State.OK, text, action, facts)


def check_mps(which: Callable[[str], str | None] = shutil.which) -> Check:
    """The control program of MPS, with which SM partitions are set, and daemons of others that run."""
    path = which(CONTROL)
    if path is None:
        text = f"SM partitions cannot be set: no {CONTROL}"
        return Check("MPS", State.MISSING, text, "install the NVIDIA driver, or add its folder to PATH")
    if pids := sorted(processes_named(CONTROL)):
        numbers = ", ".join(map(str, pids))
        # Harmless to a daemon of ours unless the GPU is in an exclusive compute mode.
        action = f"if measuring fails, end it: echo quit | {CONTROL}"
        return Check(
            "MPS", State.OK, f"{path}; a daemon runs already (pid {numbers})", action, {"path": path}
        )
    return Check("MPS", State.OK, path, None, {"path": path})


def check_leftovers(root: Path | None = None) -> Check:
    """Undo what killed processes of this user left on GPUs."""
    name = "leftovers"
    try:
        found = clean_up(root)
    except ClaimError as error:
        return Check(name, State.PROBLEM, str(error), "remove that folder, or set TMPDIR")
    if not found:
        return Check(name, State.OK, "no daemon or locked clock of a killed process")
    text = "; ".join(leftover.text for leftover in found)
    if all(leftover.undone for leftover in found):
        return Check(name, State.OK, text, None, {"undone": len(found)})
    return Check(name, State.PROBLEM, text, "do that as root or by hand, then run `rapp doctor` again")


def check_native(checkout: Path, which: Callable[[str], str | None] = shutil.which) -> Check:
    """The quota library for programs that are not ours, which is built in a checkout."""
    name, path = "quota library", checkout / _LIBRARY
    if path.is_file():
        return Check(name, State.OK, str(path), None, {"path": str(path)})
    text = "not built: programs of others cannot be held to a quota"
    if not (checkout / "native" / "Makefile").is_file():
        return Check(name, State.MISSING, text, "make native, in a checkout of the sources")
    if which("cc") is None:
        return Check(name, State.MISSING, text, "install a C compiler, then make native")
    return Check(name, State.MISSING, text, "make native")
