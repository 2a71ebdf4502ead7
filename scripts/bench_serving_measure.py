"""What scripts/bench_serving.py measures of a server that is up."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from bench_serving_servers import Running

from scaler.live.load import LoadOptions, run_load
from scaler.live.load_report import LoadReport
from scaler.trace import ArrivalProcess, Trace

IN_FLIGHT = 16
"""Requests that are always on the way at saturation."""

WARM_S = 2.0
"""Left out at the beginning of each measurement, s."""


def saturation(server: Running, name: str, duration_s: float) -> dict[str, Any]:
    """Answers a second while `IN_FLIGHT` requests are always on the way.

    Far more requests are due than can be answered, over as many connections: whenever one is free, the next
    request leaves.
    """
    due = {name: Trace.of_rates([2000.0], duration_s).arrivals([name])[name]}
    options = LoadOptions(timeout_ms=1e9, connections=IN_FLIGHT, drain_s=0.0)
    with server.measured():
        cpu_s = server.cpu_s()
        report = run_load(server.url, due, duration_s, options=options, targets={name: server.target})
        cpu_s = server.cpu_s() - cpu_s
    records = report.records
    ended_s = (records.intended_s + records.latency_ms / 1e3)[records.answered]
    ended_s = np.sort(ended_s[(ended_s > WARM_S) & (ended_s <= duration_s)])
    return {
        "rps": (len(ended_s) - 1) / (ended_s[-1] - ended_s[0]) if len(ended_s) > 1 else 0.0,
        "cpu_ms": 1e3 * cpu_s / max(report.total.answered, 1),
        "errors": dict(report.total.errors) | {"429": report.total.refused},
        "generator_cores": report.cpu_cores,
    }


def latency(
    server: Running,
    name: str,
    rps: float,
    duration_s: float,
    seed: int,
    process: ArrivalProcess = ArrivalProcess.POISSON,
) -> dict[str, Any]:
    """Latencies at a rate, open loop; the first seconds are left out."""
    due = Trace.of_rates([rps], duration_s + WARM_S).arrivals([name], process, seed)
    with server.measured("rr" if process is ArrivalProcess.EVEN else None):
        cpu_s = server.cpu_s()
        report = run_load(server.url, due, duration_s + WARM_S, targets={name: server.target})
        cpu_s = server.cpu_s() - cpu_s
    return _latency(report, rps) | {"cpu_ms": 1e3 * cpu_s / max(report.total.answered, 1)}


def _latency(report: LoadReport, rps: float) -> dict[str, Any]:
    records = report.records
    counted = records.answered & (records.intended_s >= WARM_S)
    return {
        "rate_rps": rps,
        "latency_ms": np.round(records.latency_ms[counted], 3).tolist(),
        "lag_ms": np.round(1e3 * (records.sent_s - records.intended_s)[counted], 3).tolist(),
        "errors": dict(report.total.errors) | {"429": report.total.refused},
        "generator_cores": report.cpu_cores,
    }


def machine() -> dict[str, Any]:
    """How busy the machine is with what we did not start: to be asked while nothing of ours runs."""
    before, begun = _busy_s(), time.monotonic()
    time.sleep(2)
    return {"other_cores": (_busy_s() - before) / (time.monotonic() - begun)}


def _busy_s() -> float:
    """CPU time of the machine that was not idle, s."""
    import os

    with open("/proc/stat", encoding="ascii") as file:  # noqa: PTH123
        fields = list(map(int, file.readline().split()[1:9]))
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")
