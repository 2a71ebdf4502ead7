"""How long requests take in a queue with bulk service, as a table without units.

k servers, one queue, Poisson arrivals; a free server takes what waits, at most b requests. n of them take a
time of mean T[n], straight from T[1] = r to T[b] = 1. Services vary by 2.9 % from run to run, and servers by
5.8 %, as on the public V100 profiles. The table holds quantiles of the latency, waiting and service together,
and the mean batch, over k, b, r and the load

    load = rate x T[b] / (k b).

There is no closed form of this. With b = 1 and equal services it is M/D/k (Crommelin 1932; Franx 2001), with
which the tests compare the simulation that made the table, `scripts/make_queueing_table.py`. For b > 1 even
an approximation by Erlang's C over k b slots is far off: a request waits for the next service to begin,
although there is room in those that run.

What is asked is the load for a latency. So each part of the table is turned around when it is first used,
onto even grids over log r and log latency, where an answer is read without a search.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rapp.types import FloatArray

FILE = Path(__file__).with_name("queueing.npz")

SINGLES = np.geomspace(0.03, 1.0, 49)
"""r of the table that is turned around, steps of 8 %; below the first one it counts as the first."""

LATENCIES = np.geomspace(0.03, 120.0, 417)
"""Latencies of it in units of T[b], steps of 2 %; above the last one it counts as that."""

IndexArray = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Latencies and r on the grids `LATENCIES` and `SINGLES`: knot below, share of the way to the next."""

    latency: IndexArray
    latency_share: FloatArray
    single: IndexArray | int
    single_share: FloatArray | None

    @classmethod
    def of(cls, latency: ArrayLike, single: ArrayLike | None = None) -> Asked:
        """Of latencies in units of T[b], and r; None: r is 1 throughout. They broadcast together."""
        x, x_share = _on_grid(LATENCIES, latency)
        if single is None:
            return cls(x, x_share, len(SINGLES) - 1, None)
        return cls(x, x_share, *_on_grid(SINGLES, single))


@dataclass(frozen=True, slots=True, eq=False)
class Queues:
    """Queues of the same servers under rising load, one for each of several largest batches.

    Args:
        single: (R,) r, ascending. load: (L,) ascending, in (0, 1).
        within: (N, len(SINGLES), len(LATENCIES)) largest load whose quantile of the latency is at most that.
        mean_batch: (N, R, L) requests per service.
    """

    single: FloatArray
    load: FloatArray
    within: NDArray[np.float32]
    mean_batch: FloatArray

    def load_within(self, at: Asked, which: ArrayLike = 0) -> FloatArray:
        """The largest load whose quantile of the latency is at most what is asked; 0: an idle server is late.

        Args:
            which: index of the largest batch, broadcasting with what is asked.
        """
        flat, across = self.within.ravel(), len(LATENCIES)
        cell: IndexArray = (np.asarray(which, np.intp) * len(SINGLES) + at.single) * across + at.latency
        at_knot = flat.take(cell)
        low = at_knot + at.latency_share * (flat.take(cell + 1) - at_knot)
        if at.single_share is None:
            return np.asarray(low, np.float64)
        at_knot = flat.take(cell + across)
        high = at_knot + at.latency_share * (flat.take(cell + across + 1) - at_knot)
        return np.asarray(low + at.single_share * (high - low), np.float64)

    def mean_batches(self, single: ArrayLike, which: ArrayLike = 0) -> FloatArray:
        """Mean batch at each load of the table, (..., L), for r and largest batches that broadcast."""
        n = np.asarray(which)
        r, share = _between(self.single, np.asarray(single, np.float64))
        low, high = self.mean_batch[n, r], self.mean_batch[n, r + 1]
        return np.asarray(low + share[..., None] * (high - low))

    def batch_at(self, load: FloatArray, mean_batches: FloatArray) -> FloatArray:
        """Requests per service, at least 1: at loads (..., Q), in rows (..., L) of `mean_batches`."""
        at, share = _between(self.load, load)
        rows, count = mean_batches.shape[:-1], mean_batches.shape[-1]
        cell = np.arange(0, mean_batches.size, count).reshape(*rows, 1) + at
        low, high = mean_batches.take(cell), mean_batches.take(cell + 1)
        # Below the table a server rarely finds two: straight down to 1.
        return np.asarray(1.0 + (low + share * (high - low) - 1.0) * np.minimum(load / self.load[0], 1.0))


