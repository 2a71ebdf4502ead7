"""The Kubernetes backend beyond its contract: what others do to pods at the same time, and what pods say."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kubernetes")
sys.path.insert(0, str(Path(__file__).parent))

from fake_kubernetes import Answer, FakeKubernetes, node
from fake_kubernetes_http import served
from kubernetes import client

from rapp.errors import DataError
from rapp.types import ResourceConfig
from scaler.backends.fencing import Fence, FencedError
from scaler.backends.kubernetes import KubernetesBackend
from scaler.backends.kubernetes_api import KubernetesApi
from scaler.backends.kubernetes_counters import FunctionTotals, GatewayCounters, InstanceTotals, Totals
from scaler.backends.kubernetes_template import Templates
from scaler.core.decision import Action, Decision, Drain, Reason, Resize, Start
from scaler.core.observation import InstanceView, Phase
from scaler.errors import BackendError

CONFIG = ResourceConfig(40.0, 33.3, 2)
START = Start("f-1", "f", "node-a:0", 0, CONFIG, Reason.POLICY)
TEMPLATE = {"kind": "Pod", "spec": {"containers": [{"name": "worker", "image": "worker:1"}]}}


class Counted:
    """Counters that a test sets; None: they cannot be had."""

    def __init__(self) -> None:
        self.totals: Totals | None = Totals("a", {"f": FunctionTotals(0, 0, 0, 0, 0, 0, None)})

    def read(self) -> Totals:
        if self.totals is None:
            raise BackendError("the gateway is away")
        return self.totals


@pytest.fixture
def state() -> FakeKubernetes:
    made = FakeKubernetes(ready_s=0.05, gone_s=0.3)
    made.put("nodes", node("node-a"))
    return made


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def backend(state: FakeKubernetes, counted: Counted) -> Iterator[KubernetesBackend]:
    with served(state) as url:
        api = KubernetesApi(client.ApiClient(client.Configuration(host=url)), "default")
        made = KubernetesBackend(api, {"f": 1500.0}, Templates({"": TEMPLATE}), counted)
        yield made
        made.close()


def order(backend: KubernetesBackend, *actions: Action) -> list[tuple[str, str]]:
    return backend.apply(Decision(actions))


def found(backend: KubernetesBackend, id_: str = "f-1") -> InstanceView | None:
    return next((one for one in backend.observe().instances if one.id == id_), None)


def until(holds: Callable[[], Any]) -> None:
    end_s = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def is_ready(backend: KubernetesBackend) -> bool:
    one = found(backend)
    return one is not None and one.phase == Phase.READY


def test_a_conflict_means_to_look_again(state: FakeKubernetes, backend: KubernetesBackend) -> None:
    order(backend, START)
    until(lambda: is_ready(backend))
    state.beside = [("team", "x"), ("team", "y")]
    assert order(backend, Resize("f-1", "f", 66.6, 1, Reason.POLICY)) == []
    notes = state.pod("f-1")["metadata"]["annotations"]
    assert (notes["rapp/quota-pct"], notes["rapp/batch"], notes["team"]) == ("66.6", "1", "y")
    assert sum(method == "PATCH" for method, _ in state.requests) == 3


def test_a_pod_that_somebody_changes_all_the_time_is_refused(
    state: FakeKubernetes, backend: KubernetesBackend
) -> None:
    order(backend, START)
    until(lambda: is_ready(backend))
    state.beside = [("n", str(number)) for number in range(50)]
    refused = order(backend, Resize("f-1", "f", 66.6, 1, Reason.POLICY))
    assert [id_ for id_, _ in refused] == ["f-1"]
    assert "5 conflicts" in refused[0][1]
    # Draining comes to its end all the same.
    assert order(backend, Drain("f-1", "f", Reason.POLICY)) == []
    until(lambda: found(backend) is None)


def test_a_lease_that_goes_over_within_a_decision_ends_it(
    state: FakeKubernetes, backend: KubernetesBackend
) -> None:
    order(backend, START)
    until(lambda: is_ready(backend))
    others = [replace(START, id=f"f-{number}") for number in range(2, 5)]
    # Looked at to begin with, and before each pod: the third one is not made.
    answers = iter([True, True, True])
    with pytest.raises(FencedError, match="the others are not"):
        backend.apply(Decision(tuple(others)), Fence(1, lambda: next(answers, False)))
    assert set(state.objects["pods"]) == {"f-1", "f-2", "f-3"}
    # Somebody else changed the pod: it is another version, and the lease is looked at again.
    state.beside = [("team", "x")]
    answers = iter([True, True])
    with pytest.raises(FencedError):
        backend.apply(
            Decision((Resize("f-1", "f", 66.6, 1, Reason.POLICY),)), Fence(1, lambda: next(answers, False))
        )
    assert state.pod("f-1")["metadata"]["annotations"]["rapp/quota-pct"] == "33.3"


def test_a_pod_that_was_taken_away_and_made_anew_is_not_ours(
    state: FakeKubernetes, backend: KubernetesBackend
) -> None:
    order(backend, START)
    until(lambda: is_ready(backend))
    pod = state.pod("f-1")
    with state.lock:
        state.remove("pods", "f-1")
        del pod["metadata"]["uid"], pod["metadata"]["annotations"]["rapp/id"]
        state.put("pods", pod)
    refused = order(backend, Resize("f-1", "f", 66.6, 1, Reason.POLICY))
    assert refused == [("f-1", "there is no such instance")]
    assert "is there that is not of this instance" in order(backend, START)[0][1]


def test_a_drain_that_another_controller_began_is_finished(
    state: FakeKubernetes, backend: KubernetesBackend
) -> None:
    order(backend, START)
    until(lambda: is_ready(backend))
    # It was annotated, and then the controller was killed.
    pod = state.pod("f-1")
    pod["metadata"]["annotations"]["rapp/draining-since"] = "2026-01-01T00:00:00.000Z"
    state.put("pods", pod)
    until(lambda: (one := found(backend)) is not None and one.phase == Phase.DRAINING)
    assert order(backend) == []
    until(lambda: found(backend) is None)


def test_a_pod_that_ended_is_lost_and_cleared_later(
    state: FakeKubernetes, backend: KubernetesBackend
) -> None:
    order(backend, START)
    until(lambda: is_ready(backend))
    state.kill("f-1")
    until(lambda: (one := found(backend)) is not None and one.phase == Phase.LOST)
    order(backend)
    assert found(backend) is not None, "its log may still be wanted"
    backend._clock = lambda: time.time() + 100
    order(backend)
    until(lambda: found(backend) is None)


def test_one_whose_container_restarts_starts_again(state: FakeKubernetes, backend: KubernetesBackend) -> None:
    order(backend, START)
    until(lambda: is_ready(backend))
    pod = state.pod("f-1")
    since = "2030-01-01T00:00:00Z"
    pod["status"]["conditions"] = [{"type": "Ready", "status": "False", "lastTransitionTime": since}]
    state.put("pods", pod)
    until(lambda: not is_ready(backend))
    one = found(backend)
    assert one is not None
    assert (one.phase, one.since_s) == (Phase.STARTING, 1893456000.0)


def test_what_the_server_forbids_is_refused_and_what_it_cannot_do_is_an_error(
    state: FakeKubernetes, backend: KubernetesBackend
) -> None:
    backend.observe()
    state.faults = [Answer(403, 'pods "f-1" is forbidden: exceeded quota: gpus')]
    other = Start("f-2", "f", "node-a:1", 0, CONFIG, Reason.POLICY)
    refused = order(backend, START, other)
    assert refused == [("f-1", 'kubernetes: 403: pods "f-1" is forbidden: exceeded quota: gpus')]
    assert found(backend, "f-2") is not None
    state.faults = [Answer(500, "etcdserver: leader changed")]
    with pytest.raises(BackendError, match="500: etcdserver"):
        order(backend, START)


def test_gpus_of_nodes_that_are_gone_cordoned_or_not_ready_are_not_there(
    state: FakeKubernetes, backend: KubernetesBackend
) -> None:
    def there() -> list[str]:
        return [gpu.id for gpu in backend.observe().gpus]

    assert there() == ["node-a:0", "node-a:1"]
    state.put("nodes", node("node-b", 1))
    until(lambda: there() == ["node-a:0", "node-a:1", "node-b:0"])
    state.put("nodes", {**node("node-a"), "spec": {"unschedulable": True}})
    until(lambda: there() == ["node-b:0"])
    away = node("node-b", 1)
    away["status"]["conditions"][0]["status"] = "Unknown"
    state.put("nodes", away)
    until(lambda: there() == [])
    state.remove("nodes", "node-b")
    state.put("nodes", node("node-a"))
    until(lambda: there() == ["node-a:0", "node-a:1"])


def test_without_counts_no_function_is_seen_and_what_came_meanwhile_is_of_no_tick(
    backend: KubernetesBackend, counted: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    def totals(arrivals: int, began: str = "a") -> Totals:
        instance = InstanceTotals(arrivals // 2, arrivals, arrivals * 0.004, arrivals * 0.003, began)
        function = FunctionTotals(arrivals, arrivals, 0, 0, 1, 2, 9.0)
        return Totals(began, {"f": function, "of-others": function}, {"f-1": instance})

    order(backend, START)
    seen: list[int | None] = []
    for now in (totals(100), totals(130), None, totals(500), totals(520), totals(10, "b"), totals(14, "b")):
        counted.totals = now
        with caplog.at_level(logging.WARNING):
            observed = backend.observe()
        assert set(observed.functions) <= {"f"}
        seen.append(observed.functions["f"].arrivals if "f" in observed.functions else -1)
    assert seen == [None, 30, -1, None, 20, None, 4]
    assert "the gateway is away" in caplog.text
    one = next(one for one in observed.instances if one.id == "f-1")
    assert (one.batches, one.requests) == (2, 4)
    assert one.run_ms == pytest.approx(8.0)
    assert one.device_ms == pytest.approx(6.0)


def test_a_clock_that_is_set_back_stands_still(backend: KubernetesBackend) -> None:
    backend._clock = iter([10.0, 5.0, 11.0]).__next__
    assert [backend.observe().now_s for _ in range(3)] == [10.0, 10.0, 11.0]


@pytest.mark.parametrize("ahead_s", [-100.0, 0.0, 100.0])
def test_times_are_those_of_the_server_that_dates_pods(
    state: FakeKubernetes, backend: KubernetesBackend, ahead_s: float
) -> None:
    state.ahead_s = ahead_s
    assert backend.observe().now_s - time.time() == pytest.approx(ahead_s, abs=2.0)


def test_a_gateway_that_is_none_is_one_line() -> None:
    with pytest.raises(BackendError, match="the gateway cannot be reached"):
        GatewayCounters("http://127.0.0.1:9").read()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [", "is no YAML"),
        ("", "holds no pod"),
        ("kind: Deployment", "document 1: is no manifest of kind Pod"),
        ("kind: Pod\nspec: {containers: []}", "document 1: spec.containers: a pod needs one that serves"),
        ("kind: Pod\nspec: {containers: [{}]}\n---\nkind: Pod\nspec: {containers: [{}]}", "two templates"),
    ],
)
def test_a_template_that_is_none_is_one_line(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "pod.yaml").write_text(text)
    with pytest.raises(DataError, match=why):
        Templates.read(tmp_path / "pod.yaml")
