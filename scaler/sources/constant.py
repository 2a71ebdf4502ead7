"""A constant as a source: every batch of every network takes the same time, at any SM partition and batch.

For queues whose waiting is known in closed form, and for trying things out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rapp.latency_model import LatencyModel
from rapp.types import QuotaKind
from scaler.errors import QuotaSemanticsError
from scaler.functions import FunctionSpec
from scaler.sources.service_times import ServiceTimes
from scaler.sources.tabled import TabledModel

NO_HOST_MS = 1e-3
"""Host time where none is given: so short that it delays nothing."""


@dataclass(frozen=True, slots=True)
class ConstantSource:
    """The same device and host time for all.

    Args:
        device_ms: device time D of one batch, ms. host_ms: host time H of one batch, ms.
    """

    device_ms: float
    host_ms: float = NO_HOST_MS

    @property
    def name(self) -> str:
        """What it is."""
        host = f", host {self.host_ms:g} ms" if self.host_ms > NO_HOST_MS else ""
        return f"constant {self.device_ms:g} ms{host}"

    def model(self, function: FunctionSpec) -> LatencyModel:
        """The constant as a model of the function's network."""
        return TabledModel(self.times(function))

    def times(self, function: FunctionSpec) -> ServiceTimes:
        """The constant as tables."""
        sm_pct, batch = np.array([1.0, 100.0]), np.unique([1.0, float(function.max_batch)])
        ones = np.ones((len(sm_pct), len(batch)))
        return ServiceTimes(
            network=function.network_name,
            source=self.name,
            sm_pct=sm_pct,
            batch=batch,
            device_ms=self.device_ms * ones,
            host_ms=self.host_ms * ones,
            upper=ones,
        )


def refuse_gate(source: str, quota_kind: QuotaKind) -> None:
    """For a source that knows no quota but one of device time.

    Raises:
        QuotaSemanticsError: it is asked to plan by a quota that gates launches.
    """
    if quota_kind == QuotaKind.LAUNCH_GATE:
        raise QuotaSemanticsError(
            f"{source}: holds no latency under a quota that gates launches:"
            " leave --quota-semantics launch_gate out"
        )
