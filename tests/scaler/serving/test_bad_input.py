"""What comes over a socket that is no request: a 4xx with one sentence, and the workers are as before."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scaler.serving.testing import RunningServer

INFER = "POST /v2/models/net/infer HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(autouse=True)
def workers_stay(server: RunningServer) -> Iterator[None]:
    before = server.pids()
    yield
    assert server.pids() == before
    assert server.ask("GET", "/v2/health/ready")[0] == 200


@contextmanager
def connected(server: RunningServer) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as made:
        yield made


def answer_of(made: socket.socket) -> tuple[int, str]:
    """Status and sentence of the answer on a socket."""
    text = b""
    while b"\r\n\r\n" not in text:
        part = made.recv(65536)
        assert part, text
        text += part
    head, _, body = text.partition(b"\r\n\r\n")
    (length,) = (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    while len(body) < length:
        body += made.recv(65536)
    return int(head.split()[1]), json.loads(body)["error"]


def test_a_body_of_1_gb_is_refused_before_it_is_sent(server: RunningServer) -> None:
    with connected(server) as made:
        made.sendall(f"{INFER}Content-Length: {1 << 30}\r\n\r\n".encode())
        status, reason = answer_of(made)
        assert status == 413
        assert "1073741824 bytes" in reason


def test_a_body_without_a_length_is_read_up_to_the_limit(server: RunningServer) -> None:
    """Chunks of 64 KiB without end: the answer comes although the client sends on."""
    with connected(server) as made:
        made.sendall(f"{INFER}Transfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        with suppress(OSError):  # it hangs up at last
            for _ in range(64):
                made.sendall(chunk)
        status, reason = answer_of(made)
        assert status == 413
        assert reason


def test_a_body_that_ends_early(server: RunningServer) -> None:
    with connected(server) as made:
        made.sendall(f"{INFER}Content-Length: 100\r\n\r\n{{".encode())
        made.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            assert b" 200 " not in made.recv(65536)


def test_a_slow_client_keeps_nobody_waiting(server: RunningServer) -> None:
    with connected(server) as made:
        made.sendall(f"{INFER}Content-Length: 100\r\n\r\n{{".encode())
        begun_s = time.monotonic()
        assert server.ask("GET", "/v2/models/net/ready")[0] == 200
        assert time.monotonic() - begun_s < 5


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/net/infer", 404),
        ("PUT", "/v2/models/net", 405),
        ("GET", "/v2/models/net/versions/2", 404),
        ("POST", "/v2/models/net/versions/2/infer", 404),
        ("GET", "/v2/models/%00/ready", 404),
        ("GET", "/static/../../../../etc/passwd", 404),
        ("GET", "/static/%2e%2e/%2e%2e/server.py", 404),
        ("POST", "/v2/models//infer", 404),
        ("GET", "/nothing", 404),
    ],
)
def test_paths(server: RunningServer, method: str, path: str, status: int) -> None:
    got, text, _ = server.ask(method, path, b"{}" if method != "GET" else None)
    assert got == status, text
    assert json.loads(text)["error"]


def test_a_compressed_body(server: RunningServer) -> None:
    status, text, _ = server.ask("POST", "/v2/models/net/infer", b"xx", {"Content-Encoding": "gzip"})
    assert status == 415
    assert "compressed" in json.loads(text)["error"]


@pytest.mark.parametrize(
    "head", ["GARBAGE\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "POST /v2 HTTP/1.1\r\nContent-Length: x\r\n\r\n"]
)
def test_what_is_no_http(server: RunningServer, head: str) -> None:
    with connected(server) as made:
        made.sendall(head.encode())
        assert made.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_headers_without_end(server: RunningServer) -> None:
    """A client that sends headers for ever is cut off before they fill the memory."""
    with connected(server) as made:
        made.sendall(b"GET /v2 HTTP/1.1\r\n")
        with pytest.raises(OSError), suppress(TimeoutError):
            for number in range(1 << 16):
                made.sendall(f"h{number}: {'x' * 1000}\r\n".encode())
            pytest.fail("64 MB of headers were taken")


HEADERS = st.dictionaries(
    st.sampled_from(["Inference-Header-Content-Length", "Content-Type", "x-request-timeout-ms", "X"]),
    st.sampled_from(["0", "7", "-1", "1e3", "999999999999999999", "text/plain", "\u00e4", ""]),
    max_size=3,
)
PATHS = st.lists(
    st.sampled_from(["v2", "models", "net", "infer", "ready", "health", "versions", "1", "..", "%2e", "a b"]),
    max_size=5,
).map(lambda parts: "/" + "/".join(part.replace(" ", "%20") for part in parts))
BODIES = st.binary(max_size=60) | st.sampled_from(
    [
        b"{}",
        b"[]",
        b"null",
        b'{"inputs": []}',
        b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]}',
    ]
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=st.sampled_from(["GET", "POST", "PUT", "HEAD"]), path=PATHS, headers=HEADERS, body=BODIES)
def test_any_request_gets_an_answer(
    server: RunningServer, method: str, path: str, headers: dict[str, str], body: bytes
) -> None:
    status, text, _ = server.ask(method, path, body, headers)
    assert status < 500
    if status >= 400 and method != "HEAD":
        reason = json.loads(text)["error"]
        assert reason and "\n" not in reason and len(reason) < 400


ACTIONS = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from(["start", "resize", "drain", "burn"]),
        "id": st.sampled_from(["new", "other", ""]) | st.integers(),
        "function": st.sampled_from(["net", "none", ""]),
        "gpu": st.sampled_from(["cpu:0", "cpu:1"]),
        "row": st.integers(-2, 101),
        # Too large for any row: nothing is ever started by it.
        "config": st.fixed_dictionaries(
            {"sm_pct": st.sampled_from([100, 0, -5, 101]), "quota_pct": st.sampled_from([99, 0, 1e9])},
            optional={"batch": st.integers(-1, 9)},
        ),
        "quota_pct": st.sampled_from([99, 0, -1]),
        "batch": st.integers(-1, 9),
        "reason": st.sampled_from(["demand rises", "no reason"]),
    },
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(ACTIONS, max_size=3), version=st.sampled_from([1, 2, "1", None]))
def test_any_decision_gets_an_answer(server: RunningServer, actions: list[object], version: object) -> None:
    body = json.dumps({"version": version, "actions": actions}).encode()
    status, text, _ = server.ask("POST", "/admin/apply", body, {"Authorization": f"Bearer {server.token}"})
    assert status in (200, 400)
    answer = json.loads(text)
    if status == 200:
        # What is gone may be drained; all else has no room, or no such instance.
        assert len(answer["refused"]) == sum(one.get("kind") != "drain" for one in actions)
    else:
        assert answer["error"]
