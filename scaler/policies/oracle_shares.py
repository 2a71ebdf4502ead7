"""Which part of the GPUs the oracle gives to each function, for good.

What a function needs at least is the fleet that serves its peak on the fewest GPUs, a row and its memory for
each instance. SMs and memory are given out apart, since small SM partitions take as much memory as large
ones. Where there is more than all need, each has the same multiple of its need.

Where there is less, some requests will be late, and as few as possible are to be: either the highest rates
are given up (`LEVELS`), or a part of the requests at any rate (`LENIENT`), or functions as a whole, those
with the fewest requests for a GPU. Parts of what each one needs all the time would make the requests of all
late; but what keeps nearly all within a short objective is much more than what keeps most. Nobody's share is
larger than what is there: instances beyond would share rows and slow each other, which is taken for slow
execution, for which more instances still are planned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from scaler.arrivals import RateSteps
from scaler.capacity.plans import NUMBERS, PlanTable
from scaler.policies.static import peak_rps

LEVELS = (1.0, 0.99, 0.97, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
"""Parts of a function's requests that its share is for: those that come at the lowest rates."""


LENIENT = (0.98, 0.95, 0.9, 0.8)
"""Quantiles of the latency that shares may be for where there is too little for the one that is wanted."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a function may use.

    Args:
        gpus: rows, in GPUs; need not be whole. instances: how many its memory holds.
        quantile: of the latency, that it is for at most; 1: for the one that is wanted.
    """

    gpus: float
    instances: int
    quantile: float = 1.0


@dataclass(frozen=True, slots=True)
class Claim:
    """What a function's share follows from.

    Args:
        table: its plans. load: its demand. in_memory: instances that the memory of one GPU holds.
        lenient: its plans at each of `LENIENT`; none: such shares are not looked at.
    """

    table: PlanTable
    load: RateSteps
    in_memory: int
    lenient: tuple[PlanTable, ...] = ()

    @property
    def requests(self) -> float:
        """Requests of the whole demand."""
        return float(np.dot(self.load.rps, np.diff(self.load.edges_s)))

    def least(self, level: float) -> tuple[float, float]:
        """The fewest GPUs that serve so large a part of the requests: their SMs, their memory, in GPUs."""
        number, sm_pct = _fewest(self.table, rate_rps(self.load, level), self.in_memory)
        return number / (100.0 // sm_pct), number / self.in_memory


@lru_cache(maxsize=64)
def shares(claims: tuple[Claim, ...], gpus: int) -> tuple[Share, ...]:
    """The share of each of the functions on so many GPUs, at the level and quantile with the fewest late."""
    served, best = _given(claims, 1.0, gpus)
    if served >= sum(claim.requests for claim in claims) * (1 - 1e-9):
        return best
    for level in LEVELS[1:]:
        served, best = max((served, best), _given(claims, level, gpus), key=lambda one: one[0])
    for index, quantile in enumerate(LENIENT):
        if not all(claim.lenient for claim in claims):
            break
        relaxed = [replace(claim, table=claim.lenient[index]) for claim in claims]
        for level in LEVELS:
            within, given = _given(relaxed, level, gpus)
            if quantile * within > served:
                served = quantile * within
                best = tuple(replace(share, quantile=quantile) for share in given)
    return best


def rate_rps(load: RateSteps, level: float) -> float:
    """The least rate, rps, such that a part `level` of the requests come at no higher ones."""
    if level >= 1.0:
        return peak_rps(load)
    order = np.argsort(load.rps)
    requests = np.cumsum((load.rps * np.diff(load.edges_s))[order])
    return float(load.rps[order[np.searchsorted(requests, level * requests[-1])]])


def _given(claims: Sequence[Claim], level: float, gpus: int) -> tuple[float, tuple[Share, ...]]:
    """Requests served if shares are for a level, and the shares."""
    needs = np.array([claim.least(level) for claim in claims]).reshape(-1, 2)
    requests = np.array([claim.requests for claim in claims])
    order = np.argsort(-requests / needs.max(axis=1), kind="stable")
    given, left = np.zeros_like(needs), np.full(2, float(gpus))
    for index in order:
        given[index] = np.minimum(needs[index], left)
        left -= given[index]
    whole = (given >= needs - 1e-9).all(axis=1)
    # What nobody needs is for all, by their needs.
    given *= np.where(left > 1e-9, gpus / np.maximum(given.sum(axis=0), 1e-9), 1.0)
    made = zip(claims, given, strict=True)
    return level * float(requests[whole].sum()), tuple(
        Share(float(rows), int(memory * claim.in_memory + 1e-6)) for claim, (rows, memory) in made
    )


@lru_cache(maxsize=4096)
def _fewest(table: PlanTable, demand_rps: float, in_memory: int) -> tuple[int, float]:
    """Number and SM partition, %, of the instances that serve a demand on the fewest GPUs; one that has a
    whole GPU where none do within the objective."""
    best = math.inf, 1, 100.0
    for number in NUMBERS:
        if number / in_memory >= best[0]:
            break
        if number * table.unhindered_rps < demand_rps:
            continue
        enough = table.rates_rps(number).max(axis=(1, 2)) >= demand_rps
        for sm_pct in table.sm_pct[enough]:
            gpus = max(number / (100.0 // sm_pct), number / in_memory)
            best = min(best, (gpus, number, float(sm_pct)))
    return best[1:]
