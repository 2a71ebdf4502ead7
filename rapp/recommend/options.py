"""What each configuration of a grid costs and delivers under an objective."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rapp.recommend.objective import Objective, Risk
from rapp.types import FloatArray, LatencyGrid, ResourceConfig


@dataclass(frozen=True, slots=True)
class Choice:
    """One configuration, with as many instances as the load needs.

    Args:
        config: what each instance gets.
        instances: how many there are, n.
        gpu_share: n x sm_pct/100 x quota_pct/100: GPUs set aside; times a duration it is GPU-seconds.
        host_cores: n x host_ms / mean_ms: CPU cores that launching keeps busy while all instances run.
        request_ms: from a request's arrival to its answer: `fill_ms` + `latency_ms`.
        fill_ms: how long the first request of a batch waits for the last.
        latency_ms: execution of one batch under the objective's risk: `mean_ms` or `high_ms`.
        mean_ms, low_ms, high_ms: the predicted mean of it and its 90 % interval.
        utilisation: share of its time that an instance is busy.
        extrapolated: outside what the predictor was trained on; the interval does not cover that.
    """

    config: ResourceConfig
    instances: int
    gpu_share: float
    host_cores: float
    request_ms: float
    fill_ms: float
    latency_ms: float
    mean_ms: float
    low_ms: float
    high_ms: float
    utilisation: float
    extrapolated: bool


@dataclass(frozen=True, slots=True, eq=False)
class Options:
    """`Choice` as columns, one entry for each configuration of the grid: arrays of shape (S*Q*B,), in the
    order of `ravel()` of an (S, Q, B) array.

    `meets` is true where `request_ms` is within the objective.
    """

    sm_pct: FloatArray
    quota_pct: FloatArray
    batch: NDArray[np.int64]
    instances: NDArray[np.int64]
    gpu_share: FloatArray
    host_cores: FloatArray
    request_ms: FloatArray
    fill_ms: FloatArray
    latency_ms: FloatArray
    mean_ms: FloatArray
    low_ms: FloatArray
    high_ms: FloatArray
    utilisation: FloatArray
    extrapolated: NDArray[np.bool_]
    meets: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.sm_pct)

    def choice(self, index: int) -> Choice:
        """The entry at `index` of the columns."""
        return Choice(
            config=ResourceConfig(
                float(self.sm_pct[index]), float(self.quota_pct[index]), int(self.batch[index])
            ),
            instances=int(self.instances[index]),
            gpu_share=float(self.gpu_share[index]),
            host_cores=float(self.host_cores[index]),
            request_ms=float(self.request_ms[index]),
            fill_ms=float(self.fill_ms[index]),
            latency_ms=float(self.latency_ms[index]),
            mean_ms=float(self.mean_ms[index]),
            low_ms=float(self.low_ms[index]),
            high_ms=float(self.high_ms[index]),
            utilisation=float(self.utilisation[index]),
            extrapolated=bool(self.extrapolated[index]),
        )

    def cheapest_first(self) -> NDArray[np.int64]:
        """Every index, by GPU share, then request latency, then instances: shape (S*Q*B,)."""
        # Shares that are equal on paper (2 x 30 % x 50 %, 1 x 30 % x 100 %) may differ in the last bit.
        share = np.round(self.gpu_share, 9)
        return np.lexsort((self.batch, self.sm_pct, self.instances, self.request_ms, share))


def price(grid: LatencyGrid, objective: Objective) -> Options:
    """Price every configuration of a grid.

    With L the execution latency of a batch b, ms, and rps the load:

        n          = ceil(rps x L / (1000 b x utilisation))   an instance serves 1000 b / L requests a second
        fill_ms    = 1000 (b - 1) n / rps                     b - 1 arrivals at the rate of one instance
        request_ms = fill_ms + L

    A batch is taken to start when it is full. Waiting for an instance that is busy is not in it: at even
    arrivals there is none, since a batch takes longer to fill than to run, and for others `utilisation`
    leaves a reserve; the replay of a trace measures what becomes of it.
    """
    shape = grid.grid.shape
    axes = (grid.grid.sm_pct, grid.grid.quota_pct, grid.grid.batch)
    sm, quota, batch = (
        np.broadcast_to(np.reshape(np.asarray(axis, float), [-1 if i == j else 1 for j in range(3)]), shape)
        for i, axis in enumerate(axes)
    )
    latency = grid.high_ms if objective.risk == Risk.UPPER else grid.mean_ms
    busy = objective.rps * latency / (1000.0 * batch)
    # 1e-9: a load that n instances carry exactly must not need n + 1 because of the last bit.
    instances = np.maximum(np.ceil(busy / objective.utilisation - 1e-9), 1.0)
    fill = 1000.0 * (batch - 1) * instances / objective.rps
    request = fill + latency
    return Options(
        sm_pct=sm.ravel(),
        quota_pct=quota.ravel(),
        batch=batch.astype(np.int64).ravel(),
        instances=instances.astype(np.int64).ravel(),
        gpu_share=(instances * sm * quota / 1e4).ravel(),
        host_cores=(instances * grid.host_ms / grid.mean_ms).ravel(),
        request_ms=request.ravel(),
        fill_ms=fill.ravel(),
        latency_ms=latency.ravel(),
        mean_ms=grid.mean_ms.ravel(),
        low_ms=grid.low_ms.ravel(),
        high_ms=grid.high_ms.ravel(),
        utilisation=(busy / instances).ravel(),
        extrapolated=grid.extrapolated.ravel(),
        meets=(request <= objective.slo_ms).ravel(),
    )
