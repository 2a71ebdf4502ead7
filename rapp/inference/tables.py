"""Curves as the tables that the decoder reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rapp.inference.law import non_increasing, soft_maximum
from rapp.inference.posterior import Curves

Table = NDArray[np.float32]


@dataclass(frozen=True)
class Tables:
    """One network on the knots, float32.

    Args:
        log_latency: (B, S, Q) log latency under a launch gate, log ms, non-increasing in the quota.
        log_device: (B, S) log D, log ms.
        log_host: (B, S) log H without a quota, log ms.
        deviation: (B, S, Q) standard deviation of `log_latency`.
    """

    log_latency: Table
    log_device: Table
    log_host: Table
    deviation: Table

    @classmethod
    def of(cls, curves: Curves) -> Tables:
        """The launch gate's latency, with the steps smoothed that more quota would make slower."""
        gated = non_increasing(soft_maximum(curves.log_device[..., None], curves.log_host))
        arrays = gated, curves.log_device, curves.log_host[..., -1], curves.deviation
        return cls(*(np.ascontiguousarray(array, dtype=np.float32) for array in arrays))

    def with_noise(self, noise: float) -> Tables:
        """The same with the noise of a measurement (of its log latency) in `deviation`."""
        deviation = np.sqrt(self.deviation.astype(np.float64) ** 2 + noise**2).astype(np.float32)
        return Tables(self.log_latency, self.log_device, self.log_host, deviation)
