"""Tables of docs/scaling.md from what scripts/bench_scaler.py found, and where they go.

Each stands between markers `<!-- NAME:begin -->` and `<!-- NAME:end -->` of the document: goals, loads,
paper, missed, price, measured, chaos, checks, run. Without a document all goes to the terminal. Costs are
GPU-seconds over the fluid bound (`scaler.bound`); means are over functions; intervals are 95 % over seeds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench_scaler_cells import LEAST_SEEDS, POLICIES, Cell, cells
from bench_scaler_goals import ENOUGH, goals, missed, paper_cells, pooled_violations, read_measured
from bench_scaler_plot import plot_front
from bench_scaler_results import Found, Results, main_cells, read_results
from bench_scaler_run import Places, digests
from bench_scaler_times import NETWORKS
from protocol_tables import replace_between

REPLAYED = {"HAS": "has-gpu", "FaST-GShare": "fast-gshare", "KServe": "whole-gpu"}
MEASURED = {"resnet": "resnet50", "mobilenet": "mobilenet_v3_large"}


def write_results(places: Places, measured: Path | None, document: Path | None) -> None:
    """Print the tables; with a document, put them between its markers and the plot beside it."""
    listed, found = read_results(places)
    file = places.out / "checks.json"
    checks = json.loads(file.read_text()) if file.exists() else {}
    sections = {
        "goals": goals(listed, found, checks),
        "loads": loads(listed, found),
        "paper": paper(listed, found),
        "missed": missed(listed, found),
        "price": price(listed, found),
        "measured": beside_measured(listed, found, read_measured(measured)),
        "chaos": chaos(listed, found),
        "checks": queues(checks),
        "run": run_of(listed, found),
    }
    for name, lines in sections.items():
        text = "\n".join(lines)
        if document is None:
            print(f"\n[{name}]\n{text}")
        else:
            replace_between(document, name, text)
    if document is not None:
        plot_front(listed, found, document.with_name("scaling.png"))


def loads(listed: list[Cell], found: Results) -> list[str]:
    """One row a load: cost over the bound and violations of each policy, means over single functions."""
    lines = [
        "| load | functions | " + " | ".join(f"`{policy}`" for policy in POLICIES) + " | tail | settled |",
        "|---|---|" + "---|" * len(POLICIES) + "--:|--:|",
    ]
    seen = []
    for cell in main_cells(listed):
        key = cell.load, cell.arrivals, len(cell.functions) > 1
        if key in seen:
            continue
        seen.append(key)
        group = [
            one for one in main_cells(listed, load=cell.load, arrivals=cell.arrivals)
            if (len(one.functions) > 1) == key[2]
        ]  # fmt: skip
        tails = [next(iter(found[one.key].values())).tail_over_bound for one in group]
        texts = [_mean_of([found[one.key][p] for one in group if p in found[one.key]]) for p in POLICIES]
        settled = [found[one.key]["hybrid"].settled_pct for one in group if "hybrid" in found[one.key]]
        which = "all six" if key[2] else f"{len(group)} alone"
        tail, calm = f"{np.mean(tails):.2f}x", f"{np.mean(settled or [math.nan]):.2f} %"
        lines.append(
            f"| {cell.load}, {cell.arrivals.value} | {which} | {' | '.join(texts)} | {tail} | {calm} |"
        )
    return lines


def _mean_of(those: Sequence[Found]) -> str:
    if not those:
        return "-"
    cost = np.mean([one.over_bound for one in those])
    late = np.mean([one.violations_pct for one in those])
    if len(those) > 1 or len(those[0].seeds) < LEAST_SEEDS:
        return f"{cost:.2f}x, {late:.2f} %"
    return f"{cost:.2f}x{_within(those[0].half('over_bound'))}, {late:.2f}{_within(those[0].half('each'))} %"


def _within(half: float) -> str:
    return "" if math.isnan(half) else f" ± {half:.2f}"


def paper(listed: list[Cell], found: Results) -> list[str]:
    """Single functions under the artifact's workloads: each function and load."""
    lines = [
        "| function | load | `hybrid`, GPU-s per 1,000 | violations, % | "
        + " | ".join(f"`{name}` costs" for name in ("whole-gpu", "fast-gshare", "has-gpu"))
        + " | their violations, % |",
        "|---|---|--:|--:|--:|--:|--:|---|",
    ]
    others = ("whole-gpu", "fast-gshare", "has-gpu")
    ground = [cell for cell in paper_cells(listed) if {"hybrid", *others} <= found[cell.key].keys()]
    for cell in ground:
        of = found[cell.key]
        hybrid = of["hybrid"]
        costs = " | ".join(f"{of[name].per_1000 / hybrid.per_1000:.1f}x" for name in others)
        late = ", ".join(f"{of[name].violations_pct:.2f}" for name in others)
        lines.append(
            f"| {cell.served} | {cell.trace}, {cell.arrivals.value} |"
            f" {hybrid.per_1000:.2f}{_within(_half_per_1000(hybrid))} |"
            f" {hybrid.violations_pct:.2f}{_within(hybrid.half('violations'))} | {costs} | {late} |"
        )
    if not ground:
        return lines
    requests = sum(found[cell.key]["hybrid"].requests for cell in ground)
    rates = {name: pooled_violations(ground, found, name) for name in ("hybrid", *others)}
    lines.append("")
    lines.append(
        f"Over all of them, {requests:,} requests a policy, violations are "
        + ", ".join(f"{rate:.2f} % (`{name}`)" for name, rate in rates.items())
        + "."
    )
    if requests >= ENOUGH and rates["hybrid"] > 0:
        ratios = ", ".join(f"{rates[name] / rates['hybrid']:.1f}x for `{name}`" for name in others)
        lines.append(f"That is {ratios}.")
    return lines


