"""The contract of backends over a fake API server of Kubernetes and a fake gateway, both over HTTP."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kubernetes")
sys.path.insert(0, str(Path(__file__).parent))

from fake_kubernetes import FakeKubernetes, node
from fake_kubernetes_http import gateway, served
from kubernetes import client

from scaler.backends.base import Backend
from scaler.backends.kubernetes import KubernetesBackend
from scaler.backends.kubernetes_api import KubernetesApi
from scaler.backends.kubernetes_counters import GatewayCounters
from scaler.backends.kubernetes_pods import pod_name
from scaler.backends.kubernetes_template import Templates
from scaler.testing import BackendContract

TEMPLATE = {"kind": "Pod", "spec": {"containers": [{"name": "worker", "image": "worker:1"}]}}


class TestKubernetes(BackendContract):
    drained_first = False
    knows_terms = False
    patience_s = 20.0

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        self.state = FakeKubernetes()
        self.state.put("nodes", node("node-a"))
        self.counted: dict[str, Any] = {"arrivals": 0, "batches": 0}
        with served(self.state) as self.server, gateway(self.observation, token="secret") as self.gateway:
            made = self.made()
            yield made
            made.close()

    def made(self) -> KubernetesBackend:
        api = KubernetesApi(client.ApiClient(client.Configuration(host=self.server)), "default")
        counters = GatewayCounters(self.gateway, "secret")
        return KubernetesBackend(api, {"f": 1500.0}, Templates({"": TEMPLATE}), counters)

    def observation(self) -> dict[str, Any]:
        arrivals, batches = self.counted["arrivals"], self.counted["batches"]
        function = {
            "arrivals": arrivals, "completed": arrivals, "late": 0, "refused": 0, "queue": 0,
            "in_flight": 0, "latency_ms": 3.0 if arrivals else None,
        }  # fmt: skip
        instance = {"batches": batches, "requests": arrivals, "run_s": 0.002 * batches, "device_s": 0.0}
        ids = [pod["metadata"]["annotations"]["rapp/id"] for pod in self.state.objects["pods"].values()]
        return {
            "version": 1,
            "boot_id": "a",
            "functions": {"f": function, "of-nobody": function},
            "instances": [{"id": id_, "started_s": 1.0, **instance} for id_ in ids],
        }

    def reopen(self, backend: Backend) -> Backend:
        return self.made()

    def send(self, backend: Backend, requests: int) -> None:
        self.counted["arrivals"] += requests
        self.counted["batches"] += requests - 2

    def kill(self, backend: Backend, instance: str) -> None:
        self.state.kill(pod_name(instance))
