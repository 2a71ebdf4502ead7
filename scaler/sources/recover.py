"""Device time D and host time H of a network from the rows of a profile table.

Where every cell of SM partition and batch was measured with `device_ms` and `launch_ms`, those are D and H.
Else they are inferred from the latencies of all quotas together (`rapp.inference.learn.fit_network`): under
either kind of quota a latency is a soft maximum of the two, so that a fast cell tells H, a slow one D, and a
launch gate's low quotas tell H everywhere. Where launching hides the device, D is not in the data; it is
continued from the cells that show it, about as (batch / SM)^0.8, and bounded by the latency. An artifact of
the same device continues it better, from the network's graph and from other networks: `from_prior`.

On the public V100 profiles softmax(D, H) is within 1 to 2 % of the latency at quota 100 %, cell by cell.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from rapp.errors import ProfileError
from rapp.inference.law import credit_ms
from rapp.inference.learn import fit_network
from rapp.inference.posterior import Observations
from rapp.inference.tables import Tables
from rapp.knots import Knots
from rapp.types import FloatArray, MeasuredPoint, QuotaKind, ResourceGrid
from scaler.sources.service_times import Gate, ServiceTimes

if TYPE_CHECKING:
    from rapp.network_predictor import NetworkPredictor
    from rapp.profiles import ProfileTable

NOISE = 0.03
"""Standard deviation of one measured log latency (V100 profiles: 2.9 %)."""

HALF_90 = 1.645
"""Half a 90 % interval in standard deviations of a normal distribution."""

LEAST_HOST_MS = 1e-3
"""A launch time of 0 as it may be recorded; times have to be positive."""


def recovered(rows: ProfileTable, network: str) -> ServiceTimes:
    """D and H of a network over the SM partitions and batches of its rows, and its launch gate if any.

    Args:
        rows: measured rows of this network alone, on one device, runtime and precision.

    Raises:
        ProfileError: neither D and H nor a row at quota 100 %: a launch gate hides both everywhere.
        ConfigError: more than 64 different values on an axis.
    """
    sm_pct, batch = (np.unique(rows.column(name)).astype(np.float64) for name in ("sm_pct", "batch"))
    measured = _measured(rows, sm_pct, batch)
    if measured is None:
        return _inferred(rows, network, sm_pct, batch)
    upper = np.full(measured[0].shape, math.exp(HALF_90 * NOISE))
    gated = QuotaKind.LAUNCH_GATE in rows.column("quota_kind") and rows.column("quota_pct").max() >= 100
    return ServiceTimes(
        network, f"{rows.source} (D and H as measured)", sm_pct, batch, *measured, upper,
        _memory(rows, batch), _inferred(rows, network, sm_pct, batch).gate if gated else None,
    )  # fmt: skip


def from_prior(rows: ProfileTable, model: NetworkPredictor) -> ServiceTimes:
    """The same from an artifact's answers for the network, calibrated with its rows."""
    sm_pct, batch, quota_pct = (
        np.unique(rows.column(name)).astype(np.float64) for name in ("sm_pct", "batch", "quota_pct")
    )
    batches = [int(b) for b in batch]
    full = model.latency_grid(
        ResourceGrid(sm_pct.tolist(), (100.0,), batches), quota_kind=QuotaKind.GPU_TIME, idle_ms=0.0
    )
    gate = None
    if QuotaKind.LAUNCH_GATE in rows.column("quota_kind"):
        grid = ResourceGrid(sm_pct.tolist(), quota_pct.tolist(), batches)
        gate = Gate(quota_pct, model.latency_grid(grid, quota_kind=QuotaKind.LAUNCH_GATE).mean_ms)
    return ServiceTimes(
        network=model.name,
        source=f"{rows.source} (D and H inferred with an artifact)",
        sm_pct=sm_pct,
        batch=batch,
        device_ms=full.device_ms[:, 0],
        host_ms=full.host_ms[:, 0],
        upper=np.maximum((full.high_ms / full.mean_ms)[:, 0], 1.0),
        memory_mib=_memory(rows, batch),
        gate=gate,
    )