def _half_per_1000(found: Found) -> float:
    return found.half("over_bound") * found.per_1000 / found.over_bound


def price(listed: list[Cell], found: Results) -> list[str]:
    """`hybrid` and `static` by what they plan with, over the loads that were replayed with all plans."""
    lines = [
        "| functions | policy | K = 0 | K = 3 | K = 11 | the truth |",
        "|---|---|---|---|---|---|",
    ]
    kinds = ("price-k0", "price-k3", "main", "price-truth")
    rows = [(name, [name]) for name in NETWORKS]
    rows += [("mean of the six alone", list(NETWORKS)), ("all six", ["all"])]
    for title, served in rows:
        for policy in ("hybrid", "static"):
            those: list[list[Found]] = [[] for _ in kinds]
            for trace in ("standard", "stress"):
                own = [_priced(listed, found, kind, trace, served, policy) for kind in kinds]
                if all(len(one) == len(served) for one in own):
                    those = [before + new for before, new in zip(those, own, strict=True)]
            lines.append(f"| {title} | `{policy}` | {' | '.join(_mean_of(one) for one in those)} |")
    return lines


def _priced(
    listed: list[Cell], found: Results, kind: str, trace: str, served: list[str], policy: str
) -> list[Found]:
    return [
        found[cell.key][policy]
        for cell in listed
        if (cell.kind, cell.trace, cell.scale, cell.arrivals.value) == (kind, trace, 5, "poisson")
        and cell.served in served
        and policy in found[cell.key]
    ]


