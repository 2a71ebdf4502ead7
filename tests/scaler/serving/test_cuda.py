"""The device `cuda` without a GPU: the stub driver, imitations of NVML, MPS and ONNX Runtime's CUDA provider.

Processes, partitions, quota and protocol are real; kernels only take time.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).parents[2] / "fakes"))

from gpu_fixtures import UUID, Machine, machine, small_network, stub_driver

from rapp.runtime.processes import processes_with
from rapp.types import ResourceConfig
from scaler.core.decision import Decision, Reason, Resize, Start
from scaler.core.observation import Phase
from scaler.functions import FunctionSpec
from scaler.serving.devices import CudaDevice
from scaler.serving.fleet import Fleet
from scaler.serving.network import ServedNetwork, lay_out
from scaler.serving.requests import Request

__all__ = ["machine", "small_network", "stub_driver"]


def daemons(root: Path) -> set[int]:
    pipes = str(root / UUID[-12:] / "p")
    return processes_with("nvidia-cuda-mps-", "CUDA_MPS_PIPE_DIRECTORY", pipes)


def network(file: Path) -> ServedNetwork:
    inputs, outputs, slot_bytes = lay_out([("x", "float32", (6,))], [("y", "float32", (4,))])
    return ServedNetwork(file, True, inputs, outputs, slot_bytes, 200.0)


async def infer(fleet: Fleet, x: Any) -> Any:
    """The answer to one request, by the way that a request takes behind HTTP."""
    function = fleet.functions["f"]
    slots = function.admit(len(x))
    assert isinstance(slots, list)
    (tensor,), (output,) = function.network.inputs, function.network.outputs
    memory, size = function.arena.memory, function.arena.slot_bytes
    for slot, row in zip(slots, x, strict=True):
        memory[slot * size + tensor.offset : slot * size + tensor.offset + tensor.size] = row.tobytes()
    now_s = time.monotonic()
    request = Request(now_s, now_s + 30, slots)
    function.submit(request)
    assert await request.done is None
    starts = [slot * size + output.offset for slot in slots]
    y = np.stack([np.frombuffer(bytes(memory[at : at + output.size]), np.float32) for at in starts])
    function.give_back(request)
    return y


async def ready(fleet: Fleet, count: int) -> None:
    end_s = time.monotonic() + 60
    while sum(one.phase is Phase.READY for one in fleet.instances.values()) < count:
        assert time.monotonic() < end_s, list(fleet.events)
        await asyncio.sleep(0.02)


def test_partitions_quota_and_answers(
    machine: Machine, small_network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_ORT", json.dumps({"kernel_us": 500}))
    weight = numpy_helper.to_array(onnx.load(small_network).graph.initializer[0])
    x = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)
    spec = FunctionSpec(name="f", network=str(small_network), slo_ms=500, max_batch=4)

    async def serve(device: CudaDevice) -> None:
        fleet = Fleet((spec,), {"f": network(small_network)}, device)
        try:
            quarter = Start("a", "f", "cuda:0", 0, ResourceConfig(25, 60, 2), Reason.POLICY)
            assert fleet.apply(Decision((quarter,))) == []
            await ready(fleet, 1)
            assert daemons(machine.claims)
            np.testing.assert_allclose(await infer(fleet, x), np.maximum(x @ weight, 0), rtol=1e-5)
            counts = fleet.instances["a"].counts
            # The stub's 4 kernels take 4 times as long on a quarter of the multiprocessors: 8 ms a sample.
            assert 1e3 * counts.device_s / counts.samples > 8
            half = Start("b", "f", "cuda:0", 1, ResourceConfig(50, 100, 4), Reason.POLICY)
            assert fleet.apply(Decision((half, Resize("a", "f", 20, 1, Reason.POLICY)))) == []
            await ready(fleet, 2)
            answers = await asyncio.gather(*(infer(fleet, x) for _ in range(6)))
            for y in answers:
                np.testing.assert_allclose(y, np.maximum(x @ weight, 0), rtol=1e-5)
            assert fleet.instances["b"].counts.samples > 0
            third = Start("c", "f", "cuda:0", 2, ResourceConfig(50, 10, 1), Reason.POLICY)
            ((id_, why),) = fleet.apply(Decision((third,)))
            assert (id_, "125 % of its SMs" in why) == ("c", True)
        finally:
            await fleet.close()

    device = CudaDevice("0")
    try:
        asyncio.run(serve(device))
    finally:
        device.close()
    assert daemons(machine.claims) == set()
