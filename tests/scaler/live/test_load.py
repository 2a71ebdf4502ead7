"""A load against a server in another thread, whose every answer the test decides."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from scaler.errors import BackendError
from scaler.live.load import LoadOptions, LoadProgress, run_load
from scaler.live.load_target import raw_target
from scaler.live.load_url import Server
from scaler.trace import ArrivalProcess, Trace

httptools = pytest.importorskip("httptools", reason="needs the extra serve")

SHAPE = (-1, 4, 8)
METADATA = {"name": "net", "inputs": [{"name": "x", "datatype": "FP32", "shape": list(SHAPE)}], "outputs": []}


class Talk(asyncio.Protocol):
    """One connection of the server."""

    def __init__(self, server: TestServer) -> None:
        self.server, self.parser = server, httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.server.connections += 1
        self.server.talks.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.talks.discard(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.body, self.headers = b"", {}

    def on_url(self, url: bytes) -> None:
        self.url = url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        if self.parser.get_method() == b"GET":
            known = self.url == "/v2/models/net"
            self.answer(200 if known else 404, json.dumps(METADATA if known else {"error": "no such model"}))
            return
        self.server.requests.append((self.url, self.headers, self.body))
        self.server.decide(len(self.server.requests) - 1, self)

    def answer(self, status: int, body: str = "{}") -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body.encode())


class TestServer:
    """Answers as `decide` says, which is called in the server's thread with the number of the request."""

    __test__ = False

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.connections = 0
        self.talks: set[Talk] = set()
        self.decide: Callable[[int, Talk], None] = lambda number, talk: talk.answer(200)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(10)

    async def _serve(self) -> None:
        self.loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        server = await self.loop.create_server(lambda: Talk(self), "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._over.wait()
        server.close()
        for talk in tuple(self.talks):
            talk.transport.abort()

    def close(self) -> None:
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)


@pytest.fixture
def server() -> Iterator[TestServer]:
    made = TestServer()
    yield made
    made.close()


def even(rate_rps: float, duration_s: float) -> dict[str, np.ndarray]:
    return {"net": Trace.of_rates([rate_rps], duration_s).arrivals(["net"])["net"]}


def test_each_request_carries_another_tensor_and_the_same_seed_the_same_ones(server):
    report = run_load(server.url, even(100, 0.4), 0.4, options=LoadOptions(seed=3))
    assert (report.total.requests, report.total.answered, report.total.violations) == (40, 40, 0)
    assert report.total.answered_rps == pytest.approx(100, rel=0.2)
    tensors = []
    for url, headers, body in server.requests:
        assert url == "/v2/models/net/infer"
        length = int(headers["inference-header-content-length"])
        (described,) = json.loads(body[:length])["inputs"]
        assert described["shape"] == [1, 4, 8]
        assert described["parameters"]["binary_data_size"] == len(body) - length == 4 * 32
        tensors.append(body[length:])
    assert len(set(tensors)) == 40
    values = np.frombuffer(b"".join(tensors), np.float32)
    assert abs(values.mean()) < 0.2
    assert values.std() == pytest.approx(1, abs=0.2)
    run_load(server.url, even(100, 0.4), 0.4, options=LoadOptions(seed=3))
    assert sorted(body for _, _, body in server.requests[40:]) == sorted(
        b for _, _, b in server.requests[:40]
    )


def test_a_server_that_stands_still_shows_in_every_request_that_was_due(server):
    """Without coordinated omission, a stall of 0.5 s at 100 rps is in 50 requests, not in one or two."""

    def decide(number: int, talk: Talk) -> None:
        if number == 20:
            time.sleep(0.5)
        talk.answer(200)

    server.decide = decide
    report = run_load(server.url, even(100, 1.0), 1.0, slo_ms={"net": 250})
    records = report.records
    assert report.total.answered == 100
    # 0.2 s into the run it stops, and every request until 0.7 s waits for what is left of the stall.
    stalled = (records.intended_s > 0.22) & (records.intended_s < 0.68)
    left_ms = 1e3 * (0.705 - records.intended_s[stalled])
    assert np.all(records.latency_ms[stalled] > left_ms - 30)
    # They left in time: nothing waited for the answers before.
    assert np.median(1e3 * (records.sent_s - records.intended_s)[stalled]) < 20
    assert report.total.violations >= 20
    assert report.total.p50_ms < report.total.p95_ms


