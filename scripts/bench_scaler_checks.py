"""What must hold of the replay and the core themselves: queues against theory, and speed.

    M/D/1    mean wait  load / (2 (1 - load))  services           Pollaczek 1930, Khinchine 1932
    M/M/1    mean wait  load / (1 - load)                         Erlang 1917
    M/D/4    from the stationary distribution of the number in the system, by Little's law (Crommelin 1932)

at load 0.5 and 0.8 over two million requests; the interval is that of 40 means of consecutive requests.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench_scaler_run import Places
from bench_scaler_times import NETWORKS, ROOT, Saved, spec_of

from rapp.fileio import atomic_path
from scaler.arrivals import ArrivalProcess
from scaler.replay import events
from scaler.replay.runner import replay
from scaler.replay.setup import Gpus, ReplaySetup
from scaler.replay.world import World, empty_world
from scaler.trace import Trace

SERVICE_S = 0.02
REQUESTS = 2_000_000
PARTS = 40
T_99 = 2.708
"""99 % quantile (two-sided) of Student's t with `PARTS` - 1 degrees of freedom."""

MEAN_RPS = 64.0
GOAL_DAY_S, GOAL_STEP_MS = 40.0, 20.0


def run_checks(places: Places) -> None:
    """Run what is missing, into OUT/checks.json."""
    file = places.out / "checks.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for name, run in (
        ("queues", queues),
        ("day-hybrid", lambda: day(places, "hybrid")),
        # The replay itself, with next to nothing to decide.
        ("day-whole-gpu", lambda: day(places, "whole-gpu")),
        ("step-hybrid", lambda: step("hybrid")),
    ):
        if name in found:
            continue
        found[name] = run()
        with atomic_path(file) as temporary:
            temporary.write_text(json.dumps(found, indent=1))
        print(f"{name}: {found[name]}", flush=True)


def queues() -> list[dict[str, Any]]:
    """Mean waits in services, simulated and by theory."""
    rows = []
    for load in (0.5, 0.8):
        for name, servers, theory in (
            ("M/D/1", 1, load / (2 * (1 - load))),
            ("M/M/1", 1, load / (1 - load)),
            ("M/D/4", 4, crommelin(load, 4)),
        ):
            noise = np.ones(1)
            if name == "M/M/1":
                # As many different services as requests, so that none comes again.
                noise = np.random.default_rng(5).exponential(1.0, REQUESTS)
                theory *= float(noise.mean())
            wait, half = mean_wait(load, servers, noise)
            rows.append({
                "queue": name, "load": load, "theory": theory, "wait": wait, "half": half,
                "inside": abs(wait - theory) <= half,
            })  # fmt: skip
    return rows


def mean_wait(load: float, servers: int, noise: np.ndarray) -> tuple[float, float]:
    """Mean wait in services, and half of its 99 % interval."""
    arrival = np.cumsum(np.random.default_rng(3).exponential(SERVICE_S / load / servers, REQUESTS))
    w = queue_of(arrival, servers, noise)
    events.run_until(w, float(arrival[-1]) + 1000)
    assert int(w.served[0]) == REQUESTS
    # One server serves in the order of arrival, so that the k-th request has the k-th service.
    waits = w.latency / SERVICE_S - (noise if len(noise) > 1 else 1.0)
    means = waits.reshape(PARTS, -1).mean(axis=1)
    return float(means.mean()), T_99 * float(means.std(ddof=1)) / float(np.sqrt(PARTS))


def queue_of(arrival: np.ndarray, servers: int, noise: np.ndarray) -> World:
    """One function on instances of batch 1, each in a row of its own."""
    w = empty_world(
        arrival, np.zeros(len(arrival), dtype=np.int64), queue_limit=np.array([10**6]),
        most_delay_s=np.array([0.0]), objective_s=np.array([1.0]), row_gpu=np.arange(servers), gpus=servers,
        instances=servers, most_batch=1, noise=noise, beside=1.0,
    )  # fmt: skip
    for i in range(servers):
        w.row[i], w.window[i] = i, 0.04
        w.device[i, 1:], w.pace[i, 1:] = SERVICE_S / 2, SERVICE_S
        events.start(w, i, 0.0)
    return w


def crommelin(load: float, servers: int, most: int = 400) -> float:
    """Mean wait of M/D/c in services: N' = max(N - c, 0) + Poisson(c load) after each service time."""
    rate = load * servers
    poisson = np.exp(-rate + np.cumsum(np.log(np.r_[1.0, rate / np.arange(1, most)])))
    change = np.zeros((most, most))
    for n in range(most):
        left = max(n - servers, 0)
        change[n, left:] = poisson[: most - left]
    change /= change.sum(axis=1, keepdims=True)
    system = np.vstack([change.T - np.eye(most), np.ones(most)])
    stationary = np.linalg.lstsq(system, np.r_[np.zeros(most), 1.0], rcond=None)[0]
    return float(np.maximum(np.arange(most) - servers, 0) @ stationary / rate)


def day(places: Places, policy: str) -> dict[str, Any]:
    """One function over a day at a mean of 64 rps, ServeGen's shape, Poisson; seconds, wall and CPU."""
    network = NETWORKS[0]
    trace = Trace.read(places.traces / "servegen_m_small_600s.csv").window(0, 86_400)
    trace = trace.scaled(MEAN_RPS / float(trace.rates([network])[network].mean()))
    setup = ReplaySetup(
        [spec_of(network)], trace.arrivals([network], ArrivalProcess.POISSON, 0),
        Saved(places.times, "truth"), Saved(places.times, "k11"), trace.duration_s, Gpus(4),
    )  # fmt: skip
    wall, cpu = time.perf_counter(), time.process_time()
    result = replay(setup, setup.policy(policy))
    return {
        "policy": policy, "requests": result.total.arrivals, "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu, "violations": result.total.violation_share,
        "gpu_seconds_per_1000": result.total.gpu_seconds_per_1000,
    }  # fmt: skip


def step(policy: str) -> dict[str, Any]:
    """What scripts/bench_step.py says, of 100 functions on 64 GPUs."""
    command = [sys.executable, str(Path(__file__).with_name("bench_step.py")), "--policy", policy]
    made = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ).stdout  # fmt: skip
    found = re.search(r"after them, CPU\s+(\d+)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)", made)
    assert found is not None, made
    names = ("steps", "median_ms", "p99_ms", "max_ms")
    return {"policy": policy} | dict(zip(names, map(float, found.groups()), strict=True))
