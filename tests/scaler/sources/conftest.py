"""Profile tables of networks in closed form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from rapp.profiles import ProfileTable
from rapp.testing import ClosedFormModel
from rapp.types import QuotaKind, ResourceConfig
from scaler.functions import FunctionSpec

# Work at SM 100 %, batch 1, and launching, ms: alpha is held up by the host, beta by the device.
NETWORKS = {"alpha": ClosedFormModel("alpha", 1.0, 8.0), "beta": ClosedFormModel("beta", 12.0, 2.0)}
SM_PCT = (5, 10, 20, 35, 50, 75, 100)
BATCHES = (1, 2, 4, 8)


@pytest.fixture(scope="session")
def closed() -> dict[str, ClosedFormModel]:
    """The truth behind the tables."""
    return NETWORKS


@pytest.fixture(scope="session")
def table() -> Callable[..., ProfileTable]:
    """`table(kind, quotas, ...)`: what measuring the networks would give, with 1 % of noise.

    `recorded`: with device and launch time; `networks`: names in the table, and of which network they are.
    """

    def make(
        kind: QuotaKind,
        quotas: Sequence[float] = (10, 20, 40, 70, 100),
        *,
        recorded: bool = False,
        networks: Mapping[str, str] | None = None,
        **columns: object,
    ) -> ProfileTable:
        rng, rows = np.random.default_rng(0), []
        for name, of in (networks or {name: name for name in NETWORKS}).items():
            model = NETWORKS[of]
            for sm in SM_PCT:
                for quota in quotas:
                    for batch in BATCHES:
                        true = model.latency(ResourceConfig(sm, quota, batch), quota_kind=kind, idle_ms=0.0)
                        row: dict[str, object] = {
                            "network": name, "device": "closed", "runtime": "closed", "precision": "fp32",
                            "batch": batch, "sm_pct": sm, "quota_pct": quota, "quota_kind": str(kind),
                            "idle_ms": 0.0, "window_ms": 40.0, "status": "ok", "derived": False,
                            "latency_ms": true.mean_ms * np.exp(rng.normal(0, 0.01)),
                            "campaign_id": "closed", "anchor": False,
                        }  # fmt: skip
                        if recorded:
                            row |= {"device_ms": true.device_ms, "launch_ms": true.host_ms}
                            row |= {"peak_memory_mib": 100.0 + 10 * batch}
                        rows.append(row | columns)
        return ProfileTable.from_rows(rows, "closed.parquet")

    return make


@pytest.fixture(scope="session")
def function() -> Callable[..., FunctionSpec]:
    """`function("alpha")`: a function of this network."""

    def make(network: str, **keys: object) -> FunctionSpec:
        return FunctionSpec(**{"name": "f", "network": network, "slo_multiplier": 2.0} | keys)

    return make
