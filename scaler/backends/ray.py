"""`RayBackend`: instances as actors over the nodes of a Ray cluster.

    backend = RayBackend.open("auto", read_functions("functions.yaml"))
    backend.apply(decision)
    backend.infer("resnet50", {"input": array})

The backend itself is thin: a router, an actor on the head node, holds queues and instances
(`scaler.backends.ray_router`) and goes on when the controller ends. Whoever is in the cluster may send it
requests. Devices are the GPUs of the cluster, whose nodes must run an MPS daemon, and nodes without GPUs,
whose cores stand for SMs. They are held whole, so nothing else that Ray runs gets in between.

Needs the extra `ray`, and RaPP on every node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from rapp.errors import ConfigError
from rapp.runtime.ray_cluster import join, outcome_behind
from scaler.backends.fencing import UNFENCED, Fence
from scaler.backends.ray_names import ANSWER_TIMEOUT_S, NAMESPACE, ON_HEAD, ROUTER
from scaler.backends.ray_network import RayFunction, RayNetwork, Tensors
from scaler.backends.ray_report import Reader
from scaler.backends.ray_router import Router
from scaler.core.decision import Decision
from scaler.core.observation import Observation
from scaler.errors import BackendError
from scaler.functions import FunctionSpec

MEMORY_MIB = 3529.0
"""Of an instance whose functions.yaml says nothing, as there (HAS-GPU)."""


class RayBackend:
    """A `Backend` over a Ray cluster; `open` makes one."""

    def __init__(self, ray: ModuleType, address: str, functions: list[RayFunction], joined: bool) -> None:
        self._ray, self._address, self._functions, self._joined = ray, address, functions, joined
        self._router: Any = None
        self._reader = Reader()

    @classmethod
    def open(
        cls,
        address: str,
        functions: Sequence[FunctionSpec],
        objective_ms: Mapping[str, float] | None = None,
        memory_mib: Mapping[str, float] | None = None,
    ) -> RayBackend:
        """Join a cluster, and have its router serve these functions; one that is there goes on.

        Args:
            address: `auto`, HOST:PORT or ray://HOST:PORT.
            functions: as `read_functions` gives them; each needs its ONNX file.
            objective_ms: by function, for those with an `slo_multiplier`.
            memory_mib: of an instance by function, for those that do not say it.

        Raises:
            MissingExtraError: Ray is not installed.
            ConfigError: a function without a file, or without an objective.
            GraphError: a network that cannot be read, or not be carried to an open batch.
            BackendError: there is no such cluster, or its router does not start.
        """
        # Functions of one file share what is read of it, here and, as one object, in the router.
        read = lru_cache(maxsize=None)(RayNetwork.read)
        served = [_served(spec, objective_ms or {}, memory_mib or {}, read) for spec in functions]
        ray, joined = join(address)
        backend = cls(ray, address, served, joined)
        try:
            backend._find_router()
        except BaseException:
            backend.close()
            raise
        return backend

    @property
    def name(self) -> str:
        """As `Backend.name`."""
        return f"ray:{self._address}"

    def observe(self) -> Observation:
        """As `Backend.observe`; the clock is that of the head node, since its start."""
        return self._reader.read(self._ask("report", self._reader.marks))

    def apply(self, decision: Decision, fence: Fence = UNFENCED) -> list[tuple[str, str]]:
        """As `Backend.apply`; the router makes all changes at once, or none if it knows of a later term."""
        fence.check()
        refused: list[tuple[str, str]] = self._ask("apply", decision.actions, fence.term)
        return refused

    def infer(self, function: str, inputs: Tensors, timeout_ms: float = 10_000.0) -> Tensors:
        """Send a request, and wait for its answer.

        Args:
            inputs: by name, of batch 1.

        Raises:
            RefusedError: the queue is full.
            DeadlineError: no answer in time.
            FailedError: the network does not take the tensors.
            BackendError: the router cannot be reached.
        """
        answer: Tensors = self._ray_get(
            self._router_now().infer.remote(function, inputs, timeout_ms), timeout_ms / 1e3 + ANSWER_TIMEOUT_S
        )
        return answer

    @property
    def router(self) -> Any:
        """Handle of the router, to send requests without waiting: `router.infer.remote(name, inputs, ms)`."""
        return self._router_now()

    def close(self) -> None:
        """As `Backend.close`: the router and its instances stay; a connection that was made here ends."""
        self._router = None
        if self._joined and self._ray.is_initialized():
            self._ray.shutdown()
        self._joined = False

    def shut_down(self) -> None:
        """End the router, and with it all instances."""
        self._ray.kill(self._router_now())
        self._router = None

    # --- the router -----------------------------------------------------------------------------------------

    def _ask(self, method: str, *arguments: Any) -> Any:
        return self._ray_get(getattr(self._router_now(), method).remote(*arguments), ANSWER_TIMEOUT_S)

    def _ray_get(self, reference: Any, timeout_s: float) -> Any:
        try:
            return self._ray.get(reference, timeout=timeout_s)
        except self._ray.exceptions.RayTaskError as error:
            cause = outcome_behind(error)
            if cause is None:
                raise
            raise cause from error
        except self._ray.exceptions.RayActorError as error:
            self._router = None
            raise BackendError(f"{self.name}: the router is lost, and is started anew") from error
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BackendError(f"{self.name}: the router does not answer ({reason})") from error

    def _router_now(self) -> Any:
        if self._router is None:
            self._find_router()
        return self._router

    def _find_router(self) -> None:
        """Find the router, or start it, and tell it the functions."""
        remote: Any = self._ray.remote(Router)
        try:
            self._router = remote.options(
                name=ROUTER, namespace=NAMESPACE, get_if_exists=True, lifetime="detached",
                num_cpus=0, resources=ON_HEAD, max_concurrency=100_000,
            ).remote()  # fmt: skip
        except (self._ray.exceptions.RayError, ConnectionError, ValueError) as error:
            raise BackendError(f"{self.name}: the router cannot be started ({error})") from error
        self._ray_get(self._router.configure.remote(self._functions), 2 * ANSWER_TIMEOUT_S)


def _served(
    spec: FunctionSpec,
    objective_ms: Mapping[str, float],
    memory_mib: Mapping[str, float],
    read: Callable[[Path], RayNetwork],
) -> RayFunction:
    if spec.network_file is None:
        raise ConfigError(f"function {spec.name}: `network` is no ONNX file, which is what can be served")
    slo_ms = objective_ms.get(spec.name, spec.slo_ms)
    if slo_ms is None:
        raise ConfigError(f"function {spec.name}: a served one needs slo_ms; slo_multiplier is for replays")
    return RayFunction(
        name=spec.name,
        network=read(spec.network_file),
        slo_ms=slo_ms,
        slo_quantile=spec.slo_quantile,
        max_batch=spec.max_batch,
        max_batch_delay_ms=spec.max_batch_delay_ms,
        queue_limit=spec.queue_limit,
        memory_mib=memory_mib.get(spec.name) or spec.memory_mib or MEMORY_MIB,
    )
