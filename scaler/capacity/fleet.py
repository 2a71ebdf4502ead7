"""Instances of unlike configurations behind one queue: the rate that they serve within an objective.

While instances of a function are exchanged for others, or rows leave some of them less quota than others,
they are not alike. Each of N then counts as an N-th of N instances of its own configuration:

    rate = sum over i of  rate(N like i) / N

so that all have the waiting time of N servers, which is what one queue gives them, and an instance that alone
would be too slow for the objective counts nothing. With like instances it is exact. What it leaves out, that
a request may land on the slow one by chance, is little: an idle instance that answers first is taken first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rapp.types import FloatArray, ResourceConfig
from scaler.capacity.plans import QUOTAS_PCT, PlanTable

MOST_KEPT = 16_384
"""Tables by quota that are kept: dozens for each of a hundred functions, 16 KB each."""


class Share(NamedTuple):
    """One instance whose quota is to be found.

    Args:
        sm_pct: its SM partition, %. most_quota_pct: what its row could give it at most, %.
    """

    sm_pct: float
    most_quota_pct: float = 100.0


def fleet_rate_rps(table: PlanTable, configs: Sequence[ResourceConfig]) -> float:
    """The rate within the objective of these instances together, requests a second."""
    return sum(
        count * table.rate_rps(len(configs), config) / len(configs)
        for config, count in Counter(configs).items()
    )


def most_rate_rps(table: PlanTable, shares: Sequence[Share]) -> float:
    """The rate within the objective of instances with all the quota that their rows could give."""
    if not shares:
        return 0.0
    served = served_rps(table, len(shares))
    return sum(
        count * float(served[partition(table, share.sm_pct), _steps(share.most_quota_pct) - 1])
        for share, count in _alike(shares)
    ) / len(shares)


class Quotas(NamedTuple):
    """Quotas for instances.

    Args:
        configs: of each. served_rps: their rate within the objective together, requests a second.
    """

    configs: list[ResourceConfig]
    served_rps: float


def least_quotas(table: PlanTable, shares: Sequence[Share], demand_rps: float) -> Quotas:
    """Configurations at which instances serve a demand with the least quota, the same for all of them.

    An instance whose row cannot give so much gets what there is. Where all that the rows can give is not
    enough, they get what serves most; all of it, where nothing is served within the objective.
    """
    if not shares:
        return Quotas([], 0.0)
    served, alike = served_rps(table, len(shares)), _alike(shares)
    if len(alike) == 1:
        total = served[partition(table, shares[0].sm_pct), : _steps(shares[0].most_quota_pct)]
    else:
        total = np.zeros(len(QUOTAS_PCT))
        for share, count in alike:
            row, most = served[partition(table, share.sm_pct)], _steps(share.most_quota_pct)
            total[:most] += count * row[:most]
            total[most:] += count * row[most - 1]
        total /= len(shares)
    most_rps = float(total[-1])
    level = int(total.searchsorted(min(demand_rps, most_rps))) if most_rps > 0 else len(QUOTAS_PCT) - 1
    configs = {
        share: _config(table, len(shares), share.sm_pct, min(level, _steps(share.most_quota_pct) - 1))
        for share, _ in alike
    }
    return Quotas([configs[share] for share in shares], float(total[min(level, len(total) - 1)]))


def _alike(shares: Sequence[Share]) -> Sequence[tuple[Share, int]]:
    """Each kind of share, and how many are of it."""
    if len(set(shares)) == 1:
        return ((shares[0], len(shares)),)
    return tuple(Counter(shares).items())


@lru_cache(maxsize=MOST_KEPT)
def served_rps(table: PlanTable, number: int) -> FloatArray:
    """(S, Q) rate of `number` like instances by SM partition and quota, with the best batch at each.

    Non-decreasing along the quota.
    """
    return np.asarray(table.rates_rps(number).max(axis=1))


def partition(table: PlanTable, sm_pct: float) -> int:
    """Index of an SM partition; one that is not on the axis counts as the next smaller one."""
    return max(bisect_right(table.sm_axis, sm_pct + 1e-9) - 1, 0)


def _steps(quota_pct: float) -> int:
    return min(max(int(quota_pct + 1e-9), 1), len(QUOTAS_PCT))


@lru_cache(maxsize=16 * MOST_KEPT)
def _config(table: PlanTable, number: int, sm_pct: float, level: int) -> ResourceConfig:
    """The best configuration of `number` instances at an SM partition and the quota of an index."""
    batch = int(_best_batch(table, number)[partition(table, sm_pct), level])
    return ResourceConfig(sm_pct, float(QUOTAS_PCT[level]), table.batches[batch])


@lru_cache(maxsize=MOST_KEPT)
def _best_batch(table: PlanTable, number: int) -> NDArray[np.intp]:
    """(S, Q) index of the batch with the largest rate."""
    return np.asarray(table.rates_rps(number).argmax(axis=1))
