"""Inference by tritonclient, unmodified, checked against direct runs of networks with random weights."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from scaler.serving.testing import RunningServer

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Any:
    made = triton.InferenceServerClient(f"127.0.0.1:{server.port}", concurrency=8)
    yield made
    made.close()


def inputs(x: Any, binary: bool = True) -> list[Any]:
    made = triton.InferInput("x", list(x.shape), "FP32")
    made.set_data_from_numpy(x, binary_data=binary)
    return [made]


def samples(count: int, seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=(count, 3, 8, 8)).astype(np.float32)


class TestMetadata:
    def test_server_and_models_tell_what_they_are(self, client: Any) -> None:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("net")
        assert client.is_model_ready("net", "1")
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        metadata = client.get_model_metadata("net")
        assert metadata["name"] == "net"
        assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3, 8, 8]}]
        assert metadata["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 10]}]

    @pytest.mark.parametrize("name", ["none", "..", "net/../net", "net%2f..", "a" * 500])
    def test_a_model_that_is_not_there_is_an_error(self, server: RunningServer, name: str) -> None:
        for method, path in (("GET", ""), ("GET", "/ready"), ("POST", "/infer")):
            status, text, _ = server.ask(method, f"/v2/models/{name}{path}", b"{}" if path else None)
            assert status == 404, (path, text)
            assert json.loads(text)["error"]


class TestAnswers:
    @pytest.mark.parametrize("count", [1, 2, 4])
    @pytest.mark.parametrize("binary", [True, False])
    def test_as_a_direct_run(self, client: Any, direct: Any, count: int, binary: bool) -> None:
        x = samples(count, seed=count)
        wanted = [triton.InferRequestedOutput("y", binary_data=binary)]
        answer = client.infer("net", inputs(x, binary), outputs=wanted, request_id="q1")
        y = answer.as_numpy("y")
        assert answer.get_response()["id"] == "q1"
        np.testing.assert_allclose(y, direct(x), **CLOSE)
        # The network tells these inputs apart, or the comparison would say nothing.
        assert not np.allclose(direct(x), direct(samples(count, seed=99)), **CLOSE)

    def test_many_at_once_each_get_their_own(self, server: RunningServer, direct: Any) -> None:
        """Requests of 1 to 3 samples, which are batched together in all ways."""
        wrong: list[Any] = []

        def ask(worker: int) -> None:
            with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as own:
                for turn in range(25):
                    x = samples(1 + (worker + turn) % 3, seed=1000 * worker + turn)
                    y = own.infer("net", inputs(x)).as_numpy("y")
                    if y.shape != (len(x), 10) or not np.allclose(y, direct(x), **CLOSE):
                        wrong.append((worker, turn))

        before = instance(server, "net-0")
        threads = [threading.Thread(target=ask, args=(worker,)) for worker in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        after = instance(server, "net-0")
        batches = after["batches"] - before["batches"]
        requests = after["requests"] - before["requests"]
        assert requests == sum(1 + (worker + turn) % 3 for worker in range(6) for turn in range(25))
        assert requests / 4 <= batches < requests  # some were executed together

    def test_outputs_without_a_wish_are_in_json(self, server: RunningServer, direct: Any) -> None:
        x = samples(2, seed=5)
        body = {"inputs": [{"name": "x", "shape": [2, 3, 8, 8], "datatype": "FP32", "data": x.tolist()}]}
        status, text, headers = server.ask("POST", "/v2/models/net/infer", json.dumps(body).encode())
        assert status == 200, text
        assert headers["content-type"] == "application/json"
        (output,) = json.loads(text)["outputs"]
        assert (output["name"], output["datatype"], output["shape"]) == ("y", "FP32", [2, 10])
        np.testing.assert_allclose(np.reshape(output["data"], (2, 10)), direct(x), **CLOSE)


class TestRefusals:
    def test_shape_type_and_batch(self, client: Any) -> None:
        cases = {
            "shape": inputs(np.zeros((1, 3, 8, 9), np.float32)),
            "batch 5": inputs(np.zeros((5, 3, 8, 8), np.float32)),
            "batch 0": inputs(np.zeros((0, 3, 8, 8), np.float32)),
            "is missing": [],
        }
        other = triton.InferInput("x", [1, 3, 8, 8], "FP64")
        other.set_data_from_numpy(np.zeros((1, 3, 8, 8)))
        cases["datatype"] = [other]
        unknown = triton.InferInput("z", [1], "FP32")
        unknown.set_data_from_numpy(np.zeros(1, np.float32))
        cases["there is no input 'z'"] = [unknown]
        for words, given in cases.items():
            with pytest.raises(InferenceServerException, match=words) as caught:
                client.infer("net", given)
            assert caught.value.status() == "400"

    def test_a_full_queue_is_429(self, server: RunningServer) -> None:
        answers = ask_slow(server, 12, {})
        statuses = [status for status, _, _ in answers]
        assert set(statuses) == {200, 429}
        for status, text, headers in answers:
            if status == 429:
                assert headers["retry-after"] == "1"
                assert "queue of slow is full" in json.loads(text)["error"]

    def test_a_deadline_that_passes_is_503(self, server: RunningServer) -> None:
        for status, text, _ in ask_slow(server, 1, {"x-request-timeout-ms": "1"}):
            assert status == 503
            assert "deadline" in json.loads(text)["error"]
        # What still ran for it is nobody's, and its slots are free again: the next are answered.
        assert [status for status, _, _ in ask_slow(server, 1, {})] == [200]

    def test_every_arrival_is_counted_once(self, server: RunningServer) -> None:
        before = server.observation()["functions"]["slow"]
        answers = ask_slow(server, 4, {"x-request-timeout-ms": "100"}) + ask_slow(server, 4, {})
        after = server.observation()["functions"]["slow"]
        counted = {name: after[name] - before[name] for name in ("arrivals", "completed", "refused")}
        served = 2 * sum(status == 200 for status, _, _ in answers)
        assert counted == {"arrivals": 16, "completed": served, "refused": 16 - served}

    @pytest.mark.parametrize("value", ["0", "-1", "nan", "soon", "1e99"])
    def test_a_deadline_that_is_none(self, server: RunningServer, value: str) -> None:
        status, text, _ = server.ask("POST", "/v2/models/net/infer", b"{}", {"x-request-timeout-ms": value})
        assert status == 400
        assert "x-request-timeout-ms" in json.loads(text)["error"]


def ask_slow(server: RunningServer, count: int, headers: dict[str, str]) -> list[tuple[int, bytes, Any]]:
    """The answers to so many requests at once of two samples each to the slow network."""
    x = np.zeros((2, 3, 160, 160), np.float32)
    size = {"binary_data_size": x.nbytes}
    described = {"name": "x", "shape": [2, 3, 160, 160], "datatype": "FP32", "parameters": size}
    head = json.dumps({"inputs": [described]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), **headers}

    def ask(_: int) -> tuple[int, bytes, Any]:
        return server.ask("POST", "/v2/models/slow/infer", head + x.tobytes(), headers)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(ask, range(count)))


def instance(server: RunningServer, name: str) -> Any:
    return next(one for one in server.observation()["instances"] if one["id"] == name)
