"""Errors of the CUDA driver, and what a user can do about each."""

from __future__ import annotations

from typing import Any

from rapp.errors import RappError

_OUT_OF_MEMORY = 2
"""CUDA_ERROR_OUT_OF_MEMORY"""

_ADVICE = {
    2: "the GPU's memory is full: use a smaller batch, or end other processes on it",
    34: "a stub of the driver was loaded: take the folder `stubs` out of LD_LIBRARY_PATH",
    46: "the GPU is taken: look at its compute mode and at the processes in nvidia-smi",
    100: "no GPU is visible: run nvidia-smi, and look at CUDA_VISIBLE_DEVICES",
    101: "there is no such GPU among those that CUDA_VISIBLE_DEVICES leaves",
    802: "the system is not ready: on machines with NVSwitch start nvidia-fabricmanager",
    803: "the driver's library and its kernel module are of different versions: reboot after an update",
    804: "the CUDA compatibility library does not support this GPU: take it out of LD_LIBRARY_PATH",
    805: "the MPS daemon cannot be reached: is CUDA_MPS_PIPE_DIRECTORY that of a running daemon?",
    806: "the MPS server broke off: read server.log in CUDA_MPS_LOG_DIRECTORY",
    807: "the MPS server takes no clients, as after the crash of one: restart the daemon",
    808: "the MPS server has its most clients: end some of them",
    809: "the MPS server has its most device connections: end some clients",
    810: "the MPS server ended this client: another client crashed or an operator did it",
}
"""What to do about codes of CUresult that a profiling user meets; 805 to 810 are CUDA_ERROR_MPS_*."""


class DriverError(RappError):
    """The driver refused a call.

    Args:
        call: the function of the driver; code: its CUresult; name: the name of that code in cuda.h.
    """

    def __init__(self, call: str, code: int, name: str) -> None:
        self.call, self.code, self.name = call, code, name
        advice = _ADVICE.get(code)
        super().__init__(f"{call}: {name} ({code})" + (f": {advice}" if advice else ""))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.call, self.code, self.name)

    @property
    def out_of_memory(self) -> bool:
        """Whether the device's memory was too small."""
        return self.code == _OUT_OF_MEMORY


class NoDriverError(RappError):
    """There is no usable CUDA driver library."""
