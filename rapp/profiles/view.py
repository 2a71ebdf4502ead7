"""The summary of a profile table on a terminal, readable at 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rapp.profiles.campaigns import (
    Campaign,
    describe_conditions,
    describe_drift,
    describe_rows,
    describe_software,
    describe_times,
)
from rapp.profiles.coverage import describe_axis, describe_configs
from rapp.profiles.endings import shared
from rapp.profiles.noise import NOISE_MIN_SM_PCT, Noise, Spread
from rapp.profiles.summary import NetworkSummary, SettingSummary
from rapp.profiles.table import ProfileTable

MOST_CAMPAIGNS = 4
"""Of a setting, in full."""


def print_summaries(
    table: ProfileTable, summaries: list[SettingSummary], console: Console | None = None
) -> None:
    """Print one table a setting, then what is missing, in words."""
    console = console or Console(highlight=False)
    console.print(
        Text(f"{table.source}: {len(table):,} rows, {len(table.networks())} networks", style="bold")
    )
    for summary in summaries:
        console.print()
        _print_setting(console, summary)


def _print_setting(console: Console, summary: SettingSummary) -> None:
    console.print(Text(" · ".join(summary.setting.values()), style="bold cyan"))
    grid = summary.grid
    axes = (
        f"{len(grid.sm_pct)} SM partitions ({describe_axis(grid.sm_pct)} %)",
        f"{len(grid.quota_pct)} quotas ({describe_axis(grid.quota_pct)} %)",
        f"batch {describe_axis(grid.batch)}",
    )
    facts = [("grid", Text(" x ".join(axes))), ("noise", Text(_noise_in_words(summary)))]
    for campaign in summary.campaigns[:MOST_CAMPAIGNS]:
        facts.append(("campaign", Text(campaign.campaign_id, style="bold")))
        facts += [("", line) for line in _lines(campaign)]
    if len(summary.campaigns) > MOST_CAMPAIGNS:
        left = summary.campaigns[MOST_CAMPAIGNS:]
        drifted = sum(one.drifted for one in left)
        told = f"{len(left)} more, {drifted} of them with drift; --json has them all"
        facts.append(("", Text(told, style="yellow" if drifted else "")))
    listed = Table.grid(padding=(0, 2, 0, 0))
    for name, line in facts:
        listed.add_row(name, line)
    console.print(listed)

    view = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    view.add_column("network", no_wrap=True, overflow="ellipsis", max_width=28)
    for name in ("points", "fastest ms", "slowest ms", "noise"):
        view.add_column(name, justify="right", no_wrap=True)
    view.add_column("graph", no_wrap=True)
    for one in summary.networks:
        style = "yellow" if one.coverage.missing else ""
        view.add_row(*_cells(one, len(summary.grid), summary.spread), style=style)
    console.print(view)
    _print_missing(console, summary)


def _print_missing(console: Console, summary: SettingSummary) -> None:
    """What has no latency: with a reason, alike for several networks at once; and without any row."""
    derived = sum(one.coverage.derived for one in summary.networks)
    if derived:
        total = sum(one.coverage.measured for one in summary.networks)
        console.print(Text(f"{derived:,} of {total:,} points are derived: computed from others"))
    for names, ending in shared(one for network in summary.networks for one in network.endings):
        everywhere = len(names) == len(summary.networks) > 1
        more = " and others" if ending.details > 1 else ""
        detail = f": {ending.detail}{more}" if ending.detail else ""
        who = "every network" if everywhere else _some(names)
        console.print(Text(f"{who}: {ending.describe()}{detail}", style="yellow"), soft_wrap=False)
    for one in summary.networks:
        left = one.without_row
        if left:
            line = f"{one.coverage.network}: {len(left)} of {len(summary.grid)} points missing"
            console.print(Text(f"{line} ({describe_configs(left)})", style="yellow"), soft_wrap=False)
    if not any(one.coverage.missing for one in summary.networks):
        console.print(Text("complete: every network has every point of the grid", style="green"))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _lines(one: Campaign) -> Iterator[Text]:
    """A campaign in a few lines, each only where something is known."""
    when = describe_times(one)
    if when:
        yield Text(when)
    conditions = describe_conditions(one)
    if conditions:
        yield Text(conditions)
    if one.software:
        yield Text(describe_software(one))
    yield Text(describe_rows(one))
    if one.unconverged:
        yield Text(f"not converged: {one.unconverged:,} of the rows measured", style="yellow")
    drift = describe_drift(one)
    if drift:
        yield Text(drift, style="red" if one.drifted else "")
    if one.rejected:
        causes = ", ".join(f"{cause} {count:,}" for cause, count in one.rejected.items())
        yield Text(f"blocks rejected: {causes}", style="yellow")
    if one.counts_rejected:
        told = f"{one.counts_rejected:,} points have figures with rejected blocks: too few others were left"
        yield Text(told, style="yellow")
    if one.outputs_compared:
        yield Text(f"outputs the same as at SM 100 %: compared at {one.outputs_compared:,} points")
    if one.derived_error_pct is not None:
        yield Text(f"derived points: {one.derived_error_pct:.1f} % off where they were measured, mean")


def _cells(one: NetworkSummary, points: int, spread: Spread) -> list[Text]:
    cells = [
        one.coverage.network,
        f"{one.coverage.measured}/{points}",
        _latency(one.fastest_ms),
        _latency(one.slowest_ms),
        _noise(one.noise) if spread == Spread.NEIGHBOURS else _percent(one.point_noise),
        one.graph_hash[:8] if one.graph_hash else "-",
    ]
    return [Text(cell) for cell in cells]


def _latency(value_ms: float | None) -> str:
    return "-" if value_ms is None else f"{value_ms:,.2f}"


def _noise_in_words(summary: SettingSummary) -> str:
    if summary.spread == Spread.NEIGHBOURS:
        where = f"between neighbouring SM partitions, SM >= {NOISE_MIN_SM_PCT:g} %"
        return f"{_noise(summary.noise)} {where}"
    return f"{_percent(summary.point_noise)}, {summary.spread.value}"


def _noise(value: Noise) -> str:
    return _percent(value.relative if value.triples else None)


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.1f} %"
