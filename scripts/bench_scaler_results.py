"""What scripts/bench_scaler.py has found, read from its files: one `Found` for a policy in a cell."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from bench_scaler_cells import Cell, cells
from bench_scaler_run import Places

T_95 = (math.nan, 12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Two-sided 95 % quantiles of Student's t by degrees of freedom; beyond them 1.96 + 2.5 / n is close."""


@dataclass(frozen=True)
class Found:
    """A policy in a cell, over its seeds.

    Args:
        seeds: what each replay gave. planned: violations that the oracle planned for.
        tail_gpu_seconds: of the load for instances that change at once and for nothing; None: not known.
        digests: of the sources that made it. error: why seeds are missing.
    """

    seeds: tuple[dict[str, Any], ...]
    planned: dict[str, float] | None
    tail_gpu_seconds: float | None
    digests: tuple[str, str]
    error: str | None

    def sum(self, name: str) -> float:
        """Of a figure over all seeds."""
        return float(sum(one["total"][name] for one in self.seeds))

    @property
    def requests(self) -> int:
        """Over all seeds."""
        return int(self.sum("arrivals"))

    @property
    def violations_pct(self) -> float:
        """Violations over all arrivals, %."""
        return 100 * self.sum("violations") / self.requests

    @property
    def settled_pct(self) -> float:
        """Violations of what came after the first cold starts, %; NaN: not recorded."""
        those = [one["settled"] for one in self.seeds if "settled" in one]
        return 100 * sum(late for late, _ in those) / sum(came for _, came in those) if those else math.nan

    @property
    def bound_gpu_seconds(self) -> float:
        """The fluid bound of all seeds."""
        return float(sum(sum(one["bound_gpu_seconds"].values()) for one in self.seeds))

    @property
    def over_bound(self) -> float:
        """Cost over the fluid bound."""
        return self.sum("gpu_seconds") / self.bound_gpu_seconds

    @property
    def per_1000(self) -> float:
        """GPU-seconds per 1,000 requests."""
        return 1e3 * self.sum("gpu_seconds") / self.requests

    @property
    def tail_over_bound(self) -> float:
        """What the objective's tail costs at least, nearly, over the fluid bound."""
        if self.tail_gpu_seconds is None:
            return math.nan
        return self.tail_gpu_seconds / (self.bound_gpu_seconds / len(self.seeds))

    def each(self, name: str) -> np.ndarray:
        """`over_bound` or `violations_pct` of each seed."""
        if name == "over_bound":
            return np.array(
                [one["total"]["gpu_seconds"] / sum(one["bound_gpu_seconds"].values()) for one in self.seeds]
            )
        return np.array([100 * one["total"]["violations"] / one["total"]["arrivals"] for one in self.seeds])

    def half(self, name: str) -> float:
        """Half of the 95 % interval of the mean over seeds; NaN: a single seed."""
        values = self.each(name)
        if len(values) < 2:
            return math.nan
        degrees = len(values) - 1
        t = T_95[degrees] if degrees < len(T_95) else 1.96 + 2.5 / degrees
        return float(t * values.std(ddof=1) / math.sqrt(len(values)))

    @property
    def accounted(self) -> bool:
        """Whether every request is answered, refused, lost or unfinished."""
        return all(
            one["total"]["arrivals"]
            == sum(one["total"][name] for name in ("served", "refused", "lost", "unfinished"))
            for one in self.seeds
        )


Results = dict[str, dict[str, Found]]
"""By cell and policy."""


def read_results(places: Places) -> tuple[list[Cell], Results]:
    """All cells of which there is something, in their order, and what there is."""
    found: Results = {}
    for cell in cells():
        for policy in cell.policies:
            parts = [
                json.loads(file.read_text())
                for part in (0, 1)
                if (file := places.file(cell, policy, part)).exists()
            ]
            # A second part of other sources than the first is left out.
            parts = [part for part in parts if part["policy_digest"] == parts[0]["policy_digest"]]
            seeds = tuple(one for part in parts for one in part["seeds"])
            if seeds:
                found.setdefault(cell.key, {})[policy] = Found(
                    seeds, parts[0]["violations_planned"], parts[0]["tail_gpu_seconds"],
                    (parts[0]["policy_digest"], parts[0]["common_digest"]),
                    next((part["error"] for part in parts if "error" in part), None),
                )  # fmt: skip
    return [cell for cell in cells() if cell.key in found], found


def main_cells(listed: Iterable[Cell], **wanted: Any) -> list[Cell]:
    """Those of the main grid with these attributes."""
    return [
        cell
        for cell in listed
        if cell.kind == "main" and all(getattr(cell, name) == value for name, value in wanted.items())
    ]
