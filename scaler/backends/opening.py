"""`open_backend` and `open_lease`: by what a user wrote on the command line."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rapp.errors import ConfigError
from scaler.backends.base import Backend
from scaler.functions import FunctionSpec
from scaler.live.lease import FileLease, Lease

if TYPE_CHECKING:
    from scaler.backends.kubernetes_api import KubernetesApi

NAMES = ("local", "ray", "kubernetes")

DEFAULT_URL = "http://127.0.0.1:8000"
"""Where `rapp serve` listens unless it is told otherwise."""

LEASE_S = {"local": 5.0, "ray": 5.0, "kubernetes": 15.0}
"""How long a lease lasts without renewal, s; on Kubernetes as long as client-go's."""


@dataclass(frozen=True, slots=True)
class Where:
    """A backend, as a user names it; None: the default, or not for this backend.

    Args:
        backend: one of `NAMES`.
        url: local: of `rapp serve`. kubernetes: of the gateway that counts requests.
        token_file: of the admin interface at `url`.
        address: ray: of the cluster.
        namespace, context: kubernetes: of the pods; of the kubeconfig.
        template: kubernetes: file of pods to make.
        app: kubernetes: whose pods these are. nodes: labels of the nodes to use.
        lease: local: file of the lease.

    Raises:
        ConfigError: no such backend, or an option that does not go with it.
    """

    backend: str
    url: str | None = None
    token_file: Path | None = None
    address: str | None = None
    namespace: str | None = None
    context: str | None = None
    template: Path | None = None
    app: str | None = None
    nodes: str | None = None
    lease: Path | None = None

    def __post_init__(self) -> None:
        if self.backend not in NAMES:
            raise ConfigError(f"--backend {self.backend}: there are {', '.join(NAMES)}")
        only = {
            "url": ("local", "kubernetes"),
            "token_file": ("local", "kubernetes"),
            "address": ("ray",),
            "namespace": ("kubernetes",),
            "context": ("kubernetes",),
            "template": ("kubernetes",),
            "app": ("kubernetes",),
            "nodes": ("kubernetes",),
            "lease": ("local",),
        }
        for name, backends in only.items():
            if getattr(self, name) is not None and self.backend not in backends:
                option = name.replace("_", "-")
                raise ConfigError(f"--{option} goes with --backend {' or '.join(backends)}")
        if self.backend == "kubernetes":
            for name, why in (("template", "the pods to make"), ("url", "the gateway that counts requests")):
                if getattr(self, name) is None:
                    raise ConfigError(f"--backend kubernetes needs --{name}: {why}")


def open_backend(
    where: Where,
    functions: Sequence[FunctionSpec],
    objective_ms: Mapping[str, float],
    memory_mib: Mapping[str, float],
) -> Backend:
    """Open a backend.

    Args:
        functions: those served.
        objective_ms, memory_mib: of each: its objective, ms, and device memory of an instance, MiB.

    Raises:
        MissingExtraError: a library that it needs is not installed.
        RappError: as its class.
    """
    if where.backend == "local":
        from scaler.backends.local import Local

        return Local.at(where.url or DEFAULT_URL, where.token_file)
    if where.backend == "ray":
        from scaler.backends.ray import RayBackend

        return RayBackend.open(where.address or "auto", functions, objective_ms, memory_mib)
    from scaler.backends.kubernetes import KubernetesBackend
    from scaler.backends.kubernetes_counters import GatewayCounters
    from scaler.backends.kubernetes_template import Templates

    assert where.template is not None
    assert where.url is not None
    templates = Templates.read(where.template)
    missing = templates.missing(memory_mib)
    if missing:
        raise ConfigError(f"{where.template}: no template is for {', '.join(missing)}")
    counters = GatewayCounters(where.url, _token(where.token_file))
    return KubernetesBackend(
        _kubernetes(where), memory_mib, templates, counters, app=where.app or "rapp", nodes=where.nodes or ""
    )


def open_lease(where: Where, backend: str, duration_s: float) -> Lease:
    """The lease of a backend: who has it may change what the backend runs.

    In a cluster it is kept there. For `local` it is a file: one leads of the controllers on one machine.

    Args:
        backend: the backend's name, which is the same for all controllers of the same instances.
        duration_s: see `FileLease`.

    Raises:
        RappError: it cannot be asked for.
    """
    if where.backend == "kubernetes":
        from scaler.backends.kubernetes_lease import KubernetesLease

        return KubernetesLease(_kubernetes(where), f"rapp-autoscale-{where.app or 'rapp'}", duration_s)
    if where.backend == "ray":
        from scaler.backends.ray_lease import RayLease

        return RayLease(where.address or "auto", duration_s)
    return FileLease(where.lease or default_lease_file(backend), duration_s)


def default_lease_file(backend: str) -> Path:
    """Where the controllers of one user on this machine look for the lease of a backend."""
    from rapp.runtime.claim import claims_root

    return claims_root() / f"autoscale-{hashlib.sha256(backend.encode()).hexdigest()[:16]}.lease"


def _kubernetes(where: Where) -> KubernetesApi:
    from scaler.backends.kubernetes_api import KubernetesApi

    return KubernetesApi.connect(where.namespace, where.context)


def _token(file: Path | None) -> str | None:
    from scaler.serving.token import VARIABLE, checked, read_token_file

    if file is not None:
        return read_token_file(file)
    given = os.environ.get(VARIABLE)
    return None if given is None else checked(given, VARIABLE)
