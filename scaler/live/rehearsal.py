"""A rehearsal: how execution times and latencies on the server differ from those of the plan.

The profiler measures a batch alone. On the server a request also passes gateway and sockets, and load
generator and gateway take of the cores that batches run on. So before a trial each function is sent a light
load, evenly spaced, on the instance that it has, and two numbers are taken:

    factor      mean time of a batch until it is computed / the plan's T at its SM partition and batch
    outside_ms  median latency - the plan's latency there x factor, at least 0

A trial plans with T x factor within objective - outside_ms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rapp.errors import RappError
from rapp.types import ResourceConfig
from scaler.capacity.rate import WINDOW_MS
from scaler.core.observation import InstanceView
from scaler.functions import FunctionSpec
from scaler.live.load import LoadOptions, run_load
from scaler.live.trial_server import TrialServer
from scaler.sources.service_times import ServiceTimes

LOAD, MOST_RPS = 0.35, 50.0
"""Of what the instance serves without a break, and requests a second at most: none waits for another."""

REQUESTS, LONGEST_S = 60, 20.0
"""Requests of one function, as many of them as go into so many seconds."""

FIRST_S = 1.0
"""Load that does not count before them, s: memory is touched and connections are opened."""


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What a rehearsal told of one function.

    Args:
        factor: execution time on the server over that of the plan.
        outside_ms: time that a request spends outside of its batch although nothing waits, ms.
        cold_start_s: longest time that an instance took to start, s.
    """

    factor: float
    outside_ms: float
    cold_start_s: float


def rehearse(
    server: TrialServer, functions: Sequence[FunctionSpec], times: Mapping[str, ServiceTimes]
) -> dict[str, Rehearsed]:
    """Load each function in turn; takes up to 20 s for each.

    Args:
        server: with an instance of each function. times: by function, those of the plan.

    Raises:
        RappError: an instance does not start, or a function has none, or answers with errors; it was
            interrupted.
    """
    cold_start_s = server.wait_ready()
    found = {}
    for spec in functions:
        factor, outside_ms = _one(server, spec.name, times[spec.name])
        found[spec.name] = Rehearsed(factor, outside_ms, cold_start_s.get(spec.name, spec.cold_start_s))
    return found


def _one(server: TrialServer, name: str, times: ServiceTimes) -> tuple[float, float]:
    """Factor and time outside, ms."""
    backend = server.backend()
    try:
        config = _instance(backend.observe().instances, name).config
        alone_ms = _alone_ms(times, config)
        rps = min(1e3 * LOAD / alone_ms, MOST_RPS)
        _median_ms(server.url, name, rps, max(round(FIRST_S * rps), 3))
        backend.observe()
        median_ms = _median_ms(server.url, name, rps, min(REQUESTS, max(round(LONGEST_S * rps), 5)))
        seen = _instance(backend.observe().instances, name)
    finally:
        backend.close()
    if seen.run_ms is None:
        raise RappError(f"function {name}: its instance reports no batch")
    factor = seen.run_ms / float(times.execution_ms(config.sm_pct, seen.requests / max(seen.batches, 1)))
    return factor, max(median_ms - alone_ms * factor, 0.0)


def _alone_ms(times: ServiceTimes, config: ResourceConfig) -> float:
    """The plan's latency of a request that finds a full token bucket."""
    return float(times.latency_ms(config.sm_pct, config.quota_pct, 1, credit_ms=WINDOW_MS))


def _instance(instances: Sequence[InstanceView], name: str) -> InstanceView:
    own = [one for one in instances if one.function == name]
    if not own:
        raise RappError(f"function {name}: the server has no instance of it: see serve.log")
    return own[0]


def _median_ms(url: str, name: str, rps: float, count: int) -> float:
    """Median latency of evenly spaced requests, ms."""
    arrivals = (np.arange(count, dtype=np.float64) + 0.5) / rps
    report = run_load(url, {name: arrivals}, count / rps, options=LoadOptions(timeout_ms=30e3))
    total = report.total
    if report.interrupted:
        raise RappError("the rehearsal was interrupted: nothing was tried")
    if total.p50_ms is None or total.errors or total.refused:
        raise RappError(f"function {name}: the server does not answer all of a light load: see serve.log")
    return total.p50_ms
