"""How much of a grid of resource configurations each network of a table covers."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from rapp.profiles.table import ProfileTable
from rapp.types import ResourceConfig, ResourceGrid

MOST_PRODUCTS = 4
"""Products of ranges that a text names: a handful of scattered points misses dozens."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What one network has of a grid.

    Args:
        network: its name.
        measured: points of the grid with at least one row of status `ok`.
        derived: of these, the points that are computed from others alone.
        missing: the configurations without one, in the order of the grid.
        failed: rows of status `failed`.
        skipped: rows of status `skipped`.
    """

    network: str
    measured: int
    derived: int
    missing: tuple[ResourceConfig, ...]
    failed: int
    skipped: int

    def describe_missing(self) -> str:
        """`72 of 800 points missing (SM 5 10 %, quota 10-90 %, batch 1 2 4 8)`, or an empty text."""
        if not self.missing:
            return ""
        total = self.measured + len(self.missing)
        return f"{len(self.missing)} of {total} points missing ({describe_configs(self.missing)})"


def table_grid(table: ProfileTable) -> ResourceGrid | None:
    """The smallest grid with every SM partition, quota and batch of the table; anchors do not count."""
    rows = table.filter(anchor=False)
    if len(rows) == 0:
        return None
    axes = (sorted(set(rows.column(name).tolist())) for name in ("sm_pct", "quota_pct", "batch"))
    return ResourceGrid(*axes)


def coverage(table: ProfileTable, grid: ResourceGrid | None = None) -> list[Coverage]:
    """The coverage of each network of the table, sorted by name.

    Args:
        table: any profile table; anchors do not count.
        grid: what should be there; without it `table_grid(table)`, so that a configuration
            which no network has is not missed.
    """
    expected = list(grid or table_grid(table) or ())
    rows = table.filter(anchor=False)
    names = ("network", "sm_pct", "quota_pct", "batch", "status", "derived")
    points: dict[str, set[ResourceConfig]] = {network: set() for network in rows.networks()}
    measured: dict[str, set[ResourceConfig]] = {network: set() for network in points}
    ended: Counter[tuple[str, str]] = Counter()
    known = {(c.sm_pct, c.quota_pct, c.batch): c for c in expected}
    for network, *config, status, derived in zip(*(rows.column(n).tolist() for n in names), strict=True):
        ended[network, status] += 1
        found = known.get(tuple(config)) if status == "ok" else None
        if found:
            points[network].add(found)
            if not derived:
                measured[network].add(found)
    return [
        Coverage(
            network=network,
            measured=len(own),
            derived=len(own - measured[network]),
            missing=tuple(c for c in expected if c not in own),
            failed=ended[network, "failed"],
            skipped=ended[network, "skipped"],
        )
        for network, own in points.items()
    ]


def describe_configs(configs: Iterable[ResourceConfig]) -> str:
    """Configurations as products of ranges: `SM 5 10 %, quota 10-90 %, batch 1 2 4 8; ...`.

    SM partitions with the same quotas are joined first, then batches with the same pairs of both. What is
    scattered takes many products, of which the first few are named.
    """
    quotas: dict[tuple[int, float], set[float]] = defaultdict(set)
    for config in configs:
        quotas[config.batch, config.sm_pct].add(config.quota_pct)
    partitions: dict[tuple[int, frozenset[float]], set[float]] = defaultdict(set)
    for (batch, sm), held in quotas.items():
        partitions[batch, frozenset(held)].add(sm)
    batches: dict[tuple[frozenset[float], frozenset[float]], set[int]] = defaultdict(set)
    for (batch, held_quotas), held_sms in partitions.items():
        batches[frozenset(held_sms), held_quotas].add(batch)
    products = [
        f"SM {describe_axis(sms)} %, quota {describe_axis(held)} %, batch {' '.join(map(str, sorted(of)))}"
        for (sms, held), of in batches.items()
    ]
    if len(products) > MOST_PRODUCTS:
        left = len(products) - (MOST_PRODUCTS - 1)
        products = [*products[: MOST_PRODUCTS - 1], f"and {left} more groups of configurations"]
    return "; ".join(products)


def describe_axis(values: Iterable[float]) -> str:
    """`5-45 55 100`: three values or more in the axis' smallest step as a range, others one by one."""
    ordered = sorted(values)
    step = min((after - before for before, after in pairwise(ordered)), default=0.0)
    runs: list[list[float]] = []
    for value in ordered:
        if runs and math.isclose(value - runs[-1][-1], step):
            runs[-1].append(value)
        else:
            runs.append([value])
    return " ".join(
        f"{run[0]:g}-{run[-1]:g}" if len(run) > 2 else " ".join(f"{value:g}" for value in run) for run in runs
    )
