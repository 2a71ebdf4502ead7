"""Large JSON: read by a process of its own, alike, and without a request lost when that one is."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

pytest.importorskip("uvicorn", reason="needs the extra serve")

from scaler.serving import json_process
from scaler.serving.json_process import LARGE_BYTES, JsonProcess
from scaler.serving.json_values import AT_ONCE, json_of_values
from scaler.serving.network import ServedNetwork, lay_out
from scaler.serving.protocol import parse_infer
from scaler.serving.requests import BadRequestError
from scaler.serving.testing import RunningServer, random_network, running

SHAPE, MAX_BATCH = (3, 8, 8), 4
PLACED = lay_out([("x", "float32", SHAPE), ("n", "int64", ())], [("y", "float32", (2,)), ("z", "bool", (1,))])
NETWORK = ServedNetwork(Path("net.onnx"), True, *PLACED, 100.0)
X = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)


def request(data: Any = None, **more: Any) -> bytes:
    x = {"name": "x", "datatype": "FP32", "shape": [3, *SHAPE], "data": X.tolist() if data is None else data}
    n = {"name": "n", "datatype": "INT64", "shape": [3], "data": [1, -2, 2**40]}
    return orjson.dumps({"inputs": [n, x], **more})


def with_child(test: Callable[[JsonProcess], Awaitable[Any]]) -> None:
    async def run() -> None:
        child = JsonProcess({"f": (NETWORK, MAX_BATCH)})
        try:
            await asyncio.wait_for(test(child), 30)
        finally:
            child.close()

    asyncio.run(run())


def in_s(seconds: float) -> float:
    return time.monotonic() + seconds


def test_it_reads_as_the_gateway_does() -> None:
    good = [
        request(),
        request(X.ravel().tolist(), id="\u00fc\n\"'", parameters={"timeout": 2_000_000}),
        request(outputs=[{"name": "z", "parameters": {"binary_data": True}}, {"name": "y"}]),
    ]
    bad = [request([1.0]), request(id=3), b"{", b"\xff" * 9, request(X.tolist(), outputs=[{"name": "q"}])]

    async def test(child: JsonProcess) -> None:
        for body in good:
            ours = parse_infer(body, None, NETWORK, MAX_BATCH)
            theirs = await child.read("f", body, None, in_s(30))
            assert [bytes(one) for one in theirs.values] == [bytes(one) for one in ours.values]
            for name in ("id", "samples", "outputs", "timeout_s"):
                assert getattr(theirs, name) == getattr(ours, name)
        for body in bad:
            with pytest.raises(BadRequestError) as ours_wrong:
                parse_infer(body, None, NETWORK, MAX_BATCH)
            with pytest.raises(BadRequestError) as theirs_wrong:
                await child.read("f", body, None, in_s(30))
            assert theirs_wrong.value.fault == ours_wrong.value.fault
        # JSON before values in binary may be large, too.
        body = request()
        mixed = body + b"left over"
        with pytest.raises(BadRequestError, match="9 bytes of the body belong to no input"):
            await child.read("f", mixed, str(len(body)).encode(), in_s(30))

    with_child(test)


def test_what_is_large_is_so_in_json() -> None:
    large, head = bytes(LARGE_BYTES + 1), str(LARGE_BYTES + 1).encode()
    assert JsonProcess.is_large(large, None)
    assert JsonProcess.is_large(large, head)
    for length in (b"100", b"x", b"", b"-1"):
        assert not JsonProcess.is_large(large, length)
    assert not JsonProcess.is_large(large[:-1], None)


def test_a_child_that_is_lost_is_started_again_and_what_it_read_is_read_again() -> None:
    async def test(child: JsonProcess) -> None:
        await child.read("f", request(), None, in_s(30))
        assert child._child is not None
        first = child._child.process
        first.send_signal(signal.SIGSTOP)
        reading = [asyncio.ensure_future(child.read("f", request(), None, in_s(30))) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert not any(one.done() for one in reading)
        first.kill()
        for one in await asyncio.gather(*reading):
            assert bytes(one.values[0]) == X.tobytes()
        assert child._child.process.pid != first.pid

    with_child(test)


def test_a_body_that_ends_every_child_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(child: JsonProcess) -> None:
        given = child._start

        async def killed() -> Any:
            made = await given()
            made.process.kill()
            return made

        monkeypatch.setattr(child, "_start", killed)
        with pytest.raises(BadRequestError, match="was lost") as wrong:
            await child.read("f", request(), None, in_s(30))
        assert wrong.value.fault.status == HTTPStatus.SERVICE_UNAVAILABLE
        monkeypatch.undo()
        assert (await child.read("f", request(), None, in_s(30))).samples == 3

    with_child(test)


def test_deadlines_and_bodies_that_wait_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    body = request()
    monkeypatch.setattr(json_process, "MOST_WAITING_BYTES", 2 * len(body))

    async def test(child: JsonProcess) -> None:
        await child.read("f", body, None, in_s(30))
        assert child._child is not None
        process = child._child.process
        process.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        reading = [asyncio.ensure_future(child.read("f", body, None, in_s(0.2))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(BadRequestError, match="too many large") as wrong:
            await child.read("f", body, None, in_s(30))
        assert (wrong.value.fault.status, wrong.value.fault.retry_after_s) == (429, 1)
        for one in reading:
            with pytest.raises(TimeoutError):
                await one
        assert time.monotonic() - begun < 2
        process.send_signal(signal.SIGCONT)
        # The child was not ended for it, and what it answered late is nobody else's answer.
        while child._waiting_bytes:
            await asyncio.sleep(0.01)
        assert (await child.read("f", request(id="other"), None, in_s(30))).id == "other"
        assert child._child.process is process

    with_child(test)


@pytest.mark.parametrize("count", [0, 1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE - 1])
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_values_are_written_as_one_list(count: int, dtype: str) -> None:
    array = (100 * np.random.default_rng(1).normal(size=count)).astype(dtype)
    text = orjson.dumps({"data": asyncio.run(json_of_values(array))})
    assert json.loads(text) == {"data": orjson.loads(orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY))}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("large")
    random_network(folder / "net.onnx", size=64, channels=4)
    with running(folder, [{"name": "net", "network": "net.onnx", "slo_ms": 500}]) as made:
        made.wait_ready()
        yield made


def test_a_large_request_is_answered_as_a_binary_one_is(server: RunningServer) -> None:
    x = np.random.default_rng(2).normal(size=(1, 3, 64, 64)).astype(np.float32)
    one = {"name": "x", "datatype": "FP32", "shape": list(x.shape)}
    as_json = json.dumps({"inputs": [{**one, "data": x.tolist()}]}).encode()
    assert len(as_json) > LARGE_BYTES
    head = json.dumps({"inputs": [{**one, "parameters": {"binary_data_size": x.nbytes}}]}).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    before = server.observation()["functions"]["net"]
    answers = [
        server.ask("POST", "/v2/models/net/infer", body, headers)
        for body, headers in ((as_json, {}), (head + x.tobytes(), length))
    ]
    assert [status for status, _, _ in answers] == [200, 200]
    assert json.loads(answers[0][1]) == json.loads(answers[1][1])
    # No time for it: it is counted, and ends as the ones that were read do.
    status, text, headers = server.ask(
        "POST", "/v2/models/net/infer", as_json, {"x-request-timeout-ms": "0.01"}
    )
    assert (status, headers["retry-after"]) == (503, "1")
    assert "deadline" in json.loads(text)["error"]
    after = server.observation()["functions"]["net"]
    assert [after[name] - before[name] for name in ("arrivals", "completed", "refused")] == [3, 2, 1]


def test_the_child_ends_with_the_server(server: RunningServer) -> None:
    def children() -> list[int]:
        listed = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        return [int(pid) for pid in listed if b"json_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    # It is no request, but it is large, and is read.
    status, text, _ = server.ask("POST", "/v2/models/net/infer", b"[%s]" % b",".join([b"1"] * LARGE_BYTES))
    assert (status, json.loads(text)["error"]) == (400, "the body is no JSON object")
    (pid,) = children()
    assert server.stop() == 0
    server.wait_until(lambda: not Path(f"/proc/{pid}").exists(), "it is gone")
