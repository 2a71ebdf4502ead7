"""What a profile table holds, in figures: a grid a setting; coverage, latency and noise a network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from rapp.profiles.coverage import Coverage, coverage, table_grid
from rapp.profiles.noise import Noise, noise
from rapp.profiles.schema import FORMAT_VERSION
from rapp.profiles.table import ProfileTable
from rapp.types import ResourceGrid

SETTING = ("device", "runtime", "precision", "quota_kind")


@dataclass(frozen=True, slots=True)
class NetworkSummary:
    """One network under one setting.

    Args:
        coverage: what it has of the setting's grid.
        graph_hash: of its operator graph, if known.
        fastest_ms: the least mean latency of a measured point, ms; None without one.
        slowest_ms: the greatest.
        noise: see `rapp.profiles.noise`.
    """

    coverage: Coverage
    graph_hash: str | None
    fastest_ms: float | None
    slowest_ms: float | None
    noise: Noise


@dataclass(frozen=True, slots=True)
class SettingSummary:
    """The rows of one device, runtime, precision and quota kind: those that may train one predictor.

    Args:
        setting: the four, by column name.
        grid: every SM partition, quota and batch that some network has.
        noise: of all networks together.
        networks: each network, sorted by name.
    """

    setting: dict[str, str]
    grid: ResourceGrid
    noise: Noise
    networks: tuple[NetworkSummary, ...]


def summarise(table: ProfileTable) -> list[SettingSummary]:
    """The figures of each setting in the table, sorted; anchors do not count."""
    table = table.filter(anchor=False)
    settings = table.arrow.select(list(SETTING)).group_by(list(SETTING)).aggregate([]).to_pylist()
    return [_setting(table, setting) for setting in sorted(settings, key=lambda row: list(row.values()))]


def _setting(table: ProfileTable, setting: dict[str, str]) -> SettingSummary:
    rows = table.filter(**setting)
    grid = table_grid(rows)
    assert grid is not None, "a setting comes from a row"
    whole, each = noise(rows)
    measured = rows.ok()
    names, latency_ms = measured.column("network"), measured.column("latency_ms")
    networks = []
    for cover in coverage(rows, grid):
        own = latency_ms[names == cover.network]
        networks.append(
            NetworkSummary(
                coverage=cover,
                graph_hash=_graph_hash(rows, cover.network),
                fastest_ms=float(np.min(own)) if own.size else None,
                slowest_ms=float(np.max(own)) if own.size else None,
                noise=each[cover.network],
            )
        )
    return SettingSummary(setting, grid, whole, tuple(networks))


def _graph_hash(rows: ProfileTable, network: str) -> str | None:
    """The hash, if all rows of the network that have one agree; None otherwise."""
    hashes = pc.unique(rows.filter(network=network).arrow.column("graph_hash").drop_null()).to_pylist()
    return hashes[0] if len(hashes) == 1 else None


def summary_json(table: ProfileTable, summaries: list[SettingSummary]) -> dict[str, object]:
    """The summary as JSON values: `missing` holds [sm_pct, quota_pct, batch]; unknown is null."""
    return {
        "file": table.source,
        "format_version": FORMAT_VERSION,
        "rows": len(table),
        "rows_hash": table.rows_hash(),
        "settings": [
            {
                **summary.setting,
                "grid": {
                    "sm_pct": list(summary.grid.sm_pct),
                    "quota_pct": list(summary.grid.quota_pct),
                    "batch": list(summary.grid.batch),
                },
                "noise": _known(summary.noise),
                "networks": [
                    {
                        "network": one.coverage.network,
                        "graph_hash": one.graph_hash,
                        "measured": one.coverage.measured,
                        "failed": one.coverage.failed,
                        "missing": [[c.sm_pct, c.quota_pct, c.batch] for c in one.coverage.missing],
                        "fastest_ms": one.fastest_ms,
                        "slowest_ms": one.slowest_ms,
                        "noise": _known(one.noise),
                    }
                    for one in summary.networks
                ],
            }
            for summary in summaries
        ],
    }


def _known(value: Noise) -> float | None:
    return value.relative if value.triples else None
