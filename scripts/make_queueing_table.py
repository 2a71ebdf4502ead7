"""Makes `scaler/capacity/queueing.npz`: latencies in a queue with bulk service and services that vary.

    python scripts/make_queueing_table.py [--requests 600000] [--out scaler/capacity/queueing.npz]

k servers, one queue, Poisson arrivals. A server that is free takes what waits, at most b requests. Serving n
of them takes a time of mean

    T[n] = r + (1 - r) (n - 1) / (b - 1),        T[1] = r, T[b] = 1

Simulated for each k, b, r and load. Two things make it more than a formula. Services of equal length keep the
distance in which they began, so that the next may be far off for ever; those of GPUs vary and drift past each
other. And where larger batches take longer, servers bunch as buses do: who is late finds more waiting.

Takes some ten minutes with numba, the extra `fast`; days without.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from rapp.fileio import atomic_path
from rapp.types import FloatArray
from scaler.capacity.queueing import FILE
from scaler.replay.compiling import COMPILED, compiled

SIZES = np.array([1, 2, 3, 4, 6, 8, 12, 16, 32, 64])
"""Numbers of servers, and batches; between them the table is interpolated."""

SINGLE = np.array([1.0, 0.95, 0.85, 0.7, 0.5, 0.25, 0.12, 0.06, 0.03])
"""r: service of a single request against that of a full batch."""

# Close together where little load already makes the quantile jump from no wait to a residual service.
LOADS = np.array(
    [
        0.005,
        0.007,
        0.01,
        0.014,
        0.02,
        0.03,
        0.045,
        0.07,
        0.1,
        0.14,
        0.18,
        0.22,
        0.26,
        0.3,
        0.35,
        0.4,
        0.45,
        0.5,
        0.55,
        0.6,
        0.65,
        0.7,
        0.75,
        0.8,
        0.84,
        0.88,
        0.91,
        0.94,
        0.96,
        0.98,
    ]
)
QUANTILES = np.array([0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999])

WARM_UP = 0.02
"""Share of the requests that the queue gets to forget that it began empty."""

RUN_NOISE, SERVER_NOISE = 0.029, 0.058
"""Standard deviation of the log of a service, and of all services of a server (public V100 profiles)."""

RENEWED = 2000
"""Requests after which all servers are drawn anew: quantiles are those over many sets of servers."""


@compiled
def simulate(
    arrival: FloatArray,
    service: FloatArray,
    noise: FloatArray,
    factor: FloatArray,
    free: FloatArray,
    latency: FloatArray,
) -> int:
    """Fill `latency` for sorted `arrival` times; the number of services.

    Args:
        service: (b + 1,) mean time to serve n requests, at n.
        noise: factors on single services, used in turn.
        factor: (F, k) factors on those of each server; the next of F sets after every `RENEWED` requests.
        free: (k,) room to work in.
    """
    free[:] = 0.0
    first, services, servers, batch = 0, 0, len(free), len(service) - 1
    while first < len(arrival):
        server = 0
        for other in range(1, servers):
            if free[other] < free[server]:
                server = other
        begin = max(free[server], arrival[first])
        taken = 0
        while taken < batch and first + taken < len(arrival) and arrival[first + taken] <= begin:
            taken += 1
        own = noise[services % len(noise)] * factor[(first // RENEWED) % len(factor), server]
        free[server] = begin + service[taken] * own
        for request in range(first, first + taken):
            latency[request] = free[server] - arrival[request]
        first += taken
        services += 1
    return services


def main() -> None:
    """Simulate and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=600_000, help="of each cell")
    parser.add_argument("--out", type=Path, default=FILE)
    options = parser.parse_args()
    if not COMPILED:
        print("numba is not there: this will take days (pip install 'rapp[fast]')", flush=True)
    started = time.monotonic()
    # The same draws for every cell: differences between cells are then differences of the queues.
    marks = np.cumsum(np.random.default_rng(1).standard_exponential(options.requests))
    noise, factors = noises(np.random.default_rng(2), options.requests)
    latency, first = np.empty(options.requests), int(WARM_UP * options.requests)
    tails = np.zeros((len(SIZES), len(SIZES), len(SINGLE), len(LOADS), len(QUANTILES)))
    mean_batch = np.ones(tails.shape[:4])
    for i, servers in enumerate(SIZES.tolist()):
        free, factor = np.empty(servers), factors[:, :servers].copy()
        for j, batch in enumerate(SIZES.tolist()):
            for m, single in enumerate(SINGLE.tolist() if batch > 1 else [1.0]):
                service = np.append(0.0, single + (1.0 - single) * np.arange(batch) / max(batch - 1, 1))
                for n, load in enumerate(LOADS.tolist()):
                    arrival = marks / (load * servers * batch)
                    services = simulate(arrival, service, noise, factor, free, latency)
                    tails[i, j, m, n] = np.quantile(latency[first:], QUANTILES)
                    mean_batch[i, j, m, n] = len(latency) / services
        tails[i, 0], mean_batch[i, 0] = tails[i, 0, 0], mean_batch[i, 0, 0]
        print(f"{servers} servers, {time.monotonic() - started:.0f} s", flush=True)
    # 16 bits tell 0.05 %, less than chance leaves open.
    with atomic_path(options.out) as path, path.open("wb") as file:
        np.savez_compressed(
            file,
            servers=SIZES,
            batch=SIZES,
            single=SINGLE,
            load=LOADS,
            quantile=QUANTILES,
            latency=tails.astype(np.float16),
            mean_batch=mean_batch.astype(np.float16),
        )


def noises(rng: np.random.Generator, requests: int) -> tuple[FloatArray, FloatArray]:
    """Factors of mean 1 on single services, and on servers, (sets, most servers)."""
    sets = requests // RENEWED + 1
    single = rng.normal(-(RUN_NOISE**2) / 2, RUN_NOISE, 65_536)
    server = rng.normal(-(SERVER_NOISE**2) / 2, SERVER_NOISE, (sets, int(SIZES[-1])))
    return np.exp(single), np.exp(server)


if __name__ == "__main__":
    main()
