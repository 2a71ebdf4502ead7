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
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from rapp.types import FloatArray

FILE = Path(__file__).with_name("queueing.npz")


@dataclass(frozen=True, slots=True, eq=False)
class Queue:
    """One queue under rising load, for several r.

    Args:
        single: (R,) r, ascending. load: (L,) ascending, in (0, 1).
        latency: (R, L) quantile of the latency in units of T[b], non-decreasing along the load.
        mean_batch: (R, L) requests per service.
    """

    single: FloatArray
    load: FloatArray
    latency: FloatArray
    mean_batch: FloatArray

    def load_within(self, latency: ArrayLike, single: ArrayLike = 1.0) -> FloatArray:
        """The largest load whose quantile of the latency is at most `latency`; 0: an idle server is late.

        Args:
            latency: in units of T[b]. single: r; both broadcast together.
        """
        x, r = np.broadcast_arrays(np.asarray(latency, np.float64), np.asarray(single, np.float64))
        if (r == 1.0).all():
            return self._load_within(x, len(self.single) - 1)
        low, share = self._between(r)
        found = np.zeros(x.shape)
        for row in range(len(self.single)):
            weight = np.where(low == row, 1.0 - share, 0.0) + np.where(low == row - 1, share, 0.0)
            if weight.any():
                found += weight * self._load_within(x, row)
        return found

    def batch_at(self, load: ArrayLike, single: ArrayLike = 1.0) -> FloatArray:
        """Requests per service at a load; at least 1."""
        x, r = np.broadcast_arrays(np.asarray(load, np.float64), np.asarray(single, np.float64))
        low, share = self._between(r)
        at = np.interp(x, self.load, np.arange(len(self.load), dtype=np.float64))
        left = np.minimum(at.astype(np.intp), len(self.load) - 2)
        way = at - left
        table = self.mean_batch
        first = table[low, left] + way * (table[low, left + 1] - table[low, left])
        second = table[low + 1, left] + way * (table[low + 1, left + 1] - table[low + 1, left])
        # Below the table a server rarely finds two: straight down to 1.
        batch = first + share * (second - first)
        return np.asarray(1.0 + (batch - 1.0) * np.minimum(x / self.load[0], 1.0))

    def _load_within(self, x: FloatArray, row: int) -> FloatArray:
        latency = self.latency[row]
        # Where loads share a quantile the largest of them counts: steps too small to matter part them.
        inside = np.interp(x, latency + np.arange(len(latency)) * 1e-9, self.load, left=0.0)
        # Above the table the wait grows as 1 / (1 - load), its limit under heavy traffic.
        spare, last_wait = 1.0 - self.load[-1], latency[-1] - 1.0
        beyond = 1.0 - spare * last_wait / np.maximum(x - 1.0, 1e-12)
        return np.asarray(np.where(x > latency[-1], np.maximum(beyond, inside), inside))

    def _between(self, single: FloatArray) -> tuple[np.ndarray, FloatArray]:
        at = np.interp(single, self.single, np.arange(len(self.single), dtype=np.float64))
        low = np.minimum(at.astype(np.intp), len(self.single) - 2)
        return low, at - low


@lru_cache(maxsize=4096)
def queue(servers: int, batch: int, quantile: float) -> Queue:
    """The queue of `servers` servers and batches up to `batch`, at a quantile in [0.5, 1).

    Between the sizes of the table it is interpolated over their logarithms. Beyond them the last one stands:
    larger numbers wait less at the same load, so that this errs on the safe side.
    """
    table = _table()
    z, levels = -np.log1p(-quantile), -np.log1p(-table["quantile"])
    # The tail is close to exponential, so the quantile is close to straight over -log(1 - quantile).
    j = int(np.clip(np.searchsorted(levels, z) - 1, 0, len(levels) - 2))
    share = (z - levels[j]) / (levels[j + 1] - levels[j])
    shape = len(table["single"]), len(table["load"])
    latency, mean_batch = np.zeros(shape), np.zeros(shape)
    for i, weight_i in _around(table["servers"], servers):
        for n, weight_n in _around(table["batch"], batch):
            low, high = table["latency"][i, n, :, :, j], table["latency"][i, n, :, :, j + 1]
            latency += weight_i * weight_n * (low + share * (high - low))
            mean_batch += weight_i * weight_n * table["mean_batch"][i, n]
    latency, mean_batch = (np.maximum.accumulate(each[::-1], axis=1) for each in (latency, mean_batch))
    return Queue(table["single"][::-1], table["load"], latency, mean_batch)


@lru_cache(maxsize=1)
def _table() -> dict[str, FloatArray]:
    with np.load(FILE, allow_pickle=False) as file:
        return {name: file[name].astype(np.float64) for name in file.files}


def _around(axis: FloatArray, size: int) -> list[tuple[int, float]]:
    """The knots around a size and their weights."""
    at = float(np.interp(np.log(size), np.log(axis), np.arange(len(axis))))
    low = min(int(at), len(axis) - 2)
    share = at - low
    return [(i, w) for i, w in ((low, 1.0 - share), (low + 1, share)) if w > 0]
