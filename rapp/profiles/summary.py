"""A profile table in figures: grid and campaigns of a setting; coverage, latency and noise of a network."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow.compute as pc

from rapp.errors import ConfigError
from rapp.profiles.campaigns import Campaign, campaigns
from rapp.profiles.coverage import Coverage, coverage, table_grid
from rapp.profiles.endings import Ending, endings
from rapp.profiles.noise import Noise, Spread, noise, point_noise
from rapp.profiles.schema import FORMAT_VERSION
from rapp.profiles.table import ProfileTable
from rapp.types import FloatArray, ResourceConfig, ResourceGrid

SETTING = ("device", "runtime", "precision", "quota_kind")


@dataclass(frozen=True, slots=True)
class NetworkSummary:
    """One network under one setting.

    Args:
        coverage: what it has of the setting's grid.
        graph_hash: of its operator graph, if known.
        fastest_ms: the least mean latency of a measured point, ms; None without one.
        slowest_ms: the greatest.
        noise: estimated from neighbouring SM partitions, see `rapp.profiles.noise`.
        point_noise: median relative noise of its points by the setting's `spread`; None: unknown.
        endings: its points without a latency, and why.
    """

    coverage: Coverage
    graph_hash: str | None
    fastest_ms: float | None
    slowest_ms: float | None
    noise: Noise
    point_noise: float | None
    endings: tuple[Ending, ...]

    @property
    def without_row(self) -> tuple[ResourceConfig, ...]:
        """The configurations of the grid that no row tells of, in its order."""
        ended = {config for ending in self.endings for config in ending.configs}
        return tuple(config for config in self.coverage.missing if config not in ended)


@dataclass(frozen=True, slots=True)
class SettingSummary:
    """The rows of one device, runtime, precision and quota kind: those that may train one predictor.

    Args:
        setting: the four, by column name.
        grid: every SM partition, quota and batch that some network has.
        noise: of all networks together, from neighbouring SM partitions.
        spread: what the noise of single points is told by.
        point_noise: its median over all points; None: unknown.
        campaigns: what the rows are from, by time.
        networks: each network, sorted by name.
    """

    setting: dict[str, str]
    grid: ResourceGrid
    noise: Noise
    spread: Spread
    point_noise: float | None
    campaigns: tuple[Campaign, ...]
    networks: tuple[NetworkSummary, ...]


def chosen(table: ProfileTable, networks: Collection[str]) -> ProfileTable:
    """The rows of some networks.

    Raises:
        ConfigError: no name, or one that the table does not have; with the nearest names.
    """
    known = table.networks()
    if not networks:
        raise ConfigError("the list of networks is empty")
    for name in networks:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f" (near: {', '.join(near)})" if near else ""
            raise ConfigError(f"{table.source}: no network {name!r}{hint}; it has {len(known)}")
    return table.filter(network=list(networks))


def summarise(table: ProfileTable) -> list[SettingSummary]:
    """The figures of each setting in the table, sorted; anchors count among the campaigns alone."""
    return [_setting(rows, setting) for setting, rows in settings(table)]


def settings(table: ProfileTable) -> list[tuple[dict[str, str], ProfileTable]]:
    """Each setting that has a point, sorted, and its rows, anchors among them."""
    points = table.filter(anchor=False).arrow.select(list(SETTING))
    found = points.group_by(list(SETTING)).aggregate([]).to_pylist()
    return [(one, table.filter(**one)) for one in sorted(found, key=lambda row: list(row.values()))]


def _setting(rows: ProfileTable, setting: dict[str, str]) -> SettingSummary:
    found = tuple(campaigns(rows))
    rows = rows.filter(anchor=False)
    grid = table_grid(rows)
    assert grid is not None, "a setting comes from a row"
    whole, each = noise(rows)
    spread, relative = point_noise(rows)
    name, measured = rows.column("network"), rows.column("status") == "ok"
    latency_ms, ended = rows.column("latency_ms"), endings(rows)
    networks = []
    for cover in coverage(rows, grid):
        own = latency_ms[measured & (name == cover.network)]
        networks.append(
            NetworkSummary(
                coverage=cover,
                graph_hash=_graph_hash(rows, cover.network),
                fastest_ms=float(np.min(own)) if own.size else None,
                slowest_ms=float(np.max(own)) if own.size else None,
                noise=each[cover.network],
                point_noise=_median(relative[name == cover.network]),
                endings=tuple(one for one in ended if one.network == cover.network),
            )
        )
    return SettingSummary(setting, grid, whole, spread, _median(relative), found, tuple(networks))


def _median(values: FloatArray) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else None


def _graph_hash(rows: ProfileTable, network: str) -> str | None:
    """The hash, if all rows of the network that have one agree; None otherwise."""
    hashes = pc.unique(rows.filter(network=network).arrow.column("graph_hash").drop_null()).to_pylist()
    return hashes[0] if len(hashes) == 1 else None


def summary_json(table: ProfileTable, summaries: list[SettingSummary]) -> dict[str, object]:
    """The summary as JSON values: `missing` holds [sm_pct, quota_pct, batch]; unknown is null.

    `measured` counts the points of the grid with a latency, `derived` those of them that are computed;
    `failed` and `skipped` count rows, `endings` the points that are left without a latency.
    """
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
                "point_noise": summary.point_noise,
                "point_noise_is": summary.spread.value,
                "campaigns": [_campaign_json(one) for one in summary.campaigns],
                "networks": [
                    {
                        "network": one.coverage.network,
                        "graph_hash": one.graph_hash,
                        "measured": one.coverage.measured,
                        "derived": one.coverage.derived,
                        "failed": one.coverage.failed,
                        "skipped": one.coverage.skipped,
                        "missing": [[c.sm_pct, c.quota_pct, c.batch] for c in one.coverage.missing],
                        "fastest_ms": one.fastest_ms,
                        "slowest_ms": one.slowest_ms,
                        "noise": _known(one.noise),
                        "point_noise": one.point_noise,
                        "endings": [
                            {"status": e.status, "reason": e.reason, "points": len(e.configs)}
                            for e in one.endings
                        ],
                    }
                    for one in summary.networks
                ],
            }
            for summary in summaries
        ],
    }


def _campaign_json(one: Campaign) -> dict[str, object]:
    content = asdict(one)
    for name in ("first", "last"):
        content[name] = content[name] and content[name].isoformat()
    content["anchors"] = [
        {"network": a.network, **asdict(a.config), "latency_ms": list(a.latency_ms), "failed": a.failed,
         "drift_pct": a.drift_pct}
        for a in one.anchors
    ]  # fmt: skip
    return content | {"drifted": one.drifted}


def _known(value: Noise) -> float | None:
    return value.relative if value.triples else None
