"""`Scaled`: a latency source whose execution times are off by factors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from rapp.latency_model import LatencyModel
from scaler.functions import FunctionSpec
from scaler.sources.base import LatencySource
from scaler.sources.service_times import ServiceTimes
from scaler.sources.tabled import TabledModel


@dataclass(frozen=True, slots=True)
class Scaled:
    """Another source's times, scaled: a model that is wrong on purpose, or one put right by a rehearsal.

    Args:
        source: the other one.
        factor: on device and host time; of all functions, or by function, 1 for those that are not named.
    """

    source: LatencySource
    factor: float | Mapping[str, float]

    @property
    def name(self) -> str:
        """The source's, and the factor."""
        of = f"x {self.factor:g}" if isinstance(self.factor, int | float) else "scaled by function"
        return f"{self.source.name}, times {of}"

    def model(self, function: FunctionSpec) -> LatencyModel:
        """As `LatencySource.model`."""
        return TabledModel(self.times(function))

    def times(self, function: FunctionSpec) -> ServiceTimes:
        """As `LatencySource.times`."""
        right, factor = self.source.times(function), self.factor
        if isinstance(factor, Mapping):
            factor = factor.get(function.name, 1.0)
        gate = right.gate
        if gate is not None:
            gate = replace(gate, latency_ms=gate.latency_ms * factor)
        device_ms, host_ms = right.device_ms * factor, right.host_ms * factor
        return replace(right, source=self.name, device_ms=device_ms, host_ms=host_ms, gate=gate)
