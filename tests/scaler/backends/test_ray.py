"""The Ray backend over a cluster of two nodes on this machine, one of which dies."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rapp.errors import ConfigError, RappError
from rapp.types import ResourceConfig
from scaler.backends.base import Backend
from scaler.core.decision import Decision, Drain, Reason, Start
from scaler.core.observation import Observation, Phase
from scaler.core.settings import Settings
from scaler.core.step import Core
from scaler.errors import BackendError
from scaler.forecast.last_value import LastValue
from scaler.functions import FunctionSpec
from scaler.live.lease import Lease
from scaler.testing import BackendContract, LeaseContract
from scaler.testing.fleet import times_of
from scaler.testing.simple_policy import SimplePolicy

ray = pytest.importorskip("ray", reason="needs the extra ray")
pytest.importorskip("ray.cluster_utils")
sys.path.insert(0, str(Path(__file__).parent))

from ray_nodes import WEIGHTS, network, two_nodes  # noqa: E402

from scaler.backends.ray import RayBackend  # noqa: E402
from scaler.backends.ray_lease import RayLease  # noqa: E402
from scaler.backends.ray_names import LEASE, NAMESPACE  # noqa: E402
from scaler.backends.ray_queue import DeadlineError, FailedError, RefusedError  # noqa: E402

HALF = ResourceConfig(50.0, 40.0, 2)
"""One of a node's two cores."""


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> FunctionSpec:
    file = network(tmp_path_factory.mktemp("net") / "net.onnx")
    return FunctionSpec(
        name="f", network=file, slo_ms=5000.0, max_batch=4, queue_limit=50, memory_mib=100.0,
        cold_start_s=5.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster of two nodes."""
    with two_nodes() as cluster:
        yield cluster


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

    def reopen(self, backend: Backend) -> Backend:
        assert isinstance(backend, RayBackend)
        return type(backend)(ray, "again", backend._functions, False)

    def send(self, backend: Backend, requests: int) -> None:
        assert isinstance(backend, RayBackend)
        check(ask(backend, requests))

    def kill(self, backend: Backend, instance: str) -> None:
        assert isinstance(backend, RayBackend)
        os.kill(ray.get(backend.router.process_of.remote(instance)), signal.SIGKILL)


@pytest.fixture
def backend(joined: Any, spec: FunctionSpec) -> Iterator[RayBackend]:
    """A backend with nothing on it."""
    made = RayBackend.open(joined.address, [spec])
    left = made.observe().instances
    made.apply(Decision(tuple(Drain(one.id, "f", Reason.POLICY) for one in left)))
    until(made, lambda seen: not seen.instances)
    yield made
    made.close()


def until(backend: RayBackend, holds: Callable[[Observation], bool], within_s: float = 40) -> Observation:
    """Observe until it holds."""
    end_s = time.monotonic() + within_s
    while not holds(seen := backend.observe()):
        assert time.monotonic() < end_s, seen
        time.sleep(0.05)
    return seen


def ready(count: int) -> Callable[[Observation], bool]:
    return lambda seen: [one.phase for one in seen.instances].count(Phase.READY) == count


def starts(*gpus: str) -> Decision:
    return Decision(
        tuple(Start(f"i{place}", "f", gpu, 0, HALF, Reason.POLICY) for place, gpu in enumerate(gpus))
    )


def test_requests_that_end_otherwise_than_with_an_answer(backend: RayBackend) -> None:
    with pytest.raises(FailedError, match="no function g"):
        backend.infer("g", {})
    # Nothing runs: fifty wait until their time is over, and no more may.
    waiting = ask(backend, 50, timeout_ms=3000)
    until(backend, lambda seen: seen.functions["f"].queue == 50)
    with pytest.raises(RefusedError, match="50 requests wait"):
        backend.infer("f", {"x": np.zeros((1, 8), np.float32)})
    with pytest.raises(DeadlineError, match="within 3000 ms"):
        ray.get(waiting[-1][1])
    view = backend.observe().functions["f"]
    assert (view.queue, view.completed) == (0, 0)

    gpu = backend.observe().gpus[0].id
    uneven = Start("u", "f", gpu, 1, ResourceConfig(30.0, 40.0, 2), Reason.POLICY)
    (refused,) = backend.apply(Decision((*starts(gpu, gpu).actions, uneven)))
    assert refused[0] == "u"
    assert "not a whole number of cores" in refused[1]
    until(backend, ready(2))
    # Wrong tensors are nobody's batch.
    wrong = [backend.router.infer.remote("f", {"x": np.zeros((1, 7), np.float32)}, 9000) for _ in range(5)]
    check(ask(backend, 20))
    for one in wrong:
        with pytest.raises(FailedError, match="f: input x is float32 of 1x8, not float32 of 1x7"):
            ray.get(one)
    seen = backend.observe()
    assert sum(one.requests for one in seen.instances) == seen.functions["f"].completed == 20
    assert all(one.device_ms is not None for one in seen.instances if one.batches)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"network": "in-a-table"}, "no ONNX file"), ({"slo_ms": None, "slo_multiplier": 2.0}, "needs slo_ms")],
)
def test_a_function_that_cannot_be_served(spec: FunctionSpec, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RayBackend.open("auto", [spec.model_copy(update=change)])


def test_a_router_that_is_lost_is_started_anew(backend: RayBackend) -> None:
    backend.apply(starts(backend.observe().gpus[0].id))
    until(backend, ready(1))
    ray.kill(backend.router)
    with pytest.raises(BackendError, match="the router is lost"):
        until(backend, lambda seen: False)
    # The instances went with it; the devices are had again.
    assert until(backend, lambda seen: len(seen.gpus) == 2).instances == ()


@pytest.fixture
def new_lease(joined: Any) -> Iterator[Callable[..., RayLease]]:
    """Makes leases of the cluster, which nobody has at first, and lets go of them in the end.

    They share the lease's actor with the tests before: a new one would be a new process for each test.
    """
    made: list[RayLease] = []

    def new(duration_s: float = 60.0, **given: Any) -> RayLease:
        made.append(RayLease(joined.address, duration_s, **given))
        return made[-1]

    yield new
    for one in made:
        one.release()


class TestRayLease(LeaseContract):
    @pytest.fixture
    def lease(self, new_lease: Callable[..., RayLease]) -> RayLease:
        self.new_lease = new_lease
        return new_lease()

    def another(self, lease: Lease) -> Lease:
        return self.new_lease()

    def expire(self, lease: Lease) -> None:
        # What a keeper does once the time is over is what it does once the holder lets go.
        ray.get(ray.get_actor(LEASE, NAMESPACE).release.remote(lease.holder))


def test_a_lease_is_over_with_its_time(new_lease: Callable[..., RayLease]) -> None:
    first, second = (new_lease(1.0, holder=name) for name in ("first", "second"))
    assert first.lead()
    assert not second.lead()
    assert first.lead(), "it renews its own"
    first.release()
    assert second.lead()
    second.release()
    first.release()
    assert first.lead()
    time.sleep(1.1)
    assert second.lead(), "the first did not renew"
    assert not first.lead()


def test_a_lease_whose_actor_is_lost_is_free_and_its_terms_go_on(new_lease: Callable[..., RayLease]) -> None:
    first, second = new_lease(), new_lease()
    assert first.lead()
    term = first.term
    ray.kill(ray.get_actor(LEASE, NAMESPACE))
    end_s = time.monotonic() + 20
    while not _leads(second):
        assert time.monotonic() < end_s
        time.sleep(0.05)
    # The new actor knows nothing of the old one's terms; routers do.
    assert second.term > term
    assert not first.lead()


def _leads(lease: RayLease) -> bool:
    with suppress(BackendError):
        return lease.lead()
    return False


def test_an_address_without_a_cluster_is_one_line(joined: Any, spec: FunctionSpec) -> None:
    ray.shutdown()
    with pytest.raises(RappError, match=r"ray start --head"):
        RayBackend.open("127.0.0.1:1", [spec])
    ray.init(address=joined.address, logging_level="ERROR", log_to_driver=False)


def test_a_node_dies_and_nothing_is_lost(backend: RayBackend, joined: Any, spec: FunctionSpec) -> None:
    """What was on it is reported lost, its requests are tried again, the core starts a replacement."""
    there = backend.observe().gpus
    assert len(there) == 2
    assert backend.apply(starts(*(gpu.id for gpu in there))) == []
    seen = until(backend, ready(2))
    dies = next(one for one in seen.instances if joined.second.node_id[:8] in one.gpu)
    kept = spec.model_copy(update={"min_instances": 2})
    core = Core([kept], {"f": times_of(kept)}, LastValue(), SimplePolicy(HALF), Settings())
    state, decision = core.step(None, seen)
    assert decision.actions == ()

    # Its process stands still, so that what it is at is there when the node dies.
    os.kill(ray.get(backend.router.process_of.remote(dies.id)), signal.SIGSTOP)
    asked = ask(backend, 30)
    until(
        backend, lambda seen: (seen.functions["f"].queue, seen.functions["f"].in_flight) in ((0, 1), (0, 2))
    )
    time.sleep(0.5)
    assert backend.observe().functions["f"].in_flight > 0
    joined.remove_node(joined.second, allow_graceful=False)
    check(asked)

    reported: list[Reason] = []
    end_s = time.monotonic() + 40
    while not (dies.id in reported and ready(2)(seen) and len(seen.gpus) == 1):
        assert time.monotonic() < end_s, seen
        seen = backend.observe()
        reported += [one.id for one in seen.instances if one.phase == Phase.LOST]
        state, decision = core.step(state, seen)
        assert backend.apply(decision) == []
        reported += [action.reason for action in decision.actions]
        time.sleep(0.1)
    assert reported.count(dies.id) == 1, "it is reported once"
    assert Reason.LOST in reported
    assert {gpu.id for gpu in seen.gpus} == {gpu.id for gpu in there} - {dies.gpu}
    assert {one.gpu for one in seen.instances} == {gpu.id for gpu in seen.gpus}
    check(ask(backend, 10))
