"""What the peers of scripts/bench_serving.py run: one ONNX Runtime session, as `rapp serve` has it.

Imported in the peers' own venvs, which have no RaPP.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def arguments() -> tuple[str, int, int]:
    """Network, port and batch of the command line."""
    network, port, batch = sys.argv[1:4]
    return network, int(port), int(batch)


class Session:
    """A session of one thread on the CPU, warmed up at every batch; it has one input.

    Args:
        network: the ONNX file. batch: the largest.
    """

    def __init__(self, network: str, batch: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
        (value,) = self._session.get_inputs()
        self._name, self._shape = value.name, value.shape[1:]
        for size in range(1, batch + 1):
            self.run(np.zeros((size, *self._shape), np.float32))

    def sample(self, body: bytes) -> Any:
        """The sample whose values are the body of a request."""
        return np.frombuffer(body, np.float32).reshape(self._shape)

    def run(self, batch: Any) -> Any:
        """The first output of a batch."""
        return self._session.run(None, {self._name: batch})[0]
