"""`LatencySource`: what answers for the networks of functions; and what is asked of every source alike."""

from __future__ import annotations

import logging
import math
from typing import Protocol

import numpy as np

from rapp.errors import InfeasibleError
from rapp.latency_model import LatencyModel
from rapp.recommend import Risk
from rapp.types import QuotaKind, ResourceGrid
from scaler.errors import NoLatencySourceError
from scaler.functions import FunctionSpec
from scaler.sources.service_times import Gate, ServiceTimes

HAS_GPU_MEMORY_MIB = 3.7e9 / 2**20
"""Device memory that HAS-GPU gives every pod: 3.7e9 bytes (internal/controller, commit fe7105e)."""

SM_PCT = tuple(float(share) for share in range(5, 101, 5))
"""SM partitions of a table of times: those of the public V100 profiles, %."""

BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Batches of a table of times, as far as a source knows them; between them times are taken as straight."""

_log = logging.getLogger(__name__)


class LatencySource(Protocol):
    """Execution times of many networks. `rapp.testing.LatencyModelContract` holds for what `model` gives."""

    @property
    def name(self) -> str:
        """What it is, for people: shown beside every result that rests on it."""

    def model(self, function: FunctionSpec) -> LatencyModel:
        """What answers for the function's network.

        Raises:
            NoLatencySourceError: it does not know the network.
            RappError: the network's file or its rows cannot be used.
        """

    def times(self, function: FunctionSpec) -> ServiceTimes:
        """The same as tables, for batches up to `max_batch` as far as the source itself knows them.

        Raises:
            RappError: as `model`.
        """


def times_of(
    model: LatencyModel,
    source: str,
    function: FunctionSpec,
    quota_kind: QuotaKind = QuotaKind.GPU_TIME,
) -> ServiceTimes:
    """Tables of what a model answers, over `SM_PCT` and the `BATCHES` up to `max_batch`.

    SM partitions and batches that are extrapolated throughout are left out: the interval does not cover them.

    Raises:
        NoLatencySourceError: the model knows no batch that the function may use.
        RappError: the model cannot answer for `quota_kind`.
    """
    batches = sorted({*(b for b in BATCHES if b < function.max_batch), function.max_batch})
    grid = ResourceGrid(SM_PCT, (100.0,), batches)
    # At full quota what one batch takes is T under either law; D, H and the interval's ratio are its own.
    full = model.latency_grid(grid, quota_kind=QuotaKind.GPU_TIME, idle_ms=0.0)
    beyond = full.extrapolated[:, 0]
    if beyond.all():
        raise NoLatencySourceError(
            f"function {function.name}: {source} knows {function.network_name} at no batch"
            f" up to max_batch {function.max_batch}"
        )
    s, b = np.flatnonzero(~beyond.all(axis=1)), np.flatnonzero(~beyond.all(axis=0))
    kept = [batches[index] for index in b]
    if kept[-1] < function.max_batch:
        _log.warning(
            "function %s: %s knows %s up to batch %d: max_batch %d is not used",
            function.name, source, function.network_name, kept[-1], function.max_batch,
        )  # fmt: skip
    sm_pct = tuple(SM_PCT[index] for index in s)
    device, host, mean, high = (
        table[:, 0][np.ix_(s, b)] for table in (full.device_ms, full.host_ms, full.mean_ms, full.high_ms)
    )
    return ServiceTimes(
        network=model.name,
        source=source,
        sm_pct=np.array(sm_pct),
        batch=np.array(kept, dtype=np.float64),
        device_ms=device,
        host_ms=host,
        upper=np.maximum(high / mean, 1.0),
        gate=_gate(model, sm_pct, kept) if quota_kind == QuotaKind.LAUNCH_GATE else None,
    )


def check_objective(
    function: FunctionSpec, slo_ms: float, times: ServiceTimes, risk: Risk = Risk.MEAN
) -> None:
    """See that a batch can be executed within the objective at all, with nothing waiting.

    Raises:
        InfeasibleError: none can; names the fastest configuration and its latency.
    """
    config, fastest_ms = times.fastest(risk)
    # 1e-9: an objective that the fastest configuration meets exactly must not fail by its last bit.
    if slo_ms < fastest_ms * (1 - 1e-9):
        bound = "upper end of the interval" if risk == Risk.UPPER else "mean"
        raise InfeasibleError(
            f"function {function.name}: an objective of {slo_ms:g} ms is below the fastest configuration of"
            f" {times.network}, SM {config.sm_pct:g} %, quota 100 %, batch {config.batch}, which takes"
            # Rounded up, so that the figure works when it is given as the objective.
            f" {math.ceil(fastest_ms * 100 - 1e-6) / 100:g} ms ({bound}, {times.source})"
        )


def memory_mib(function: FunctionSpec, times: ServiceTimes) -> float:
    """Device memory of one instance, MiB: as given, else as measured at `max_batch`, else that of HAS-GPU."""
    if function.memory_mib is not None:
        return function.memory_mib
    measured = times.instance_memory_mib(function.max_batch)
    if measured is not None:
        return measured
    _log.warning(
        "function %s: memory is not known, taken as %.0f MiB, what HAS-GPU gave every pod: give memory_mib",
        function.name,
        HAS_GPU_MEMORY_MIB,
    )
    return HAS_GPU_MEMORY_MIB


def _gate(model: LatencyModel, sm_pct: tuple[float, ...], batches: list[int]) -> Gate:
    quota_pct = tuple(float(share) for share in range(10, 101, 10))
    grid = ResourceGrid(sm_pct, quota_pct, batches)
    answer = model.latency_grid(grid, quota_kind=QuotaKind.LAUNCH_GATE)
    return Gate(np.array(quota_pct), answer.mean_ms)