def test_answers_are_not_waited_for(server):
    server.decide = lambda number, talk: talk.server.loop.call_later(0.8, talk.answer, 200)
    report = run_load(server.url, even(100, 0.4), 0.4)
    # All 40 are on the way before the first answer comes, each over a connection of its own.
    assert report.total.answered == 40
    assert server.connections >= 40
    assert report.waited == 0


def test_too_few_connections_are_told_and_counted_in_the_latency(server):
    server.decide = lambda number, talk: talk.server.loop.call_later(0.1, talk.answer, 200)
    report = run_load(server.url, even(50, 0.2), 0.2, options=LoadOptions(connections=1))
    assert report.total.answered == 10
    assert report.waited > 0
    assert "not open" in report.warning
    assert server.connections == 3, "one to see who listens, one for the metadata, and one"
    # One after another: the last leaves after nine answers of 0.1 s each.
    assert report.records.latency_ms[-1] > 1e3 * (0.9 + 0.1 - 0.2)
    assert np.all(np.diff(report.records.sent_s) > 0.09)


def test_every_end_is_counted_by_its_kind(server):
    def decide(number: int, talk: Talk) -> None:
        kind = number % 5
        if kind == 1:
            talk.answer(429)
        elif kind == 2:
            talk.answer(503)
        elif kind == 3:
            talk.transport.abort()
        elif kind == 0:
            talk.answer(200)
        # The fifth kind is never answered.

    server.decide = decide
    seen: list[LoadProgress] = []
    report = run_load(
        server.url, even(40, 1.5), 1.5, options=LoadOptions(timeout_ms=300), on_progress=seen.append
    )
    total = report.total
    assert (total.requests, total.answered, total.refused) == (60, 12, 12)
    assert total.errors == {"503": 12, "connection broken": 12, "timeout": 12}
    assert (total.violations, total.unfinished) == (48, 0)
    timed_out = report.records.latency_ms[report.records.status == -1]
    assert timed_out.min() >= 300
    assert np.median(timed_out) < 400
    assert seen
    assert seen[0].answered > 0
    assert seen[0].in_flight > 0


def test_a_server_that_is_gone_refuses_the_connection(server):
    def decide(number: int, talk: Talk) -> None:
        talk.answer(200)
        if number == 5:
            server._over.set()

    server.decide = decide
    target = raw_target(Server.at(server.url), "/any", (4,))
    report = run_load(server.url, even(50, 0.4), 0.4, targets={"net": target})
    assert report.total.answered >= 6
    assert set(report.total.errors) <= {"connection broken", "no connection"}
    assert sum(report.total.errors.values()) + report.total.answered == 20
    with pytest.raises(BackendError, match="nobody answers there"):
        run_load(server.url, even(50, 0.4), 0.4)


def test_what_is_no_http_is_malformed(server):
    server.decide = lambda number, talk: talk.transport.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    report = run_load(server.url, even(50, 0.2), 0.2)
    assert report.total.errors == {"malformed answer": 10}


def test_a_model_that_is_not_there_is_one_line(server):
    with pytest.raises(BackendError, match=r"GET /v2/models/nyet is answered with 404: .*no such model"):
        run_load(server.url, {"nyet": np.array([0.0])}, 1.0)


def test_stopping_early_reports_what_there_is(server, tmp_path: Path):
    server.decide = lambda number, talk: talk.answer(200) if number < 10 else None
    began = time.perf_counter()
    # By what has come, not by the clock: getting ready takes a second in a process with many modules.
    report = run_load(server.url, even(50, 60), 60, stopped=lambda: len(server.requests) > 30)
    assert time.perf_counter() - began < 5
    total = report.total
    assert report.interrupted
    assert total.answered == 10
    assert total.unfinished == total.requests - 10 > 5
    assert total.violations == 0
    assert total.intended_rps == pytest.approx(50, rel=0.2)
    report.records.write_csv(tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "t_intended_s,t_sent_s,latency_ms,status,function"
    assert len(lines) == total.requests + 1
    intended, sent, latency, status, name = lines[1].split(",")
    assert (status, name, float(intended)) == ("200", "net", pytest.approx(0.01))
    assert float(latency) > 1e3 * (float(sent) - float(intended))
    assert lines[-1].split(",")[2:4] == ["", "unfinished"]


def test_it_keeps_a_pace_of_a_thousand_a_second(server):
    times = Trace.of_rates([1000.0]).arrivals(["net"], ArrivalProcess.POISSON, 1)
    report = run_load(server.url, times, 1.0)
    assert report.total.answered == report.total.requests > 900
    # The server's thread shares this process: the median tells the generator, the tail the machine.
    assert report.lag_p50_ms < 3
    assert report.cpu_cores < 0.9
