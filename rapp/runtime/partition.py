"""SM partitions as MPS gives them: whether a GPU has them, and whether a process got the one it asked for."""

from __future__ import annotations

from typing import Any

from rapp.errors import RappError
from rapp.runtime.gpu import ComputeMode, GpuInfo
from rapp.runtime.mps import MpsError, control_program

_VOLTA = (7, 0)
"""First compute capability with a limit of SMs for each client of MPS."""
_SM_STEP = 8
"""Coarsest step in which NVIDIA documents SM partitions (a chunk on Hopper and later)."""


class GpuSetupError(RappError):
    """The GPU is set up so that nothing can be run on it, or not under MPS.

    Args:
        what: the GPU, and how it is. action: what to change.
        slices: whether slices of it (MIG) can be used.
    """

    def __init__(self, what: str, action: str, slices: bool = False) -> None:
        self.what, self.action, self.slices = what, action, slices
        super().__init__(f"{what}: {action}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.what, self.action, self.slices)


def check_gpu(info: GpuInfo) -> None:
    """Check that a process can run on the GPU, under MPS or not.

    Raises:
        GpuSetupError: it cannot; with what to change about the GPU.
    """
    name, default_mode = f"GPU {info.index} ({info.name})", f"sudo nvidia-smi -i {info.index} -c DEFAULT"
    if info.compute_mode is ComputeMode.PROHIBITED:
        raise GpuSetupError(f"{name} is in compute mode prohibited", default_mode)
    if info.mig and not info.uuid.startswith("MIG-"):
        action = "name a slice, cuda:MIG-<uuid> of nvidia-smi -L, or take it whole: sudo nvidia-smi"
        raise GpuSetupError(
            f"{name} is cut into slices (MIG)", f"{action} -i {info.index} -mig 0", slices=True
        )
    if info.mig and info.compute_mode is not ComputeMode.DEFAULT:
        raise GpuSetupError(f"{name} needs the default compute mode for MPS under MIG", default_mode)


def why_no_partitions(info: GpuInfo) -> str | None:
    """Why the GPU can be had as a whole only; None: it has partitions."""
    if info.capability is not None and info.capability < _VOLTA:
        major, minor = info.capability
        return f"{info.name} has compute capability {major}.{minor}, SM partitions need 7.0"
    try:
        control_program()
    except MpsError as error:
        return str(error)
    return None


def check_partition(sm_pct: float, sm_count: int, sm_total: int) -> None:
    """Check that a process that asked for `sm_pct` got it.

    The hardware's step is not documented for the percentage; the coarsest documented one is allowed.

    Args:
        sm_count: multiprocessors the process sees; sm_total: those of the GPU.

    Raises:
        MpsError: it has another share, most often the whole GPU, for want of MPS.
    """
    asked = sm_total * sm_pct / 100
    whole = sm_count >= sm_total and asked <= sm_total - 2  # no step is smaller than 2
    if whole or abs(sm_count - asked) > _SM_STEP:
        reason = "it runs without MPS" if whole else "MPS gave another share"
        raise MpsError(f"{sm_count} of {sm_total} SMs for a partition of {sm_pct:g} %: {reason}")