def window_ms(rows: ProfileTable) -> float:
    """Window of the quota in the rows, ms, the median; infinite where it is not known."""
    known = rows.column("window_ms")
    known = known[np.isfinite(known)]
    return float(np.median(known)) if len(known) else math.inf


def measured_points(rows: ProfileTable, network: str) -> tuple[MeasuredPoint, ...]:
    """The rows as points to calibrate with; repetitions are one point, their mean."""
    from rapp.evaluation.points import merged

    return merged(rows.points(network))


def _measured(
    rows: ProfileTable, sm_pct: FloatArray, batch: FloatArray
) -> tuple[FloatArray, FloatArray] | None:
    """D and H as recorded, (S, B) each; None if a cell has none.

    Neither depends on the quota; the rows of a cell's largest quota count, where it disturbs least.
    """
    tables = np.full((2, len(sm_pct), len(batch)), np.nan)
    s, b = np.searchsorted(sm_pct, rows.column("sm_pct")), np.searchsorted(batch, rows.column("batch"))
    quota, device, launch = (rows.column(name) for name in ("quota_pct", "device_ms", "launch_ms"))
    there = np.isfinite(device) & np.isfinite(launch)
    for i, j in {*zip(s[there].tolist(), b[there].tolist(), strict=True)}:
        cell = there & (s == i) & (b == j)
        cell &= quota == quota[cell].max()
        tables[:, i, j] = device[cell].mean(), max(float(launch[cell].mean()), LEAST_HOST_MS)
    return (tables[0], tables[1]) if np.isfinite(tables).all() else None


def _inferred(rows: ProfileTable, network: str, sm_pct: FloatArray, batch: FloatArray) -> ServiceTimes:
    quota, latency = rows.column("quota_pct"), rows.column("latency_ms")
    gpu_time = np.array([kind == QuotaKind.GPU_TIME for kind in rows.column("quota_kind")])
    if not gpu_time.any() and quota.max() < 100:
        raise ProfileError(
            rows.source,
            f"{network} has no row at quota 100 %: a launch gate shows neither device nor host time",
        )
    idle = rows.column("idle_ms")
    credit = credit_ms(float(np.nanmedian(idle)) if np.isfinite(idle).any() else 0.0, window_ms(rows))
    knots = Knots.around(rows.column("batch"), rows.column("sm_pct"), quota)
    at = knots.nearest(rows.column("batch"), rows.column("sm_pct"), quota)
    curves = fit_network(Observations(*at, quota / 100, np.log(latency), gpu_time, credit), knots)
    b, s = np.searchsorted(knots.batch, batch), np.searchsorted(knots.sm_pct, sm_pct)
    gate = None
    if not gpu_time.all():
        q = np.searchsorted(knots.quota_pct, np.unique(quota[~gpu_time]))
        gated = np.exp(Tables.of(curves).log_latency.astype(np.float64)[np.ix_(b, s, q)])
        gate = Gate(knots.quota_pct[q], gated.transpose(1, 2, 0))
    # The noise of a single measurement is not in it: tables are means over what many cells say together.
    deviation = curves.deviation[..., -1][np.ix_(b, s)]
    return ServiceTimes(
        network=network,
        source=f"{rows.source} (D and H inferred)",
        sm_pct=sm_pct,
        batch=batch,
        device_ms=np.exp(curves.log_device[np.ix_(b, s)]).T,
        host_ms=np.exp(curves.log_host[..., -1][np.ix_(b, s)]).T,
        upper=np.exp(HALF_90 * deviation).T,
        memory_mib=_memory(rows, batch),
        gate=gate,
    )


def _memory(rows: ProfileTable, batch: FloatArray) -> FloatArray | None:
    """Largest peak memory by batch, (B,), MiB; None if a batch has none."""
    peak, of = rows.column("peak_memory_mib"), rows.column("batch")
    known = [peak[(of == b) & np.isfinite(peak)] for b in batch]
    return np.array([values.max() for values in known]) if all(len(values) for values in known) else None
