"""What tests of the server, and of what drives it, have in common: a small network, and a server of it.

network = random_network(folder / "net.onnx")
with running(folder, [{"name": "f", "network": "net.onnx", "slo_ms": 500}]) as server:
    server.wait_ready()
    ...                                  # server.url, server.token, server.observation()
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rapp.fileio import atomic_path
from scaler.serving.spawned import spawned

PATIENCE_S = 60.0
"""For what takes a second on an idle machine."""
_POLL_S = 0.02


def random_network(file: Path, *, seed: int = 0, size: int = 8, layers: int = 2, channels: int = 8) -> Path:
    """Write a network of convolutions with random weights, exported at batch 1; it tells inputs apart.

    Input `x`: FP32 of [1, 3, size, size]; output `y`: FP32 of [1, 10].
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(seed)
    nodes, weights, last, depth = [], [], "x", 3
    for layer in range(layers):
        scale = (9 * depth) ** -0.5
        kernel = random.normal(0, scale, (channels, depth, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{layer}"))
        nodes.append(helper.make_node("Conv", [last, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        last, depth = f"r{layer}", channels
    matrix = random.normal(0, 1, (channels, 10)).astype(np.float32)
    weights.append(numpy_helper.from_array(matrix, "m"))
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["p"]),
        helper.make_node("Flatten", ["p"], ["v"]),
        helper.make_node("MatMul", ["v", "m"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "random",
        [value("x", TensorProto.FLOAT, [1, 3, size, size])],
        [value("y", TensorProto.FLOAT, [1, 10])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    return file


@dataclass
class RunningServer:
    """A server in a process of its own.

    Args:
        process: that of `rapp serve`. port: where it listens, on 127.0.0.1. token: of its admin interface.
        log: file with what it prints.
    """

    process: subprocess.Popen[bytes]
    port: int
    token: str
    log: Path

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = PATIENCE_S,
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """Status, body and headers (by their names in lower case) of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return (
                answer.status,
                answer.read(),
                {name.lower(): value for name, value in answer.getheaders()},
            )

    def admin(self, method: str, path: str, body: bytes | None = None) -> Any:
        """The JSON of an answer of the admin interface."""
        status, text, _ = self.ask(method, path, body, {"Authorization": f"Bearer {self.token}"})
        assert status == 200, (status, text)
        return json.loads(text)

    def observation(self) -> Any:
        """What controllers see: `GET /admin/observation`."""
        return self.admin("GET", "/admin/observation")

    def pids(self) -> dict[str, int]:
        """The workers' process ids, by instance."""
        return {one["id"]: one["pid"] for one in self.observation()["instances"] if one["pid"] is not None}

    def wait_ready(self) -> None:
        """Wait until every function that keeps instances has one that serves."""
        self.wait_until(lambda: self.ask("GET", "/v2/health/ready")[0] == 200, "it is ready")

    def wait_until(self, holds: Any, what: str) -> None:
        """Wait until it holds."""
        end_s = time.monotonic() + PATIENCE_S
        while not holds():
            assert self.process.poll() is None, f"the server ended: {self.log.read_text()}"
            assert time.monotonic() < end_s, f"not in {PATIENCE_S:g} s: {what}; {self.log.read_text()}"
            time.sleep(_POLL_S)

    def stop(self) -> int:
        """Send SIGTERM and wait; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


@contextlib.contextmanager
def running(folder: Path, functions: Sequence[Mapping[str, Any]], *arguments: str) -> Iterator[RunningServer]:
    """A server of functions, as functions.yaml lists them; it listens when the block begins.

    Args:
        folder: where its files go; networks are relative to it. arguments: more of `rapp serve`.
    """
    file = folder / "functions.yaml"
    with atomic_path(file) as path:
        # YAML reads JSON.
        path.write_text(json.dumps({"version": 1, "functions": list(functions)}))
    with spawned(file, folder, *arguments, environment={"OMP_NUM_THREADS": "1"}) as server:
        port = urlsplit(server.url).port
        assert port is not None
        yield RunningServer(server.process, port, server.token_file.read_text().strip(), server.log)
