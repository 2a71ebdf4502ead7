"""What disturbs a measurement on a GPU, and how much memory it takes: NVML beside a worker."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Self

from rapp.runtime.gpu import GpuState, disturbance
from rapp.runtime.mps import MpsControl
from rapp.runtime.nvml import Nvml


class GpuWatch:
    """Watches a GPU from inside the worker that uses it; a context manager, entered before CUDA is used.

    Processes are known by their numbers on the host. In a container that numbers otherwise, this process is
    not among those that NVML lists; then all that are there when the context is made count as its own.

    Args:
        gpu_uuid: of the GPU.

    Raises:
        NvmlError: NVML fails; every method may raise it.
    """

    def __init__(self, gpu_uuid: str) -> None:
        self._resources = ExitStack()
        library = Nvml()
        self._resources.callback(library.close)
        self._gpu = library.gpu(gpu_uuid)
        self._used_before_mib = self._gpu.state().memory_used_mib
        self._control: MpsControl | None = None
        self._known: frozenset[int] = frozenset()
        self._peak_mib: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def context_made(self, control: MpsControl | None) -> None:
        """Look who uses the GPU, now that this process does; `control` is its MPS daemon, if it has one."""
        self._control = control
        pids = self._gpu.state().pids
        self._known = self._ours() if os.getpid() in pids else pids
        self.note_memory()

    def state(self) -> GpuState:
        """The GPU now."""
        return self._gpu.state()

    def disturbance(self, before: GpuState) -> str | None:
        """Why what ran since `before` cannot be trusted; None: nothing was seen."""
        after = self._gpu.state()
        if not (before.pids | after.pids) <= self._known:
            # A second session of the same campaign is no stranger.
            self._known |= self._ours()
        return disturbance(before, after, self._known)

    def note_memory(self) -> None:
        """Look how much device memory this process uses.

        As the driver counts it, or else what more is in use on the GPU than before, by whomever.
        """
        used_mib = self._gpu.memory_mib(os.getpid())
        if used_mib is None:
            used_mib = self._gpu.state().memory_used_mib - self._used_before_mib
        self._peak_mib = max(used_mib, self._peak_mib or 0.0)

    @property
    def peak_memory_mib(self) -> float | None:
        """Most device memory seen in use by this process, MiB; None: it has not been looked at."""
        return self._peak_mib

    def _ours(self) -> frozenset[int]:
        """This process, its MPS server, and that server's other clients."""
        if self._control is None:
            return frozenset({os.getpid()})
        return self._control.server_pids() | self._control.client_pids() | {os.getpid()}
