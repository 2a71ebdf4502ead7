"""The contract of backends over the replay's cluster."""

from __future__ import annotations

import numpy as np
import pytest

from scaler.backends.base import Backend
from scaler.backends.simulated import Simulated
from scaler.replay.cluster import Cluster
from scaler.replay.physics import Physics, served_function
from scaler.testing import BackendContract
from scaler.testing.fleet import gpus, times_of
from scaler.testing.policy_loop import function

QUIET_S = 1000.0
"""No request comes before."""


class TestSimulated(BackendContract):
    drained_first = False
    knows_terms = False
    counts_for_each = False

    @pytest.fixture
    def backend(self) -> Backend:
        spec = function()
        served = served_function(spec, 300.0, times_of(spec), 1500.0, spec.max_batch)
        return Simulated(Cluster([served], {"f": QUIET_S + np.arange(7) / 100}, gpus(2), Physics(), seed=0))

    def reopen(self, backend: Backend) -> Backend:
        assert isinstance(backend, Simulated)
        return Simulated(backend.cluster)

    def wait(self, backend: Backend) -> None:
        assert isinstance(backend, Simulated)
        backend.cluster.run_until(backend.cluster.now_s + 0.25)

    def send(self, backend: Backend, requests: int) -> None:
        assert isinstance(backend, Simulated)
        assert requests == 7
        backend.cluster.run_until(QUIET_S)

    def kill(self, backend: Backend, instance: str) -> None:
        assert isinstance(backend, Simulated)
        backend.cluster.crash(instance)