@lru_cache(maxsize=256)
def queues(servers: int, batches: tuple[int, ...], quantile: float) -> Queues:
    """Queues of `servers` servers and batches up to each of `batches`, at a quantile in [0.5, 1).

    Between the sizes of the table it is interpolated over their logarithms. Beyond them the last one stands:
    larger numbers wait less at the same load, so that this errs on the safe side.
    """
    each = [_queue(servers, batch, quantile) for batch in batches]
    table = _table()
    within, mean_batch = (np.stack(parts) for parts in zip(*each, strict=True))
    return Queues(table["single"], table["load"], within, mean_batch)


@lru_cache(maxsize=1024)
def _queue(servers: int, batch: int, quantile: float) -> tuple[NDArray[np.float32], FloatArray]:
    """Load within a latency, (len(SINGLES), len(LATENCIES)), and the mean batch, (R, L), of one queue."""
    latency, mean_batch = quantiles(servers, batch, quantile)
    table = _table()
    load = table["load"]
    low, share = _between(table["single"], SINGLES)
    latency = latency[low] + share[:, None] * (latency[low + 1] - latency[low])
    within = np.empty((len(SINGLES), len(LATENCIES)), np.float32)
    for row, of in enumerate(latency):
        # Where loads share a quantile the largest of them counts: steps too small to matter part them.
        inside = np.interp(LATENCIES, of + np.arange(len(of)) * 1e-9, load, left=0.0)
        # Above the table the wait grows as 1 / (1 - load), its limit under heavy traffic.
        spare = 1.0 - load[-1]
        beyond = 1.0 - spare * max(of[-1] - 1.0, spare) / np.maximum(LATENCIES - 1.0, spare)
        within[row] = np.where(of[-1] < LATENCIES, np.maximum(beyond, inside), inside)
    return within, mean_batch


def quantiles(servers: int, batch: int, quantile: float) -> tuple[FloatArray, FloatArray]:
    """Quantile of the latency in units of T[b], and mean batch; (R, L), non-decreasing in the load."""
    table = _table()
    z, levels = -math.log1p(-quantile), -np.log1p(-table["quantile"])
    # The tail is close to exponential, so the quantile is close to straight over -log(1 - quantile).
    j = int(np.clip(np.searchsorted(levels, z) - 1, 0, len(levels) - 2))
    share = (z - levels[j]) / (levels[j + 1] - levels[j])
    shape = len(table["single"]), len(table["load"])
    latency, fill = np.zeros(shape), np.zeros(shape)
    for i, weight_i in _around(table["servers"], servers):
        for n, weight_n in _around(table["batch"], batch):
            low, high = table["latency"][i, n, :, :, j], table["latency"][i, n, :, :, j + 1]
            latency += weight_i * weight_n * (low + share * (high - low))
            # How far the mean is on the way from 1 to the largest.
            batches = (table["mean_batch"][i, n] - 1.0) / max(table["batch"][n] - 1.0, 1.0)
            fill += weight_i * weight_n * batches
    fill = np.maximum.accumulate(fill, axis=1)
    return np.maximum.accumulate(latency, axis=1), 1.0 + fill * (batch - 1)


@lru_cache(maxsize=1)
def _table() -> dict[str, FloatArray]:
    with np.load(FILE, allow_pickle=False) as file:
        table = {name: file[name].astype(np.float64) for name in file.files}
    # Ascending r.
    order = np.argsort(table["single"])
    for name, axis in (("single", 0), ("latency", 2), ("mean_batch", 2)):
        table[name] = np.take(table[name], order, axis=axis)
    return table


def _around(axis: FloatArray, size: int) -> list[tuple[int, float]]:
    """The knots around a size and their weights."""
    at = float(np.interp(np.log(size), np.log(axis), np.arange(len(axis))))
    low = min(int(at), len(axis) - 2)
    share = at - low
    return [(i, w) for i, w in ((low, 1.0 - share), (low + 1, share)) if w > 0]


def _between(axis: FloatArray, values: FloatArray) -> tuple[IndexArray, FloatArray]:
    """Index of the knot below and share of the way to the next."""
    at = np.interp(values, axis, np.arange(len(axis), dtype=np.float64))
    low = np.minimum(at.astype(np.intp), len(axis) - 2)
    return low, at - low


def _on_grid(axis: FloatArray, values: ArrayLike) -> tuple[IndexArray, FloatArray]:
    """The same on a grid that is even in logarithms."""
    step = math.log(axis[1] / axis[0])
    # Below the grid is as much as its first knot: no load is within so little. Logarithms of 32 bits take a
    # fifth of the time, and tell a ten-thousandth of a step.
    at = np.log(np.maximum(values, axis[0], dtype=np.float32)) / np.float32(step)
    at -= np.float32(math.log(axis[0]) / step)
    low = np.minimum(np.maximum(at, 0.0).astype(np.intp), len(axis) - 2)
    return low, np.minimum(at - low, 1.0)
