"""The Ray backend over a cluster of two nodes on this machine, one of which dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rapp.errors import ConfigError, RappError
from rapp.types import ResourceConfig
from scaler.backends.base import Backend
from scaler.core.decision import Decision, Reason, Start
from scaler.core.observation import Observation, Phase
from scaler.functions import FunctionSpec
from scaler.testing import BackendContract

ray = pytest.importorskip("ray", reason="needs the extra ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")

from scaler.backends.ray import RayBackend  # noqa: E402
from scaler.backends.ray_queue import DeadlineError, FailedError, RefusedError  # noqa: E402

WEIGHTS = np.random.default_rng(5).standard_normal((8, 3)).astype(np.float32)
HALF = ResourceConfig(50.0, 40.0, 2)
"""One of a node's two cores."""


def network(path: Path) -> str:
    """y = x W with random W, at batch 1 as most files are."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(WEIGHTS, "W")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return str(path)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> FunctionSpec:
    file = network(tmp_path_factory.mktemp("net") / "net.onnx")
    return FunctionSpec(
        name="f", network=file, slo_ms=5000.0, max_batch=4, queue_limit=50, memory_mib=100.0,
        cold_start_s=5.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster of two nodes of two cores; the second one can be killed."""
    # Each worker process is a second of CPU: none is started before it is needed.
    quiet = {"enable_worker_prestart": False, "prestart_worker_first_driver": False}
    cluster = cluster_utils.Cluster(
        initialize_head=True,
        connect=False,
        head_node_args={"num_cpus": 2, "include_dashboard": False, "_system_config": quiet},
    )
    cluster.second = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def joined(nodes: Any) -> Any:
    """The driver's connection, which the backends of all tests share."""
    ray.init(address=nodes.address, logging_level="ERROR", log_to_driver=False)
    return nodes


def ask(backend: RayBackend, count: int = 1, timeout_ms: float = 20_000) -> list[tuple[np.ndarray, Any]]:
    """Send requests at once; each with the reference of its answer."""
    random = np.random.default_rng(count)
    inputs = [random.standard_normal((1, 8)).astype(np.float32) for _ in range(count)]
    return [(x, backend.router.infer.remote("f", {"x": x}, timeout_ms)) for x in inputs]


def check(asked: list[tuple[np.ndarray, Any]]) -> None:
    for x, answer in asked:
        np.testing.assert_allclose(ray.get(answer, timeout=30)["y"], x @ WEIGHTS, rtol=1e-5, atol=1e-6)


class TestRayBackend(BackendContract):
    config = HALF

    @pytest.fixture
    def backend(self, joined: Any, spec: FunctionSpec) -> Backend:
        return RayBackend.open(joined.address, [spec])

    @pytest.fixture
    def again(self, spec: FunctionSpec) -> FunctionSpec:
        return spec

    def reopen(self, backend: Backend) -> Backend:
        assert isinstance(backend, RayBackend)
        return type(backend)(ray, "again", backend._functions, False)

    def send(self, backend: Backend, requests: int) -> None:
        assert isinstance(backend, RayBackend)
        check(ask(backend, requests))

    def kill(self, backend: Backend, instance: str) -> None:
        assert isinstance(backend, RayBackend)
        os.kill(ray.get(backend.router.process_of.remote(instance)), signal.SIGKILL)
