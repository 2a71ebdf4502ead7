"""The page of a profile table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from markupsafe import Markup

from rapp.profiles.campaigns import (
    MOST_DRIFT_PCT,
    Campaign,
    describe_conditions,
    describe_rows,
    describe_software,
    describe_times,
)
from rapp.profiles.cells import Cells, cells
from rapp.profiles.coverage import describe_axis, describe_configs
from rapp.profiles.endings import shared
from rapp.profiles.noise import NOISE_MIN_SM_PCT, Spread, point_noise
from rapp.profiles.summary import NetworkSummary, SettingSummary, settings
from rapp.profiles.table import ProfileTable
from rapp.report.heatmap import legend
from rapp.report.profile_network import NetworkPlots, ms
from rapp.report.render import render
from rapp.report.scale import VIRIDIS, noise_scale

MOST_HOVER = 20_000
"""Rows of a table up to which texts under the pointer tell of noise too; beyond, a page would have 8 MB."""
MOST_OPEN = 3
"""Networks of a table up to which all are unfolded; otherwise the first of a setting alone is."""


def profiles_html(table: ProfileTable, summaries: Sequence[SettingSummary]) -> str:
    """A self-contained page: campaigns, coverage, failures, and maps and curves of every network.

    Args:
        summaries: `rapp.profiles.summary.summarise(table)`.
    """
    return render(
        "profiles.html.j2",
        viridis=VIRIDIS,
        table=_short(table.source),
        n_rows=f"{len(table):,}",
        n_networks=len(table.networks()),
        rows_hash=table.rows_hash()[:12],
        **_body(table, summaries, unfold=len(table.networks()) <= MOST_OPEN),
    )


def profiles_section(table: ProfileTable, summaries: Sequence[SettingSummary]) -> Markup:
    """What `profiles_html` shows below its title, for another page; that includes `profiles.css.j2`.

    Of several networks the first of a setting alone is unfolded.
    """
    return Markup(render("profiles_body.html.j2", **_body(table, summaries, unfold=False)))


def _body(table: ProfileTable, summaries: Sequence[SettingSummary], *, unfold: bool) -> dict[str, Any]:
    hover = len(table) <= MOST_HOVER
    found = zip(summaries, settings(table), strict=True)
    return {
        "settings": [
            _setting(place, summary, rows, hover, unfold) for place, (summary, (_, rows)) in enumerate(found)
        ],
        "most_drift": f"{MOST_DRIFT_PCT:g}",
        "noise_min_sm": f"{NOISE_MIN_SM_PCT:g}",
    }


def _setting(
    place: int, summary: SettingSummary, rows: ProfileTable, hover: bool, unfold: bool
) -> dict[str, Any]:
    spread, noise = point_noise(rows)
    scale = noise_scale(noise, "noise, %") if np.isfinite(noise).any() else None
    plots = NetworkPlots(rows, spread, noise, scale, hover=hover)
    drawn = {one.network: one for one in cells(rows)}
    grid = summary.grid
    return {
        "name": " · ".join(summary.setting.values()),
        "launch_gate": summary.setting["quota_kind"] == "launch_gate",
        "grid": [
            (f"{len(grid.sm_pct)} SM partitions", f"{describe_axis(grid.sm_pct)} %"),
            (f"{len(grid.quota_pct)} time quotas", f"{describe_axis(grid.quota_pct)} %"),
            ("batch", describe_axis(grid.batch)),
        ],
        "tiles": _tiles(summary),
        "spread": spread.value,
        "neighbours": spread == Spread.NEIGHBOURS,
        "noise_legend": Markup(legend(scale, "n", beyond=True)) if scale else None,
        "campaigns": [_campaign(one) for one in summary.campaigns],
        "endings": _endings(summary),
        "gaps": _gaps(summary),
        "repeated": sum(one.repeated for one in drawn.values()),
        "derived": any(one.coverage.derived for one in summary.networks),
        "networks": [
            _network(f"s{place}n{index}", one, summary, drawn[one.coverage.network])
            | plots.context(drawn[one.coverage.network])
            | {"open": unfold or index == 0}
            for index, one in enumerate(summary.networks)
        ],
    }


def _tiles(summary: SettingSummary) -> list[dict[str, Any]]:
    points = len(summary.grid) * len(summary.networks)
    held = sum(one.coverage.measured for one in summary.networks)
    derived = sum(one.coverage.derived for one in summary.networks)
    ended = {
        status: sum(len(e.configs) for one in summary.networks for e in one.endings if e.status == status)
        for status in ("failed", "skipped")
    }
    tiles = [
        _tile("points with a latency", f"{held:,}", f"{100 * held / points:.0f} % of {points:,} in the grid"),
        _tile("networks", f"{len(summary.networks)}", _range(summary)),
    ]
    if derived:
        tiles.append(_tile("of them derived", f"{derived:,}", "computed from others, not measured"))
    if any(ended.values()):
        told = ", ".join(f"{count:,} {status}" for status, count in ended.items() if count)
        tiles.append(_tile("without a latency", f"{sum(ended.values()):,}", told))
    noise, what = _noise(summary)
    if noise is not None:
        tiles.append(_tile("noise", f"{100 * noise:.1f}", what, "%"))
    drifts = [one.drift_pct for one in summary.campaigns if one.drift_pct is not None]
    if drifts:
        bad = max(drifts) > MOST_DRIFT_PCT
        told = f"above {MOST_DRIFT_PCT:g} %: latency moved" if bad else "the largest of a campaign"
        tiles.append(_tile("drift of anchors", f"{max(drifts):.1f}", told, "%", bad=bad))
    return tiles


def _tile(name: str, value: str, note: str, unit: str = "", *, bad: bool = False) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "note": note, "bad": bad}


def _range(summary: SettingSummary) -> str:
    fastest = [one.fastest_ms for one in summary.networks if one.fastest_ms is not None]
    slowest = [one.slowest_ms for one in summary.networks if one.slowest_ms is not None]
    return f"{ms(min(fastest))} to {ms(max(slowest))} ms" if fastest else "none has a latency"


def _noise(summary: SettingSummary) -> tuple[float | None, str]:
    """The noise of all points together, relative, and what it is."""
    if summary.spread == Spread.NEIGHBOURS:
        known = summary.noise.relative if summary.noise.triples else None
        return known, f"between neighbouring partitions, SM ≥ {NOISE_MIN_SM_PCT:g} %"
    interval = summary.spread == Spread.INTERVAL
    return summary.point_noise, "half-width of the median's interval" if interval else "MAD / median"


def _points(count: int) -> str:
    return "" if not count else "1 point" if count == 1 else f"{count:,} points"


def _campaign(one: Campaign) -> dict[str, Any]:
    """Its facts as pairs of name and text; a drift above the limit is marked."""
    facts = [
        ("measured", describe_times(one)),
        ("device", ", ".join(one.device_uuids)),
        ("conditions", describe_conditions(one)),
        ("rows", describe_rows(one)),
        ("not converged", _points(one.unconverged)),
        ("rejected blocks", ", ".join(f"{count:,} {cause}" for cause, count in one.rejected.items())),
        ("figures with rejected blocks", _points(one.counts_rejected)),
        ("outputs as at SM 100 %", _points(one.outputs_compared)),
        ("derived by", "; ".join(one.derived_by)),
        (
            "error of derived points",
            "" if one.derived_error_pct is None else f"{one.derived_error_pct:.1f} %, mean where measured",
        ),
        ("software", describe_software(one)),
    ]
    anchors = sorted(one.anchors, key=lambda anchor: -(anchor.drift_pct or 0))
    return {
        "name": one.campaign_id,
        "facts": [(name, text) for name, text in facts if text],
        "drift": "" if one.drift_pct is None else f"{one.drift_pct:.1f}",
        "drifted": one.drifted,
        "anchors": [
            {
                "network": anchor.network,
                "where": f"SM {anchor.config.sm_pct:g} %, quota {anchor.config.quota_pct:g} %,"
                f" batch {anchor.config.batch}",
                "latencies": " → ".join(ms(value) for value in anchor.latency_ms) or "never measured",
                "drift": "" if anchor.drift_pct is None else f"{anchor.drift_pct:.1f}",
                "drifted": (anchor.drift_pct or 0) > MOST_DRIFT_PCT,
                "failed": anchor.failed,
            }
            for anchor in anchors
        ],
    }


def _endings(summary: SettingSummary) -> list[dict[str, Any]]:
    """Failures first, then by how many points ended so."""
    found = shared(one for network in summary.networks for one in network.endings)
    found.sort(key=lambda pair: (pair[1].status, -len(pair[0]) * len(pair[1].configs)))
    return [
        {
            "status": ending.status,
            "reason": ending.reason,
            "detail": ending.detail,
            "others": ending.details > 1,
            "points": f"{len(names) * len(ending.configs):,}",
            "networks": ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else ""),
            "where": describe_configs(ending.configs),
        }
        for names, ending in found
    ]


def _gaps(summary: SettingSummary) -> list[tuple[str, int, str]]:
    """Networks, number and place of points of the grid that no row tells of."""
    gaps = []
    for one in summary.networks:
        left = one.without_row
        if left:
            gaps.append((one.coverage.network, len(left), describe_configs(left)))
    return gaps


def _network(key: str, one: NetworkSummary, summary: SettingSummary, drawn: Cells) -> dict[str, Any]:
    cover = one.coverage
    noise = one.point_noise
    if summary.spread == Spread.NEIGHBOURS:
        noise = one.noise.relative if one.noise.triples else None
    return {
        "key": key,
        "name": cover.network,
        "points": cover.measured,
        "total": len(summary.grid),
        "complete": not cover.missing,
        "derived": cover.derived,
        "failed": sum(len(e.configs) for e in one.endings if e.status == "failed"),
        "skipped": sum(len(e.configs) for e in one.endings if e.status == "skipped"),
        "without_row": len(one.without_row),
        "repeated": drawn.repeated,
        "fastest": "" if one.fastest_ms is None else ms(one.fastest_ms),
        "fastest_value": "" if one.fastest_ms is None else one.fastest_ms,
        "slowest": "" if one.slowest_ms is None else ms(one.slowest_ms),
        "slowest_value": "" if one.slowest_ms is None else one.slowest_ms,
        "noise": "" if noise is None else f"{100 * noise:.1f}",
        "noise_value": "" if noise is None else noise,
        "graph_hash": one.graph_hash or "",
        "endings": [ending.describe() for ending in one.endings],
    }


def _short(path: str) -> str:
    """The last two parts of a path: a page that is passed on need not tell where it was made."""
    return "/".join(PurePath(path).parts[-2:])
