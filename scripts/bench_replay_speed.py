"""How long a replay takes: one function, 24 hours at a mean of 64 requests a second, on one core.

    OMP_NUM_THREADS=1 python scripts/bench_replay_speed.py [--hours 24] [--rps 64] [--policy hybrid]

The rate has a daily wave of 60 % with Poisson arrivals: 5.5 million requests and 86,400 decisions. Times are
those of a network that takes 8 ms a request on a whole GPU. The goal is 40 s. CPU time is what a replay
costs; wall time is longer where other load shares the machine. The event loop is compiled before, which is
not timed: it takes some ten seconds once, and is kept beside the module.
"""

from __future__ import annotations

import argparse
import gc
import math
import resource
import time
from dataclasses import dataclass

import numpy as np

from rapp.cli.tables import console, table
from rapp.latency_model import LatencyModel
from scaler.functions import FunctionSpec
from scaler.policies import registry
from scaler.replay import device, events
from scaler.replay.compiling import COMPILED
from scaler.replay.runner import Run, replay
from scaler.replay.setup import ReplaySetup
from scaler.replay.world import empty_world
from scaler.sources.service_times import ServiceTimes
from scaler.sources.tabled import TabledModel
from scaler.testing.fleet import times_of
from scaler.trace import ArrivalProcess, Trace

GOAL_S = 40.0


@dataclass(frozen=True, slots=True)
class _ClosedForm:
    name: str = "closed form"

    def model(self, function: FunctionSpec) -> LatencyModel:
        return TabledModel(self.times(function))

    def times(self, function: FunctionSpec) -> ServiceTimes:
        return times_of(function)


def setup_of(hours: float, rps: float) -> ReplaySetup:
    """The replay."""
    spec = FunctionSpec(name="f", network="f", slo_multiplier=2.0, memory_mib=1500.0)
    seconds = np.arange(round(3600 * hours))
    wave = 1 + 0.6 * np.sin(2 * math.pi * seconds / 86_400 - math.pi / 2)
    arrivals = Trace.of_rates(rps * wave / wave.mean()).arrivals(["f"], ArrivalProcess.POISSON)
    source = _ClosedForm()
    return ReplaySetup([spec], arrivals, source, source, 3600 * hours)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--rps", type=float, default=64.0)
    parser.add_argument("--policy", choices=registry.NAMES, default="hybrid")
    given = parser.parse_args()
    _compile()
    small = setup_of(0.05, given.rps)
    replay(small, small.policy(given.policy))
    setup = setup_of(given.hours, given.rps)
    parts = {"run_until": 0.0, "observe": 0.0, "step": 0.0, "apply": 0.0}
    gc.collect()
    gc.freeze()
    begun = np.array([time.perf_counter(), time.process_time()])
    run = Run(setup, setup.policy(given.policy))
    for name in parts:
        _timed(run.core if name == "step" else run.cluster, name, parts)
    for _ in run.ticks():
        pass
    result = run.result()
    wall_s, cpu_s = (np.array([time.perf_counter(), time.process_time()]) - begun).tolist()
    out = console()
    out.print(
        f"{given.policy}, {given.hours:g} h: {result.total.arrivals:,} requests,"
        f" {len(result.series.at_s):,} decisions, {result.changes:,} changes,"
        f" {100 * result.total.violation_share:.2f} % violations; compiled: {COMPILED}"
    )
    made = table("part", "CPU s", "us a tick")
    for name, seconds in [*parts.items(), ("the rest", cpu_s - sum(parts.values())), ("all", cpu_s)]:
        made.add_row(name, f"{seconds:.1f}", f"{1e6 * seconds / len(result.series.at_s):.0f}")
    out.print(made)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    out.print(f"wall {wall_s:.1f} s; goal {GOAL_S:g} s; memory at most {peak_mib:,.0f} MiB")


def _compile() -> None:
    """Call once each function that is compiled at its first call."""
    few = {"queue_limit": np.ones(1, np.int64), "most_delay_s": np.zeros(1), "objective_s": np.ones(1)}
    rows = {"row_gpu": np.zeros(1, np.int64), "gpus": 1, "instances": 2, "most_batch": 1}
    w = empty_world(np.ones(1), np.zeros(1, np.int64), **few, **rows, noise=np.ones(1), beside=1.0)
    for slot in range(2):
        events.start(w, slot, 0.0)
    events.run_until(w, 2.0)
    device.set_quota(w, 0, 0.5)
    events.drain(w, 0)
    events.stop(w, 1)


def _timed(owner: object, name: str, parts: dict[str, float]) -> None:
    """Add up the CPU time of a method of this object."""
    plain = getattr(owner, name)

    def timed(*arguments: object) -> object:
        begun = time.process_time()
        answer = plain(*arguments)
        parts[name] += time.process_time() - begun
        return answer

    setattr(owner, name, timed)


if __name__ == "__main__":
    main()
