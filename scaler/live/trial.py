"""A trial: one policy on a real server under a real load, beside what a replay foretells of it.

    server (gateway, workers) <── controller, each second
        ^
        └── load, open loop

All on this machine; the cores that instances run on are those that gateway, controller and load generator
need too, so that what these took is told beside every result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rapp.types import FloatArray
from scaler.live.load import LoadOptions, LoadProgress, run_load
from scaler.live.load_report import LoadReport
from scaler.live.trial_control import Controlled, controlling, gpu_seconds
from scaler.live.trial_server import serving

LEAD_TICKS = 3
"""Ticks of the controller before the load, besides a cold start: what it starts first is ready then."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a policy, live or in a replay.

    Args:
        gpu_seconds: sum over instances of SM share x quota x time, while the trace lasted.
        violation_share: requests late, refused, failed or unfinished, over all.
        p50_ms, p99_ms: latency of what was answered, from the intended send time; NaN: nothing was.
        starts, resizes, drains: changes while the trace lasted.
    """

    gpu_seconds: float
    violation_share: float
    p50_ms: float
    p99_ms: float
    starts: int
    resizes: int
    drains: int


@dataclass(frozen=True, slots=True)
class Trial:
    """What was measured.

    Args:
        outcome: of the policy. report: of the load.
        gateway_cores: CPU time of the gateway over the time of the trace. generator_cores: of the generator.
        late_ticks: seconds of the trace without a tick.
    """

    outcome: Outcome
    report: LoadReport
    gateway_cores: float
    generator_cores: float
    late_ticks: int


def run_trial(
    given: Controlled,
    functions_file: Path,
    arrivals: Mapping[str, FloatArray],
    duration_s: float,
    slo_ms: Mapping[str, float],
    folder: Path,
    on_progress: Callable[[LoadProgress], None] | None = None,
) -> Trial:
    """Serve, control and load for as long as the trace lasts.

    Args:
        given: the controller. functions_file: what is served.
        arrivals: by function, when requests are to be sent, s. duration_s: length of the trace.
        slo_ms: objectives, by function. folder: where logs go.

    Raises:
        RappError: server or controller ended, or the server cannot be reached.
    """
    lead_s = max(spec.cold_start_s for spec in given.functions) + LEAD_TICKS * given.settings.tick_s
    with serving(functions_file, folder) as server:
        server.wait_ready()
        with controlling(given, server.url, server.token_file) as samples:
            # The controller's own process starts in that time too.
            time.sleep(lead_s + START_OF_A_PROCESS_S)
            cpu_s, begin_s = server.gateway_cpu_s(), time.monotonic()
            report = run_load(
                server.url, arrivals, duration_s, slo_ms=slo_ms, on_progress=on_progress,
                options=LoadOptions(timeout_ms=10 * max(slo_ms.values()) + 2e3 * lead_s),
            )  # fmt: skip
            end_s = begin_s + duration_s
            gateway_cores = (server.gateway_cpu_s() - cpu_s) / (time.monotonic() - begin_s)
    within = [one for one in samples if begin_s <= one.at_s < end_s]
    total = report.total
    return Trial(
        Outcome(
            gpu_seconds(samples, begin_s, end_s),
            total.violation_share,
            _or_nan(total.p50_ms),
            _or_nan(total.p99_ms),
            sum(one.starts for one in within),
            sum(one.resizes for one in within),
            sum(one.drains for one in within),
        ),
        report,
        gateway_cores,
        report.cpu_cores,
        max(round(duration_s / given.settings.tick_s) - len(within), 0),
    )


START_OF_A_PROCESS_S = 3.0
"""For the controller's process to import what it needs."""


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
