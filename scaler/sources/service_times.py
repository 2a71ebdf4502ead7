"""`ServiceTimes`: device time D and host time H of one network as tables, for questions by the thousand.

Between its axes D and H are straight in log-log over the SM partition and straight over the batch. Under a
quota of device time (`gpu_time`) one batch takes

    T = softmax(D, H),    L = max(T, D / q - credit)

(`rapp.inference.law`; `credit` is the device time that the token bucket has saved up). A quota that gates
launches has a table of its own, `Gate`, which is there only where it was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rapp.errors import ConfigError
from rapp.inference.law import soft_maximum
from rapp.recommend import Risk
from rapp.types import FloatArray, QuotaKind, ResourceConfig
from scaler.sources.axes import Axes, IndexArray, Place, on_axis


@dataclass(frozen=True, slots=True, eq=False)
class Gate:
    """Latency under a quota that gates launches.

    Args:
        quota_pct: (Q,) quotas, %, ascending.
        latency_ms: (S, Q, B) mean latency of one batch, ms, non-increasing along the quota.
    """

    quota_pct: FloatArray
    latency_ms: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class ServiceTimes:
    """Execution times of one network.

    Args:
        network: its name. source: where the times are from, for people.
        sm_pct: (S,) SM partitions, %, ascending. batch: (B,) batches, ascending: what the source itself
            knows. Beyond them the answers follow the law D ~ 1 / SM below and a straight line above.
        device_ms, host_ms: (S, B) mean device time D and host time H of one batch, ms.
        upper: (S, B) factor >= 1 from the mean to the upper end of its 90 % interval.
        memory_mib: (B,) device memory of one instance, MiB; None: not known.
        gate: latency under a quota that gates launches; with it, `latency_ms` speaks of that quota.
    """

    network: str
    source: str
    sm_pct: FloatArray
    batch: FloatArray
    device_ms: FloatArray
    host_ms: FloatArray
    upper: FloatArray
    memory_mib: FloatArray | None = None
    gate: Gate | None = None

    @property
    def quota_kind(self) -> QuotaKind:
        """What the quota of `latency_ms` limits."""
        return QuotaKind.GPU_TIME if self.gate is None else QuotaKind.LAUNCH_GATE

    def device_and_host_ms(
        self, sm_pct: ArrayLike, batch: ArrayLike, risk: Risk = Risk.MEAN
    ) -> tuple[FloatArray, FloatArray]:
        """D and H of one batch, ms, at SM partitions and batches that broadcast together.

        Raises:
            ConfigError: a value out of its range.
        """
        axes, log_ms = _logarithms(self, risk)
        at = Place.of(axes, sm_pct, batch)
        device, host = at.read(lambda s, b: log_ms[:, s, b])
        return device * at.short_of_sm, host

    def execution_ms(self, sm_pct: ArrayLike, batch: ArrayLike, risk: Risk = Risk.MEAN) -> FloatArray:
        """T: wall time of one batch without a quota, ms, as `device_and_host_ms`."""
        device, host = self.device_and_host_ms(sm_pct, batch, risk)
        return np.asarray(np.exp(soft_maximum(np.log(device), np.log(host))))

    def latency_ms(
        self,
        sm_pct: ArrayLike,
        quota_pct: ArrayLike,
        batch: ArrayLike,
        *,
        credit_ms: float = 0.0,
        risk: Risk = Risk.MEAN,
    ) -> FloatArray:
        """L: wall time of one batch under a quota, ms, at configurations that broadcast together.

        Args:
            credit_ms: device time saved up when the batch begins, for a quota of device time.

        Raises:
            ConfigError: a value out of its range.
        """
        quota = np.asarray(quota_pct, np.float64)
        if not ((quota > 0) & (quota <= 100)).all():
            raise ConfigError("a quota must lie in (0, 100] %")
        if self.gate is not None:
            return self._gated_ms(self.gate, sm_pct, quota, batch, risk)
        device, host = self.device_and_host_ms(sm_pct, batch, risk)
        pace = np.exp(soft_maximum(np.log(device), np.log(host)))
        return np.asarray(np.maximum(pace, device * 100.0 / quota - credit_ms))

    def without_gate(self) -> ServiceTimes:
        """The same under a quota of device time."""
        return replace(self, gate=None)

    def outside(self, sm_pct: ArrayLike, batch: ArrayLike) -> NDArray[np.bool_]:
        """Where an SM partition or batch lies beyond what the source itself knows."""
        sm, batches = np.asarray(sm_pct, np.float64), np.asarray(batch, np.float64)
        near = 1e-9
        return np.asarray(
            (sm < self.sm_pct[0] - near)
            | (sm > self.sm_pct[-1] + near)
            | (batches < self.batch[0])
            | (batches > self.batch[-1])
        )

    def base_ms(self) -> float:
        """Mean latency at SM 100 %, quota 100 %, batch 1, ms: what `slo_multiplier` counts from."""
        return float(self.latency_ms(100.0, 100.0, 1))

    def fastest(self, risk: Risk = Risk.MEAN) -> tuple[ResourceConfig, float]:
        """The configuration with the least latency on the axes, at quota 100 %, and that latency, ms."""
        latency = self.latency_ms(self.sm_pct[:, None], 100.0, self.batch[None], risk=risk)
        sm, batch = np.unravel_index(int(np.argmin(latency)), latency.shape)
        config = ResourceConfig(float(self.sm_pct[sm]), 100.0, int(self.batch[batch]))
        return config, float(latency[sm, batch])

    def instance_memory_mib(self, batch: int) -> float | None:
        """Device memory of an instance that serves batches up to `batch`, MiB; None: not known."""
        if self.memory_mib is None:
            return None
        return float(self.memory_mib[min(int(np.searchsorted(self.batch, batch)), len(self.batch) - 1)])

    def _at_risk(self, table: FloatArray, risk: Risk) -> FloatArray:
        """Times (S, B) or (S, Q, B) at the end of their interval that `risk` asks for."""
        if risk == Risk.MEAN:
            return table
        return table * (self.upper if table.ndim == 2 else self.upper[:, None])

    def _gated_ms(
        self, gate: Gate, sm_pct: ArrayLike, quota_pct: ArrayLike, batch: ArrayLike, risk: Risk
    ) -> FloatArray:
        sm, quota, batches = np.broadcast_arrays(sm_pct, quota_pct, batch)
        at, log_ms = (
            Place.of(Axes.of(self.sm_pct, self.batch), sm, batches),
            np.log(self._at_risk(gate.latency_ms, risk)),
        )
        low, share, short, _ = on_axis(np.log(gate.quota_pct), np.log(quota))
        high = np.minimum(low + 1, len(gate.quota_pct) - 1)

        def log_at(q: IndexArray) -> FloatArray:
            return np.log(at.read(lambda s, b: log_ms[s, q, b]))

        ends = log_at(low), log_at(high)
        # Below the quotas that were measured launching takes as much longer as there is less of the window.
        gated = np.exp(ends[0] + share * (ends[1] - ends[0]) + short)
        device, _ = self.device_and_host_ms(sm, batches, risk)
        return np.asarray(np.maximum(gated, np.where(at.short_of_sm > 1, device, 0.0)))


@lru_cache(maxsize=4096)
def _logarithms(times: ServiceTimes, risk: Risk) -> tuple[Axes, FloatArray]:
    """Axes, and log of D and H, (2, S, B): kept, since a policy asks at every tick."""
    tables = [times._at_risk(table, risk) for table in (times.device_ms, times.host_ms)]
    return Axes.of(times.sm_pct, times.batch), np.log(np.stack(tables))
