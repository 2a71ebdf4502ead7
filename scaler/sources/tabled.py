"""`TabledModel`: the `LatencyModel` of a network whose times are tables."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rapp.errors import ConfigError
from rapp.inference.law import credit_ms
from rapp.recommend import Risk
from rapp.types import LatencyEstimate, LatencyGrid, QuotaKind, ResourceConfig, ResourceGrid
from scaler.errors import QuotaSemanticsError
from scaler.sources.service_times import ServiceTimes


@dataclass(frozen=True, slots=True, eq=False)
class TabledModel:
    """`ServiceTimes` as a `rapp.latency_model.LatencyModel`.

    Args:
        times: the tables; its own quota kind is the default.
        window_ms: window of a quota of device time, ms: more than it cannot be saved up.
    """

    times: ServiceTimes
    window_ms: float = math.inf

    @property
    def name(self) -> str:
        """Name of the network."""
        return self.times.network

    def latency(
        self, config: ResourceConfig, *, quota_kind: QuotaKind | None = None, idle_ms: float | None = None
    ) -> LatencyEstimate:
        """The latency of one batch at `config`, ms; without `idle_ms` there is no pause between batches.

        Raises:
            QuotaSemanticsError: of a quota that gates launches, where the tables were not opened for that.
            ConfigError: `idle_ms` is no pause.
        """
        grid = ResourceGrid([config.sm_pct], [config.quota_pct], [config.batch])
        answer = self.latency_grid(grid, quota_kind=quota_kind, idle_ms=idle_ms)
        fields = ("mean_ms", "low_ms", "high_ms", "device_ms", "host_ms")
        return LatencyEstimate(
            **{field: float(getattr(answer, field).item()) for field in fields},
            extrapolated=bool(answer.extrapolated.item()),
        )

    def latency_grid(
        self,
        grid: ResourceGrid | None = None,
        *,
        quota_kind: QuotaKind | None = None,
        idle_ms: float | None = None,
    ) -> LatencyGrid:
        """The same over a grid: arrays of shape (S, Q, B)."""
        grid = ResourceGrid() if grid is None else grid
        kind = self.times.quota_kind if quota_kind is None else quota_kind
        idle = 0.0 if idle_ms is None else idle_ms
        if not (math.isfinite(idle) and idle >= 0):
            raise ConfigError(f"idle_ms is {idle:g}: it must be a number, 0 or more")
        if kind == QuotaKind.LAUNCH_GATE and self.times.gate is None:
            raise QuotaSemanticsError(
                f"{self.name}: {self.times.source} neither plans nor prices by a quota that gates launches,"
                " which does not limit device time: give --quota-semantics launch_gate to do so all the same"
            )
        of_kind = self.times if kind == QuotaKind.LAUNCH_GATE else self.times.without_gate()
        sm, quota, batch = (
            np.reshape(np.asarray(axis, np.float64), [-1 if i == j else 1 for j in range(3)])
            for i, axis in enumerate((grid.sm_pct, grid.quota_pct, grid.batch))
        )
        saved = credit_ms(idle, self.window_ms)
        mean, high = (
            of_kind.latency_ms(sm, quota, batch, credit_ms=saved, risk=risk)
            for risk in (Risk.MEAN, Risk.UPPER)
        )
        device, host = (
            np.broadcast_to(times, grid.shape) for times in self.times.device_and_host_ms(sm, batch)
        )
        beyond = np.broadcast_to(self.times.outside(sm, batch), grid.shape)
        # The interval is symmetric in logarithms; at no width rounding may not turn it inside out.
        low = np.minimum(mean**2 / high, mean)
        return LatencyGrid(grid, mean, low, np.maximum(high, mean), device, host, beyond)
