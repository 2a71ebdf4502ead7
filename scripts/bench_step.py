"""How long one step of the core takes: 100 functions on 64 GPUs, one core of this machine.

    OMP_NUM_THREADS=1 python scripts/bench_step.py [--functions 100] [--gpus 64] [--policy simple]

Each function has Poisson arrivals at a mean of its own with a slow wave on it; instances are ready a cold
start after they were ordered and report times that are off by a factor of their own. The first tenth of the
ticks, in which the fleet is started, is shown apart. Times in ms; the goal is 20 ms a step. CPU time is what
a step costs; wall time is longer where other load shares the machine. The state goes through JSON before
each step, which is not timed. As in the live controller garbage is collected between steps, not within one.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time

import numpy as np

from rapp.cli.tables import console, table
from scaler.core.settings import Settings
from scaler.core.step import Core
from scaler.forecast.registry import NAMES, forecaster
from scaler.functions import FunctionSpec
from scaler.live.collecting import keep_what_is_built, without_collection
from scaler.policies import registry
from scaler.testing.fleet import Fleet, gpus, times_of
from scaler.testing.simple_policy import SimplePolicy

GOAL_MS = 20.0


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--functions", type=int, default=100)
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--ticks", type=int, default=300)
    parser.add_argument("--forecaster", choices=NAMES, default="kalman")
    parser.add_argument("--policy", choices=("simple", *registry.NAMES), default="simple")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    specs = [FunctionSpec(name=f"f{i}", network=f"n{i}", slo_ms=400) for i in range(given.functions)]
    scale = rng.uniform(4, 12, given.functions)
    times = {spec.name: times_of(spec, work) for spec, work in zip(specs, scale, strict=True)}
    policy = SimplePolicy() if given.policy == "simple" else registry.policy(given.policy)
    core = Core(specs, times, forecaster(given.forecaster), policy, Settings())
    fleet = Fleet(specs, gpus(given.gpus), times, off=1.2)
    mean_rps = rng.uniform(2, 60, given.functions)
    state, took_ms, changes = None, [], 0
    keep_what_is_built()
    for tick in range(given.ticks):
        wave = 1 + 0.5 * np.sin(2 * math.pi * (tick / 120 + np.arange(given.functions) / 7))
        counts = rng.poisson(mean_rps * wave).tolist()
        seen = fleet.observe(dict(zip(times, counts, strict=True)))
        begun = np.array([time.perf_counter(), time.process_time()])
        with without_collection():
            state, decision = core.step(state, seen)
        took_ms.append(1e3 * (np.array([time.perf_counter(), time.process_time()]) - begun))
        state = json.loads(json.dumps(state))
        fleet.apply(decision)
        changes += len(decision.actions)
        fleet.advance(1.0)
    show(given, np.array(took_ms), len(fleet.instances), changes)


def show(given: argparse.Namespace, took_ms: np.ndarray, instances: int, changes: int) -> None:
    """Print the table."""
    out, made = console(), table("part", "steps", "median ms", "p99 ms", "max ms")
    out.print(f"{given.functions} functions, {given.gpus} GPUs, {instances} instances at the end")
    out.print(f"{changes} changes; policy {given.policy}, forecaster {given.forecaster}")
    out.print(f"Python {platform.python_version()}, {platform.machine()}")
    first = max(given.ticks // 10, 1)
    for part, values in (("first ticks", took_ms[:first]), ("after them", took_ms[first:])):
        for clock, column in (("wall", 0), ("CPU", 1)):
            of = values[:, column] if len(values) else np.zeros(1)
            figures = (np.median(of), np.quantile(of, 0.99), of.max())
            made.add_row(f"{part}, {clock}", str(len(values)), *(f"{figure:.2f}" for figure in figures))
    out.print(made)
    p99 = float(np.quantile(took_ms[first:] if given.ticks > first else took_ms, 0.99, axis=0)[0])
    out.print(f"goal {GOAL_MS:g} ms a step at p99: {'met' if p99 <= GOAL_MS else 'missed'}, {p99:.2f} ms")


if __name__ == "__main__":
    main()
