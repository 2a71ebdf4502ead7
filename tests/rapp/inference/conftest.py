"""A network whose curves are known, and points measured from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from rapp.inference.law import log_latency
from rapp.inference.posterior import Observations, Prior
from rapp.inference.structure import Structure, default_structure
from rapp.knots import Knots
from rapp.types import FloatArray

BATCH, SM_PCT, QUOTA_PCT = (1.0, 2.0, 4.0, 8.0), (5.0, 20.0, 50.0, 100.0), (10.0, 30.0, 60.0, 100.0)


@dataclass(frozen=True)
class World:
    """Knots, a structure, a prior, and a true network that differs from the prior as the structure allows.

    Args:
        device: (B, S) true log D on the knots. host: (Q,) true log H.
    """

    knots: Knots
    structure: Structure
    prior: Prior
    device: FloatArray
    host: FloatArray

    def measured(
        self,
        configs: Sequence[tuple[int, int, int]],
        *,
        gpu_time: Sequence[bool] | bool = False,
        credit: float = 0.0,
        error: FloatArray | float = 0.0,
    ) -> Observations:
        """Points at (batch, sm_pct, quota_pct), with an error of the log latency."""
        values = np.array(configs, dtype=np.float64).reshape(-1, 3)
        b, s, q = self.knots.nearest(values[:, 0], values[:, 1], values[:, 2])
        limits = np.broadcast_to(np.asarray(gpu_time, bool), len(values)).copy()
        share = values[:, 2] / 100
        host = self.host[np.where(limits, -1, q)]
        latency, _, _ = log_latency(self.device[b, s], host, share, limits, credit)
        return Observations(b, s, q, share, latency + error, limits, credit)

    def quiet(self, noise: float) -> Structure:
        """The structure with another noise."""
        return replace(self.structure, noise=noise)


@pytest.fixture
def world() -> World:
    """Device-bound at large batches and small partitions, host-bound elsewhere."""
    knots = Knots.around(BATCH, SM_PCT, QUOTA_PCT)
    structure = default_structure(
        knots.trained_batch, knots.trained_sm_pct, knots.quota_pct[knots.trained_quota()]
    )
    shape = 0.8 * (np.log(knots.batch)[:, None] - np.log(knots.sm_pct / 100)[None])
    host = -0.9 * np.log(knots.quota_pct / 100)
    prior = Prior(1.0 + shape, 2.0 + host)
    return World(knots, structure, prior, 1.5 + 1.1 * shape, 2.4 + 1.05 * host)
