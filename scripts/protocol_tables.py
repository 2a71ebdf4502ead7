"""Tables of docs/accuracy.md from what scripts/protocols.py wrote.

    python scripts/protocol_tables.py out/protocols --write docs/accuracy.md --readme README.md

Replaces what stands between the markers `<!-- NAME:begin -->` and `<!-- NAME:end -->`: goals and tables
in the first document, accuracy in the second. Intervals are bootstrap intervals (95 %) over networks.
Without an option all goes to the terminal; --json writes the figures for an artifact's card.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from protocol_goals import goals, intervals, summary
from protocol_results import POINTS, Networks, column, device, mean_with_interval, read
from protocols import jobs

from rapp.fileio import atomic_path

ABLATIONS = {
    "ablation-rapp": "RaPP: DAG, law per operator",
    "ablation-chain": "chain in visit order for the DAG",
    "ablation-no-messages": "operators without edges",
    "ablation-mlp-head": "plain MLP for a head",
    "ablation-no-graph": "no graph at all",
}


def by_points(networks: Networks) -> list[str]:
    """Rows K, mean and median over networks, 95th percentile, coverage, its 10th percentile, width."""
    lines = [
        "| K | mean over networks, % | median, % | p95, % | coverage, % | p10 network, % | width, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for k in [k for k in POINTS if k in next(iter(networks.values()))["points"]]:
        error, cover = column(networks, k, "mape"), column(networks, k, "coverage")
        width = column(networks, k, "width").mean()
        lines.append(
            f"| {k} | {mean_with_interval(error)} | {np.median(error):.2f} | {np.percentile(error, 95):.1f} "
            f"| {mean_with_interval(cover)} | {np.percentile(cover, 10):.0f} | {width:.0f} |"
        )
    return lines


def training_time(folder: Path) -> list[str]:
    """Seconds of each protocol's folds, of those that ran from their beginning to their end."""
    lines = ["| protocol | folds timed | training of one fold, s |", "|---|---|---|"]
    for protocol in ("unseen-network", "unseen-family", "random-rows"):
        _, folds = read(folder, protocol)
        seconds = [fold["train_seconds"] for fold in folds if fold["train_seconds"] is not None]
        if seconds:
            lines.append(f"| {protocol} | {len(seconds)} | {min(seconds):.0f} to {max(seconds):.0f} |")
    return lines


def rows(networks: Networks) -> tuple[float, str, str, str]:
    """Error over all pooled rows, over networks, coverage, and the 10th percentile and width of intervals."""
    pooled = np.concatenate([scores["points"]["known"]["ape"] for scores in networks.values()])
    return (
        float(pooled.mean()),
        mean_with_interval(column(networks, "known", "mape")),
        mean_with_interval(column(networks, "known", "coverage")),
        f"{np.percentile(column(networks, 'known', 'coverage'), 10):.0f} | "
        f"{column(networks, 'known', 'width').mean():.0f}",
    )


