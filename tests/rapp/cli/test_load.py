"""`rapp load` as a user runs it, against a server in another thread."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("httptools", reason="needs the extra serve")


class Handler(BaseHTTPRequestHandler):
    """A model whose every fourth request is refused."""

    protocol_version = "HTTP/1.1"
    count = 0

    def do_GET(self) -> None:
        inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 8]}]
        self._answer(200, json.dumps({"name": "net", "inputs": inputs}).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).count += 1
        self._answer(429 if self.count % 4 == 0 else 200, b"{}")

    def _answer(self, status: int, body: bytes) -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self.wfile.write(head + body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    file = tmp_path / "trace.csv"
    file.write_text("t_s,rps\n0,20\n1,40\n2,0\n")
    return file


def test_a_table_for_people(rapp, url, trace):
    ended = rapp(
        "load", "--trace", trace, "--url", url, "--function", "net", "--function", "other", "--to", 1,
        "--arrivals", "even", "--slo-ms", "net=2000",
    )  # fmt: skip
    out = ended.printed()
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.split()}
    assert rows["net"][1] == rows["other"][1] == "20"
    assert rows["all"][1:4] == ["40", "30", "25.00"]
    assert rows["net"][-1] == "2,000"
    assert "not answered: 10 refused (429)" in out
    assert "rate: 40.0 rps intended" in out


def test_json_and_csv_for_programs(rapp, url, trace, tmp_path):
    out = tmp_path / "out.csv"
    ended = rapp(
        "load", "--trace", trace, "--url", url, "--function", "net", "--from", 1, "--to", 2, "--scale", 0.5,
        "--out", out, "--arrivals", "even", "--json",
    )  # fmt: skip
    content = json.loads(ended.out)
    assert content["version"] == 1
    assert content["functions"]["net"]["requests"] == content["total"]["requests"] == 20
    assert content["total"]["refused"] == 5
    rows = [line.split(",") for line in out.read_text().splitlines()[1:]]
    assert [row[3] for row in rows].count("429") == 5
    assert [float(row[0]) for row in rows] == pytest.approx([0.025 + 0.05 * place for place in range(20)])


def test_ctrl_c_prints_what_there_is(rapp, url, trace):
    first = Handler.count

    def press() -> None:
        while Handler.count < first + 10:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Thread(target=press, daemon=True)
    timer.start()
    ended = rapp("load", "--trace", trace, "--url", url, "--function", "net", "--arrivals", "even")
    timer.join()
    assert ended.code == 130
    assert "rate: " in ended.out
    assert "interrupted after" in ended.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--function", "net", "--arrivals", "odd"], "--arrivals odd: it is even or poisson"),
        ([], "say --function NAME"),
        (["--function", "net", "--slo-ms", "fast"], "--slo-ms fast: write 60 or NAME=60"),
        (["--function", "net", "--url", "http://127.0.0.1:1"], "nobody answers there"),
        (["--function", "net", "--timeout-ms", "0"], "timeout_ms is 0"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(rapp, trace, options, message):
    assert message in rapp("load", "--trace", trace, *options).line()
