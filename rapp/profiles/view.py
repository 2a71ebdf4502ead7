"""The summary of a profile table on a terminal, readable at 80 columns."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rapp.profiles.coverage import describe_axis
from rapp.profiles.noise import NOISE_MIN_SM_PCT, Noise
from rapp.profiles.summary import NetworkSummary, SettingSummary
from rapp.profiles.table import ProfileTable


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
    console.print(Text("grid   " + " x ".join(axes)))
    where = f"between neighbouring SM partitions, SM >= {NOISE_MIN_SM_PCT:g} %"
    console.print(Text(f"noise  {_noise(summary.noise)} {where}"))

    view = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    view.add_column("network", no_wrap=True, overflow="ellipsis", max_width=28)
    for name in ("points", "fastest ms", "slowest ms", "noise"):
        view.add_column(name, justify="right", no_wrap=True)
    view.add_column("graph", no_wrap=True)
    for one in summary.networks:
        view.add_row(*_cells(one, len(summary.grid)), style="yellow" if one.coverage.missing else "")
    console.print(view)

    for one in summary.networks:
        if one.coverage.missing:
            line = f"{one.coverage.network}: {one.coverage.describe_missing()}"
            console.print(Text(line, style="yellow"), soft_wrap=False)
        if one.coverage.failed:
            console.print(Text(f"{one.coverage.network}: {one.coverage.failed} rows failed or were skipped"))
    if not any(one.coverage.missing for one in summary.networks):
        console.print(Text("complete: every network has every point of the grid", style="green"))


def _cells(one: NetworkSummary, points: int) -> list[Text]:
    cells = [
        one.coverage.network,
        f"{one.coverage.measured}/{points}",
        _latency(one.fastest_ms),
        _latency(one.slowest_ms),
        _noise(one.noise),
        one.graph_hash[:8] if one.graph_hash else "-",
    ]
    return [Text(cell) for cell in cells]


def _latency(value_ms: float | None) -> str:
    return "-" if value_ms is None else f"{value_ms:,.2f}"


def _noise(value: Noise) -> str:
    return f"{100 * value.relative:.1f} %" if value.triples else "unknown"