def beside_measured(listed: list[Cell], found: Results, rows: list[dict[str, str]]) -> list[str]:
    """The artifact's own runs beside replays of the same workload and policy."""
    lines = [
        "| network | load | system | runs | measured: GPU-s per 1,000 | p50 / p99, ms | violations at 2x, % |"
        " mean GPUs | replayed: GPU-s per 1,000 | p50 / p99, ms | violations at 2x, % | mean GPUs |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for model, network in MEASURED.items():
        for workload, trace in (("standard", "standard"), ("stressA", "stress")):
            for system, policy in REPLAYED.items():
                own = [
                    row
                    for row in rows
                    if (row["system"], row["model"], row["workload"]) == (system, model, workload)
                ]
                cell = next(
                    (
                        one
                        for one in main_cells(listed, trace=trace, scale=1, served=network)
                        if one.arrivals.value == "even" and policy in found[one.key]
                    ),
                    None,
                )
                if not own or cell is None:
                    continue
                lines.append(
                    f"| {network} | {trace} | {system} | {len(own)} | {_measured(own)} |"
                    f" {_replayed(found[cell.key][policy])} |"
                )
    return lines


def _measured(rows: list[dict[str, str]]) -> str:
    def span(name: str, factor: float = 1.0, digits: int = 1) -> str:
        values = [factor * float(row[name]) for row in rows if row[name]]
        if not values:
            return "-"
        low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
        return low if low == high else f"{low} to {high}"

    return (
        f"{span('gpu_s_per_1k_ok')} | {span('p50_ms', digits=0)} / {span('p99_ms', digits=0)} |"
        f" {span('viol_k_2.00', 100)} | {span('alloc_gpu_mean', digits=2)}"
    )


def _replayed(found: Found) -> str:
    p50, p99 = (np.mean([one["total"][name] for one in found.seeds]) for name in ("p50_ms", "p99_ms"))
    duration = found.seeds[0]["total"]["gpu_seconds"] / 250.0
    late = 100 * found.sum("violations_2") / found.requests
    return f"{found.per_1000:.1f} | {p50:.0f} / {p99:.0f} | {late:.1f} | {duration:.2f}"


def chaos(listed: list[Cell], found: Results) -> list[str]:
    """Cost, violations and recovery under what goes wrong."""
    lines = [
        "| functions | what | policy | cost / bound | violations, % | recovered after, s: median, most |"
        " not recovered | requests accounted for | overcommitted |",
        "|---|---|---|--:|--:|---|--:|---|---|",
    ]
    for cell in listed:
        if cell.kind != "chaos":
            continue
        for policy, one in found[cell.key].items():
            times = [recovery[4] for seed in one.seeds for recovery in seed["recoveries"]]
            known = [value for value in times if value is not None]
            shown = f"{np.median(known):.0f}, {max(known):.0f}" if known else "-"
            faults = sorted({fault for seed in one.seeds for fault in seed["overcommitted"]})
            lines.append(
                f"| {cell.served} | {cell.chaos[0]} | `{policy}` | {one.over_bound:.2f}x |"
                f" {one.violations_pct:.2f} | {shown} | {len(times) - len(known)} |"
                f" {'yes' if one.accounted else '**no**'} | {', '.join(faults) or 'nothing'} |"
            )
    return lines


def queues(checks: dict[str, Any]) -> list[str]:
    """Mean waits against theory."""
    lines = ["| queue | load | mean wait, services | 99 % interval | theory |", "|---|--:|--:|---|--:|"]
    for row in checks.get("queues", []):
        low, high = row["wait"] - row["half"], row["wait"] + row["half"]
        lines.append(
            f"| {row['queue']} | {row['load']} | {row['wait']:.4f} | {low:.4f} to {high:.4f} |"
            f" {row['theory']:.4f} |"
        )
    return lines


def run_of(listed: list[Cell], found: Results) -> list[str]:
    """How much was replayed, and whether all requests are accounted for."""
    those = [one for cell in listed for one in found[cell.key].values()]
    replays = sum(len(one.seeds) for one in those)
    requests = sum(one.requests for one in those)
    not_made = int(sum(seed["changes_not_made"] for one in those for seed in one.seeds))
    changes = int(sum(seed["changes"] for one in those for seed in one.seeds))
    right = all(one.accounted for one in those)
    now = {policy: digests(policy) for policy in POLICIES}
    older = sum(one.digests != now[policy] for cell in listed for policy, one in found[cell.key].items())
    few = sum(
        found[cell.key]["hybrid"].requests < ENOUGH
        for cell in main_cells(listed)
        if "hybrid" in found[cell.key]
    )
    return [
        f"{len(listed)} of {len(cells())} cells, {replays:,} replays, {requests / 1e6:,.1f} million requests;"
        f" {'every one of them is' if right else 'NOT all of them are'} answered, refused, lost or"
        f" unfinished. {changes:,} changes were made; {not_made:,} could not be. {few} cells of the main"
        f" grid have fewer than {ENOUGH:,} requests: no ratio of violations is quoted of those alone."
        f" {older or 'None'} of the {len(those)} results (a policy in a cell) were made by other sources of"
        " the policy, the core or the replay than those beside this document; --again replays them.",
    ]
