"""A worker: the child's side, `python -m scaler.serving.worker_main FD PARENT`.

FD is the child's end of a socket of packets, PARENT the gateway. The first packet says what to load; then
each names the slots of a batch, and is answered when its result may be handed out, that is when the quota
has been repaid. Quota and window are read from shared memory while it works. It ends with its parent.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from rapp.errors import RappError
from rapp.runtime.gate import QuotaGate
from rapp.runtime.quota import QuotaBlock
from scaler.serving.arena import Arena
from scaler.serving.child import die_with, give_way_for_memory
from scaler.serving.executor import Executor, make_executor, zeros
from scaler.serving.network import ServedNetwork, Tensor

PACKET_BYTES = 1 << 16
"""Largest packet in either direction."""

_WARM_UP_RUNS = 2


class Worker:
    """One network, its executor, and the slots.

    Args:
        start: the first packet of the gateway (`scaler.serving.worker_process`).

    Raises:
        RappError: the network or its place cannot be had.
    """

    def __init__(self, start: dict[str, Any]) -> None:
        self._network = network = ServedNetwork.from_json(start["network"])
        self._arena = Arena(start["arena"], start["slots"], network.slot_bytes)
        self._executor: Executor = make_executor(network.file, start["device"])
        self._most = start["max_batch"]
        # Where batches of several samples are put together; a single one is read where it lies.
        self._batches = {one.name: zeros(one.dtype, (self._most, *one.shape)) for one in network.inputs}
        self._run_ns = 0
        for batch in sorted({1, start["batch"], self._most if network.batched else 1}):
            for _ in range(_WARM_UP_RUNS):
                feeds = {name: array[:batch] for name, array in self._batches.items()}
                self._executor.run(feeds if network.batched else {k: v[0] for k, v in feeds.items()})
        # What was made until now stays: collections need not look at it again.
        gc.collect()
        gc.freeze()
        self._gate = QuotaGate(QuotaBlock.open(start["quota"]))

    def serve(self, slots: list[int]) -> dict[str, Any]:
        """Run one batch, hold it for the quota, and tell how long that took.

        Raises:
            Exception: whatever ONNX Runtime raises.
        """
        begun_ns = time.perf_counter_ns()
        outputs = self._gate.run(lambda: self._work(slots), self._executor.device_ms)
        self._store(slots, outputs)
        held_ns = time.perf_counter_ns() - begun_ns
        return {"run_ns": self._run_ns, "device_ms": self._executor.device_ms(), "held_ns": held_ns}

    def _work(self, slots: list[int]) -> Any:
        begun_ns = time.perf_counter_ns()
        feeds = {one.name: self._gathered(one, slots) for one in self._network.inputs}
        outputs = self._executor.run(feeds)
        self._run_ns = time.perf_counter_ns() - begun_ns
        return outputs

    def _gathered(self, tensor: Tensor, slots: list[int]) -> NDArray[Any]:
        """The samples of an input, one behind the other."""
        if len(slots) == 1:
            sample = self._sample(tensor, slots[0])
            return sample[np.newaxis] if self._network.batched else sample
        batch = self._batches[tensor.name][: len(slots)]
        for place, slot in enumerate(slots):
            batch[place] = self._sample(tensor, slot)
        return batch

    def _store(self, slots: list[int], outputs: Any) -> None:
        for tensor, values in zip(self._network.outputs, outputs, strict=True):
            shape = (len(slots), *tensor.shape) if self._network.batched else tensor.shape
            if values.shape != shape:
                raise RappError(
                    f"output {tensor.name} has shape {list(values.shape)} for this input, not {list(shape)}"
                )
            for place, slot in enumerate(slots):
                self._sample(tensor, slot)[...] = values[place] if self._network.batched else values

    def _sample(self, tensor: Tensor, slot: int) -> NDArray[Any]:
        start = slot * self._network.slot_bytes + tensor.offset
        count = tensor.size // np.dtype(tensor.dtype).itemsize
        flat = np.frombuffer(self._arena.memory, tensor.dtype, count, start)
        return flat.reshape(tensor.shape)


def main() -> None:
    """Serve the batches of the gateway until it closes its end."""
    descriptor, parent = (int(argument) for argument in sys.argv[1:3])
    die_with(parent)
    give_way_for_memory()
    # An interrupt from the terminal is for the gateway, which ends its workers in their order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = socket.socket(fileno=descriptor)
    try:
        worker = Worker(orjson.loads(channel.recv(PACKET_BYTES)))
    except RappError as error:
        channel.send(orjson.dumps({"error": str(error)}))
        os._exit(1)
    channel.send(orjson.dumps({"ready": True}))
    while packet := channel.recv(PACKET_BYTES):
        task = orjson.loads(packet)
        try:
            answer = worker.serve(task["slots"])
        except Exception as error:  # ONNX Runtime's own exceptions share no base but Exception
            answer = {"error": " ".join(str(error).split())[:2000]}
        try:
            channel.send(orjson.dumps(answer))
        except OSError:
            break
    # The interpreter's own end would tear down ONNX Runtime, for nobody.
    os._exit(0)


if __name__ == "__main__":
    main()
