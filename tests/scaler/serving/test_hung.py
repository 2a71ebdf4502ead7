"""A worker that stands still is replaced, one that waits for its quota is not; clients that hang up."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from rapp.types import ResourceConfig
from scaler.core.decision import Decision, Reason, Start
from scaler.core.observation import Phase
from scaler.functions import FunctionSpec
from scaler.serving.devices import CpuDevice
from scaler.serving.fleet import Fleet
from scaler.serving.prepare import prepare
from scaler.serving.requests import Request
from scaler.serving.testing import RunningServer, random_network

HUNG_S = 1.0


async def until(holds: Callable[[], object], what: str) -> None:
    end_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end_s, what
        await asyncio.sleep(0.01)


def test_held_is_not_hung_and_stopped_is(tmp_path: Path) -> None:
    source = random_network(tmp_path / "net.onnx", size=64, layers=4, channels=32)
    (tmp_path / "made").mkdir()
    network = prepare(source, tmp_path / "made", 2)
    assert network.batched
    spec = FunctionSpec(name="f", network=str(source), slo_ms=500, max_batch=2)

    def ask(fleet: Fleet) -> Request:
        slots = fleet.functions["f"].admit(1)
        assert isinstance(slots, list)
        now_s = time.monotonic()
        request = Request(now_s, now_s + 60, slots)
        fleet.functions["f"].submit(request)
        return request

    async def body() -> None:
        fleet = Fleet((spec,), {"f": network}, CpuDevice(), hung_s=HUNG_S)
        try:
            # At this quota some milliseconds of device time are held for seconds.
            start = Start("a", "f", "cpu:0", 0, ResourceConfig(100, 0.1, 1), Reason.POLICY)
            assert fleet.apply(Decision((start,))) == []
            one = fleet.instances["a"]
            await until(lambda: one.phase is Phase.READY, "it serves")
            begun_s = time.monotonic()
            while time.monotonic() - begun_s < 2.5 * HUNG_S:
                assert await ask(fleet).done is None
            assert one.counts.held_s / one.counts.batches > HUNG_S
            assert one.counts.restarts == 0
            one.resize(100.0, 1)
            assert one.worker is not None
            pid = one.worker.pid
            os.kill(pid, signal.SIGSTOP)
            # Answered by the worker that takes the place of the stopped one.
            assert await ask(fleet).done is None
            assert one.counts.restarts == 1
            assert one.worker is not None and one.worker.pid != pid
        finally:
            await fleet.close()

    asyncio.run(body())


def test_who_hangs_up_leaves_the_queue(server: RunningServer) -> None:
    size = 4 * 2 * 3 * 160 * 160
    head = (
        b'{"inputs": [{"name": "x", "shape": [2, 3, 160, 160], "datatype": "FP32",'
        b' "parameters": {"binary_data_size": %d}}]}' % size
    )
    request = (
        b"POST /v2/models/slow/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n"
        b"Inference-Header-Content-Length: %d\r\n\r\n" % (len(head) + size, len(head))
    ) + head + bytes(size)  # fmt: skip
    before = server.observation()["functions"]["slow"]
    made = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
    for one in made:
        one.sendall(request)
    server.wait_until(
        lambda: server.observation()["functions"]["slow"]["arrivals"] >= before["arrivals"] + 4, "they came"
    )
    for one in made:
        one.close()

    def over() -> bool:
        seen = server.observation()["functions"]["slow"]
        ended = sum(seen[name] - before[name] for name in ("completed", "refused"))
        return bool(ended == 4 and seen["queue"] == seen["in_flight"] == 0)

    server.wait_until(over, "nothing is left of them")
