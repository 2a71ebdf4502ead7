"""A fake API server of Kubernetes that listens on HTTP, and a fake gateway beside it."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fake_kubernetes import KINDS, Answer, FakeKubernetes, Json, matches


@contextlib.contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server on a free port: its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def served(state: FakeKubernetes) -> Iterator[str]:
    """The API server of a state: its URL."""

    class Handler(_Handler):
        server_state = state

    try:
        with listening(Handler) as url:
            yield url
    finally:
        state.close()


@contextlib.contextmanager
def gateway(observation: Callable[[], Json], token: str | None = None) -> Iterator[str]:
    """A gateway whose admin observation is asked for: its URL."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            allowed = token is None or self.headers.get("Authorization") == f"Bearer {token}"
            found = self.path == "/admin/observation"
            data = json.dumps(observation()).encode() if allowed and found else b"{}"
            self.send_response(200 if allowed and found else 401 if found else 404)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    with listening(Handler) as url:
        yield url


class _Handler(BaseHTTPRequestHandler):
    server_state: FakeKubernetes
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(time.time() + self.server_state.ahead_s)

    def parse_request(self) -> bool:
        # A server that ended answers nobody, not even on a connection that is still open.
        self.close_connection = self.server_state.ends
        return not self.server_state.ends and super().parse_request()

    def do_GET(self) -> None:
        kind, name, query = self._target()
        state = self.server_state
        if query.get("watch", "").lower() == "true":  # older clients write True
            self._stream(
                state.watch(
                    kind, int(query["resourceVersion"]), float(query.get("timeoutSeconds", 300)),
                    query.get("labelSelector", ""),
                )
            )  # fmt: skip
            return
        with state.lock:
            if name:
                found = state.objects[kind].get(name)
                answer: Json | Answer = found or Answer(404, f'{kind} "{name}" not found')
            else:
                chosen = [
                    one
                    for one in state.objects[kind].values()
                    if matches(one, query.get("labelSelector", ""))
                ]
                first, limit = int(query.get("continue", 0)), int(query.get("limit", 500))
                metadata = {"resourceVersion": str(state.version)}
                if first + limit < len(chosen):
                    metadata["continue"] = str(first + limit)
                answer = {
                    "kind": f"{KINDS[kind]}List",
                    "metadata": metadata,
                    "items": chosen[first : first + limit],
                }
            self._answer(answer)

    def do_POST(self) -> None:
        self._write(lambda state, kind, name, body: state.create(kind, body))

    def do_PATCH(self) -> None:
        # Of annotations a strategic merge makes the same, and older clients ask for it.
        kind = self.headers["Content-Type"].removeprefix("application/")
        assert kind in ("merge-patch+json", "strategic-merge-patch+json")
        self._write(lambda state, kind, name, body: state.patch(kind, name, body))

    def do_PUT(self) -> None:
        self._write(lambda state, kind, name, body: state.replace(kind, name, body))

    def do_DELETE(self) -> None:
        self._write(lambda state, kind, name, body: state.delete(kind, name, body))

    def _write(self, change: Any) -> None:
        kind, name, _ = self._target()
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        state = self.server_state
        with state.lock:
            self._answer(state.faults.pop(0) if state.faults else change(state, kind, name, body))

    def _target(self) -> tuple[str, str, dict[str, str]]:
        parts = urlsplit(self.path)
        path = parts.path.strip("/").split("/")
        at = next(number for number, part in enumerate(path) if part in KINDS)
        self.server_state.requests.append((self.command, self.path))
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        return path[at], "/".join(path[at + 1 :]), query

    def _answer(self, answer: Json | Answer) -> None:
        status = 200
        if isinstance(answer, Answer):
            status, message = answer
            answer = {"kind": "Status", "status": "Failure", "code": status, "message": message}
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, events: Iterator[Json]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for event in events:
                data = json.dumps(event).encode() + b"\n"
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True