def tables(folder: Path) -> tuple[str, dict[str, Any]]:
    """The markdown between the markers, and the figures for the artifact's card."""
    out: list[str] = []
    figures: dict[str, Any] = {}
    for protocol, title in (
        ("unseen-network", "Unseen network, the fixed list of points"),
        ("unseen-network-rule", "Unseen network, each point chosen by the rule"),
        ("unseen-family", "Unseen family, the fixed list of points"),
    ):
        networks, folds = read(folder, protocol)
        if not networks:
            continue
        out += [
            f"### {title}",
            "",
            f"{len(networks)} networks in {len(folds)} folds.",
            "",
            *by_points(networks),
            "",
        ]
        worst = sorted(((s["points"]["11"]["mape"], n) for n, s in networks.items()), reverse=True)[:6]
        out += ["Worst at K = 11: " + ", ".join(f"{name} {error:.1f} %" for error, name in worst) + ".", ""]
        figures[protocol] = {
            f"k{k}": {
                "mape_mean": round(float(column(networks, k, "mape").mean()), 2),
                "mape_median": round(float(np.median(column(networks, k, "mape"))), 2),
                "coverage_90": round(float(column(networks, k, "coverage").mean()), 1),
            }
            for k in POINTS
        }
        if protocol != "unseen-network-rule":
            figures[protocol]["device_time_mape_mean"] = round(
                float(np.mean(device(networks, "device_mape"))), 2
            )
    out += [
        "### Device time at K = 0",
        "",
        "| protocol | points | networks | mean over networks, % | median, % |",
    ]
    out += ["|---|---|---|---|---|"]
    for protocol in ("unseen-network", "unseen-family"):
        networks, _ = read(folder, protocol)
        for key, title in (
            ("device_mape_floor_alone", "above 1.5 x the lowest latency"),
            ("device_mape", "and hardly slower at quota 50 %"),
        ):
            found = device(networks, key) if networks else []
            if found:
                error = f"{mean_with_interval(found)} | {np.median(found):.2f}"
                out.append(f"| {protocol} | {title} | {len(found)} | {error} |")
    out += ["", "### Unseen configurations of known networks", ""]
    out += [
        "| held out | rows, % | over networks, % | coverage, % | p10 network, % | width, % |",
        "|---|---|---|---|---|---|",
    ]
    for protocol, titles in (
        ("random-rows", ("random rows, seed 0", "random rows, seed 1", "random rows, seed 2")),
        ("held-columns", ("SM 15, 35, 60, 85 %", "quota 30, 70 %", "batch 8")),
    ):
        pooled: dict[str, float] = {}
        for fold, title in enumerate(titles):
            path = folder / f"{protocol}-{fold}.json"
            if path.exists():
                mape, over, cover, rest = rows(json.loads(path.read_text())["networks"])
                pooled[title] = round(mape, 2)
                out.append(f"| {title} | {mape:.2f} | {over} | {cover} | {rest} |")
        if pooled:
            figures[protocol] = {"mape_rows": pooled}
    out += ["", "### Ablation, unseen network, the same budget", ""]
    out += [
        "| encoder | device time, K = 0, % | K = 0, median % | K = 3, % | K = 11, % |",
        "|---|---|---|---|---|",
    ]
    for protocol, title in ABLATIONS.items():
        networks, _ = read(folder, protocol)
        if networks:
            found = device(networks, "device_mape")
            scores = (
                f"{np.mean(found):.1f} (median {np.median(found):.1f})",
                f"{np.median(column(networks, '0', 'mape')):.1f}",
                f"{column(networks, '3', 'mape').mean():.2f}",
                f"{column(networks, '11', 'mape').mean():.2f}",
            )
            out.append(f"| {title} | {' | '.join(scores)} |")
    networks, _ = read(folder, "ablation-no-prototypes")
    if networks:
        full, _ = read(folder, "unseen-network")
        cells = [f"{column(n, k, 'mape').mean():.2f}" for n in (full, networks) for k in ("3", "11")]
        out += [
            "",
            f"Host curves without prototypes (the full encoder): K = 3 {cells[2]} % for {cells[0]} %,",
        ]
        out += [f"K = 11 {cells[3]} % for {cells[1]} %."]
    out += [
        "",
        "### Training time",
        "",
        "Each fold on one core, two folds at once.",
        "",
        *training_time(folder),
    ]
    return "\n".join(out), figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="what scripts/protocols.py wrote")
    parser.add_argument("--write", type=Path, help="document for the tables")
    parser.add_argument("--readme", type=Path, help="document for the short table")
    parser.add_argument("--json", type=Path, help="figures for the artifact's card")
    options = parser.parse_args()
    unfinished = sorted({job.protocol for job in jobs() if not (options.folder / job.file).exists()})
    if unfinished:
        sys.exit(f"{options.folder} lacks folds of {', '.join(unfinished)}: run scripts/protocols.py")
    text, figures = tables(options.folder)
    standing = "\n".join([*goals(options.folder), "", *intervals(options.folder)])
    if options.json:
        with atomic_path(options.json) as temporary:
            temporary.write_text(json.dumps(figures, indent=2) + "\n")
    if options.write:
        replace_between(options.write, "goals", standing)
        replace_between(options.write, "tables", text)
    if options.readme:
        replace_between(options.readme, "accuracy", "\n".join(summary(options.folder)))
    if not (options.write or options.readme or options.json):
        print(f"{standing}\n\n{text}")


def replace_between(path: Path, name: str, text: str) -> None:
    """Put `text` between the markers of that name."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, _, rest = path.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        sys.exit(f"{path} lacks the markers {begin} and {end}")
    with atomic_path(path) as temporary:
        temporary.write_text(f"{before}{begin}\n{text}\n{end}{after}")


if __name__ == "__main__":
    main()
