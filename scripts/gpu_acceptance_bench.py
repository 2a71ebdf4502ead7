"""What the steps of `gpu_acceptance.py` have in common.

A step checks one promise of the device `cuda`. It returns `said` (one line), facts for the report, and
`skipped` if it does not apply; it raises `CheckFailed`, or any error, if the promise is not kept.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.device import NetworkFile
from profiler.devices.cuda import CudaDevice

Facts = Mapping[str, Any]

BATCHES = (1, 8)
"""A batch that is launch bound on a large GPU, and one that is not."""


class CheckFailed(Exception):  # noqa: N818  it is the result of a step
    """A promise that was not kept."""

    def __init__(self, said: str, **facts: Any) -> None:
        super().__init__(said)
        self.facts = facts


@dataclass(frozen=True)
class Bench:
    """What the steps work with.

    Args:
        device: as `rapp profile --device` takes it. network: an ONNX file. folder: of the report.
        quick: few samples.
    """

    device: str
    network: Path
    folder: Path
    quick: bool

    def open_device(self, **settings: Any) -> CudaDevice:
        """The device; a context manager."""
        return CudaDevice(self.which, **settings)

    @property
    def which(self) -> str:
        """Number or UUID of the GPU."""
        return self.device.removeprefix("cuda").removeprefix(":") or "0"

    @property
    def file(self) -> NetworkFile:
        return NetworkFile(self.network.stem, self.network)

    def rapp(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a `rapp` command."""
        command = [sys.executable, "-c", "from rapp.cli.main import main; main()", *arguments]
        return subprocess.run(command, capture_output=True, text=True)
