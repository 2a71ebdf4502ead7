"""One instance of a function, as an actor of Ray: a network under its SM partition and quota.

The process is the partition: pinned to cores, or a client of MPS whose percentage is in its environment
before CUDA starts. The GPU's part has never run on a physical one.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapp.runtime import QuotaBlock, QuotaGate
from rapp.runtime.cores import pin, usable_cores

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """What became of a batch.

    Args:
        answers: of each request, tensors, or why there are none.
        run_ms: until the batch was computed, before the quota held it, ms; for the CPU and for a GPU that
            is waited for it is the device time too.
    """

    answers: list[Tensors | str]
    run_ms: float


class Instance:
    """Methods run in threads of Ray, side by side: `live` all the time, a `run` at a time, `resize` between.

    Args:
        quota_pct: time quota, %. window_ms: its window, ms.
    """

    def __init__(self, quota_pct: float, window_ms: float = 40.0) -> None:
        self._block = QuotaBlock.anonymous(quota_pct, window_ms)
        self._gate = QuotaGate(self._block)
        self._cores: tuple[int, ...] = ()
        self._session: Any = None

    def open(self, network: bytes, cores: Sequence[int], batch: int) -> None:
        """Load the network and run it once, so that the first request does not pay for it.

        Args:
            network: an ONNX file with an open batch.
            cores: places among those that this process may use; none: a GPU.
            batch: to warm up with.

        Raises:
            RappError: the network does not load, or the cores cannot be had.
        """
        from rapp.runtime.inputs import seeded_inputs
        from rapp.runtime.session import cpu_session

        if cores:
            usable = usable_cores()
            self._cores = tuple(usable[place] for place in cores)
            pin(self._cores)
            self._session = cpu_session(network, threads=len(self._cores))
        else:
            from rapp.runtime.cuda_session import cuda_session

            self._session = cuda_session(network)
        self._names = [value.name for value in self._session.get_outputs()]
        for count in {1, batch}:
            self._session.run(None, seeded_inputs(self._session, count))

    def run(self, inputs: Sequence[Tensors]) -> BatchOutcome:
        """Answer a batch, and hold the answers until the quota allows."""
        if self._cores and os.sched_getaffinity(0) != set(self._cores):
            pin(self._cores)  # another thread than that of `open`
        return self._gate.run(lambda: self._run(inputs))

    def _run(self, inputs: Sequence[Tensors]) -> BatchOutcome:
        begun_s = time.perf_counter()
        try:
            answers: list[Tensors | str] = list(self._together(inputs))
        except Exception as error:  # ONNX Runtime's own share no base; a wrong shape fails the whole batch
            if len(inputs) == 1:
                answers = [" ".join(str(error).split())[:300]]
            else:
                answers = [answer for one in inputs for answer in self._run([one]).answers]
        return BatchOutcome(answers, 1e3 * (time.perf_counter() - begun_s))

    def _together(self, inputs: Sequence[Tensors]) -> list[dict[str, NDArray[Any]]]:
        stacked = {name: np.concatenate([one[name] for one in inputs]) for name in inputs[0]}
        outputs = self._session.run(None, stacked)
        sizes = [len(next(iter(one.values()))) for one in inputs]
        ends = np.cumsum(sizes).tolist()
        return [
            {
                name: np.ascontiguousarray(output[end - size : end])
                for name, output in zip(self._names, outputs, strict=True)
            }
            for size, end in zip(sizes, ends, strict=True)
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
