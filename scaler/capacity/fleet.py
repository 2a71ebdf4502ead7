"""Instances of unlike configurations behind one queue: the rate that they serve within an objective.

While instances of a function are exchanged for others, or rows leave some of them less quota than others,
they are not alike. Each of N then counts as an N-th of N instances of its own configuration:

    rate = sum over i of  rate(N like i) / N

so that all have the waiting time of N servers, which is what one queue gives them, and an instance that alone
would be too slow for the objective counts nothing. With like instances it is exact. What it leaves out, that
a request may land on the slow one by chance, is little: an idle instance that answers first is taken first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rapp.types import ResourceConfig
from scaler.capacity.plans import QUOTAS_PCT, PlanTable


@dataclass(frozen=True, slots=True)
class Share:
    """One instance whose quota is to be found.

    Args:
        sm_pct: its SM partition, %. most_quota_pct: what its row could give it at most, %.
    """

    sm_pct: float
    most_quota_pct: float = 100.0


def fleet_rate_rps(table: PlanTable, configs: Sequence[ResourceConfig]) -> float:
    """The rate within the objective of these instances together, requests a second."""
    number = len(configs)
    alike: dict[ResourceConfig, int] = {}
    for config in configs:
        alike[config] = alike.get(config, 0) + 1
    return sum(count * table.rate_rps(number, config) / number for config, count in alike.items())


def least_quotas(table: PlanTable, shares: Sequence[Share], demand_rps: float) -> list[ResourceConfig]:
    """Configurations at which instances serve a demand with the least quota, the same for all of them.

    An instance whose row cannot give so much gets what there is. Where all that the rows can give is not
    enough, they get what serves most.
    """
    if not shares:
        return []
    number = len(shares)
    rates = table.rates_rps(number)
    partitions = {share.sm_pct: _served(table, rates, share.sm_pct) for share in shares}
    most = np.array([_steps(share.most_quota_pct) for share in shares])
    # (N, Q): what each instance adds at each common quota.
    levels = np.minimum(np.arange(len(QUOTAS_PCT))[None], most[:, None] - 1)
    served = (
        sum(partitions[share.sm_pct][level] for share, level in zip(shares, levels, strict=True)) / number
    )
    enough = served >= demand_rps
    at = int(enough.argmax()) if enough.any() else int(np.argmax(served))
    return [_config(table, rates, share, int(level[at])) for share, level in zip(shares, levels, strict=True)]


def _steps(quota_pct: float) -> int:
    return min(max(int(quota_pct + 1e-9), 1), len(QUOTAS_PCT))


def _partition(table: PlanTable, sm_pct: float) -> int:
    return max(int(np.searchsorted(table.sm_pct, sm_pct + 1e-9)) - 1, 0)


def _served(table: PlanTable, rates: np.ndarray, sm_pct: float) -> np.ndarray:
    """(Q,) rate of `number` like instances by quota, with the best batch at each."""
    return np.asarray(rates[_partition(table, sm_pct)].max(axis=0))


def _config(table: PlanTable, rates: np.ndarray, share: Share, quota: int) -> ResourceConfig:
    batch = table.batches[int(np.argmax(rates[_partition(table, share.sm_pct), :, quota]))]
    return ResourceConfig(share.sm_pct, float(QUOTAS_PCT[quota]), batch)
