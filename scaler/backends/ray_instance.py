"""One instance of a function, as an actor of Ray: a network under its SM partition and quota.

The process is the partition: pinned to cores, or a client of MPS whose percentage is in its environment
before CUDA starts. What runs the batches is that of `rapp serve`.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rapp.errors import RappError
from rapp.runtime import QuotaBlock, QuotaGate
from rapp.runtime.cores import pin, usable_cores
from scaler.backends.ray_network import RayNetwork, Tensors

if TYPE_CHECKING:
    from scaler.serving.executor import Executor


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """What became of a batch.

    Args:
        answers: of each request, tensors, or why there are none.
        run_ms: until the batch was computed, before the quota held it, ms. device_ms: device time of it, ms.
    """

    answers: list[Tensors | str]
    run_ms: float
    device_ms: float


class Instance:
    """Methods run in threads of Ray, side by side: `live` all the time, a `run` at a time, `resize` between.

    Args:
        quota_pct: time quota, %. window_ms: its window, ms.
    """

    def __init__(self, quota_pct: float, window_ms: float = 40.0) -> None:
        self._block = QuotaBlock.anonymous(quota_pct, window_ms)
        self._gate = QuotaGate(self._block)
        self._cores: tuple[int, ...] = ()
        self._outputs: tuple[str, ...] = ()
        self._executor: Executor
        self._device_ms = 0.0

    def open(self, network: RayNetwork, device: Mapping[str, Any], batch: int) -> None:
        """Load the network and run it once, so that the first request does not pay for it.

        Args:
            device: `{"cores": places among those that this process may use}`, or what of the GPU
                `scaler.serving.executor.make_executor` takes.
            batch: to warm up with.

        Raises:
            RappError: the network does not load, or the partition is not as it should be.
        """
        from rapp.runtime.inputs import seeded_inputs
        from scaler.serving.executor import make_executor

        if "cores" in device:
            usable = usable_cores()
            if max(device["cores"]) >= len(usable):
                raise RappError(
                    f"this node has {len(usable)} cores that can be used, and Ray counts more: start it with"
                    f" `ray start --num-cpus {len(usable)}`"
                )
            self._cores = tuple(usable[place] for place in device["cores"])
            device = {"cores": self._cores}
        else:
            device = {**device, "mps": "CUDA_MPS_PIPE_DIRECTORY" in os.environ}
        with tempfile.TemporaryDirectory(prefix="rapp-ray-") as folder:
            file = Path(folder) / "network.onnx"
            file.write_bytes(network.content)
            self._executor = make_executor(file, device)
        self._outputs = network.outputs
        for count in {1, batch}:
            self._executor.run(seeded_inputs(network.inputs, count))

    def run(self, inputs: Sequence[Tensors]) -> BatchOutcome:
        """Answer a batch, and hold the answers until the quota allows."""
        if self._cores and os.sched_getaffinity(0) != set(self._cores):
            pin(self._cores)  # another thread than that of `open`
        self._device_ms = 0.0
        return self._gate.run(lambda: self._run(inputs), lambda: self._device_ms)

    def _run(self, inputs: Sequence[Tensors]) -> BatchOutcome:
        begun_s = time.perf_counter()
        try:
            answers: list[Tensors | str] = list(self._together(inputs))
        except Exception as error:  # ONNX Runtime's own share no base; one request fails the whole batch
            if len(inputs) == 1:
                answers = [" ".join(str(error).split())[:300]]
            else:
                answers = [answer for one in inputs for answer in self._run([one]).answers]
        return BatchOutcome(answers, 1e3 * (time.perf_counter() - begun_s), self._device_ms)

    def _together(self, inputs: Sequence[Tensors]) -> list[Tensors]:
        stacked = {name: np.concatenate([one[name] for one in inputs]) for name in inputs[0]}
        outputs = self._executor.run(stacked)
        self._device_ms += self._executor.device_ms()
        return [
            {
                name: np.ascontiguousarray(output[place : place + 1])
                for name, output in zip(self._outputs, outputs, strict=True)
            }
            for place in range(len(inputs))
        ]

    def resize(self, quota_pct: float) -> None:
        """Change the quota; a run that waits for it sees the change within a millisecond."""
        self._block.quota_pct = quota_pct

    def live(self) -> None:
        """Never returns: who waits for it is told by Ray when this process, or its node, is gone."""
        threading.Event().wait()

    def pid(self) -> int:
        """Of this process."""
        return os.getpid()
