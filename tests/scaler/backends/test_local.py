"""The contract of backends over a server of `rapp serve`, and what is `Local`'s own."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

pytest.importorskip("uvicorn", reason="needs the extra serve")

from rapp.errors import ConfigError
from rapp.types import ResourceConfig
from scaler.backends.base import Backend
from scaler.backends.local import Local
from scaler.core.decision import Decision, Drain, Reason, Start
from scaler.errors import BackendError
from scaler.serving.testing import RunningServer, random_network, running
from scaler.serving.token import TokenError
from scaler.testing import BackendContract

FUNCTIONS = [{"name": "f", "network": "net.onnx", "slo_ms": 30000, "min_instances": 0, "max_batch": 4}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("local")
    random_network(folder / "net.onnx")
    with running(folder, FUNCTIONS) as made:
        yield made


class TestLocal(BackendContract):
    # The whole machine, which any number of cores can be.
    config = ResourceConfig(100.0, 40.0, 2)
    server: ClassVar[RunningServer]

    @pytest.fixture
    def backend(self, server: RunningServer) -> Backend:
        type(self).server = server
        return Local(server.url, server.token)

    def reopen(self, backend: Backend) -> Backend:
        return Local(self.server.url, self.server.token)

    def send(self, backend: Backend, requests: int) -> None:
        values = [0.5] * (3 * 8 * 8)
        body = {"inputs": [{"name": "x", "shape": [1, 3, 8, 8], "datatype": "FP32", "data": values}]}
        for _ in range(requests):
            status, text, _ = self.server.ask("POST", "/v2/models/f/infer", json.dumps(body).encode())
            assert status == 200, text

    def kill(self, backend: Backend, instance: str) -> None:
        os.kill(self.server.pids()[instance], signal.SIGKILL)


class TestReaders:
    def test_the_first_observation_has_no_counts_and_each_reader_its_own(self, server: RunningServer) -> None:
        one, other = Local(server.url, server.token), Local(server.url, server.token)
        assert one.observe().functions["f"].arrivals is None
        assert one.observe().functions["f"].arrivals == 0
        assert other.observe().functions["f"].arrivals is None
        one.close()
        other.close()

    def test_an_instance_counts_from_its_start_for_whoever_was_there_before(
        self, server: RunningServer
    ) -> None:
        backend = Local(server.url, server.token)
        left = [Drain(one.id, one.function, Reason.POLICY) for one in backend.observe().instances]
        assert backend.apply(Decision(tuple(left))) == []
        server.wait_until(lambda: server.observation()["instances"] == [], "all are gone")
        config = ResourceConfig(100.0, 20.0, 1)
        start = Start("counted", "f", "cpu:0", 0, config, Reason.POLICY)
        assert backend.apply(Decision((start,))) == []
        contract = TestLocal()
        TestLocal.server = server
        contract.send(backend, 3)
        server.wait_until(lambda: server.observation()["instances"][-1]["requests"] == 3, "3 are counted")
        (seen,) = [one for one in backend.observe().instances if one.id == "counted"]
        assert (seen.requests, seen.batches) == (3, 3)
        # A reader that opened just now did not see them come.
        (seen,) = [one for one in contract.reopen(backend).observe().instances if one.id == "counted"]
        assert (seen.requests, seen.run_ms) == (0, None)
        backend.apply(Decision((Drain("counted", "f", Reason.POLICY),)))
        backend.close()

    def test_a_record_is_shown(self, server: RunningServer) -> None:
        backend = Local(server.url, server.token)
        backend.record({"controller": "a test"})
        assert server.admin("GET", "/admin/events")["decisions"][-1]["controller"] == "a test"
        backend.close()


class TestFaults:
    def test_nobody_there(self) -> None:
        with pytest.raises(BackendError, match=r"does not answer.*rapp serve"):
            Local("http://127.0.0.1:1", "t" * 20).observe()

    def test_another_token(self, server: RunningServer) -> None:
        with pytest.raises(BackendError, match="token"):
            Local(server.url, "t" * 20).observe()

    @pytest.mark.parametrize("url", ["https://127.0.0.1:1", "http://", "127.0.0.1:port"])
    def test_no_url(self, url: str) -> None:
        with pytest.raises(ConfigError):
            Local(url, "t" * 20)

    def test_a_token_that_others_can_read(self, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text("t" * 20)
        file.chmod(0o644)
        with pytest.raises(TokenError, match="chmod 600"):
            Local.at("http://127.0.0.1:1", file)

    def test_closed(self, server: RunningServer) -> None:
        backend = Local(server.url, server.token)
        backend.close()
        with pytest.raises(BackendError):
            backend.observe()

    def test_a_server_that_was_started_anew_has_no_counts_at_first(self, tmp_path: Path) -> None:
        random_network(tmp_path / "net.onnx")
        with running(tmp_path, FUNCTIONS) as first:
            port = first.port
            backend = Local(first.url, first.token)
            backend.observe()
            assert backend.observe().functions["f"].arrivals == 0
            assert first.stop() == 0
        with pytest.raises(BackendError):
            backend.observe()
        with running(tmp_path, FUNCTIONS, "--port", str(port)):
            assert backend.observe().functions["f"].arrivals is None
            assert backend.observe().functions["f"].arrivals == 0
        backend.close()
