"""How the protocols' results stand against their goals, and the short table of README.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from protocol_results import POINTS, Networks, column, device, read

from rapp.evaluation.scores import bootstrap_mean

COVERAGE, LOWEST = 90.0, 75.0


def goals(folder: Path) -> list[str]:
    """A table: protocol, goal, result, met or missed."""
    network, _ = read(folder, "unseen-network")
    rule, _ = read(folder, "unseen-network-rule")
    family, _ = read(folder, "unseen-family")
    lines = ["| protocol | goal | result | |", "|---|---|---|---|"]

    def add(protocol: str, goal: str, result: str, met: bool) -> None:
        lines.append(f"| {protocol} | {goal} | {result} | {'met' if met else '**missed**'} |")

    for title, networks in (("the fixed list", network), ("by the rule", rule)):
        errors = column(networks, "11", "mape")
        mean, median = errors.mean(), np.median(errors)
        result = f"{mean:.2f} % and {median:.2f} %"
        add(f"unseen network, K = 11, {title}", "mean 5.0 %, median 4.0 %", result, mean <= 5 and median <= 4)
    mean = column(family, "11", "mape").mean()
    add("unseen family, K = 11", "mean 6 %", f"{mean:.2f} %", mean <= 6)
    for protocol, networks in (("unseen network", network), ("unseen family", family)):
        for key, points in (
            ("device_mape_floor_alone", "above 1.5 x the lowest latency"),
            ("device_mape", "that are also hardly slower at quota 50 %"),
        ):
            mean = np.mean(device(networks, key))
            add(
                f"device time, K = 0, {protocol}, points {points}",
                "mean 10 %",
                f"{mean:.2f} %",
                bool(mean <= 10),
            )
    for fold in range(3):
        networks, _ = read(folder, "random-rows", fold)
        mean = np.concatenate([scores["points"]["known"]["ape"] for scores in networks.values()]).mean()
        add(f"random rows, seed {fold}", "2.9 %", f"{mean:.2f} %", bool(mean <= 2.9))
    return lines


def intervals(folder: Path) -> list[str]:
    """A table: where the coverage of the 90 % interval and its 10th percentile over networks stand."""
    lines = [
        "| protocol | 90 in the bootstrap interval | 10th-percentile network at least 75 % |",
        "|---|---|---|",
    ]
    for protocol in ("unseen-network", "unseen-family"):
        networks, _ = read(folder, protocol)
        lines.append(f"| {protocol} | {_where(networks, True)} | {_where(networks, False)} |")
    for protocol, titles in (("random-rows", ("0", "1", "2")), ("held-columns", ("SM", "quota", "batch 8"))):
        found = [(title, read(folder, protocol, fold)[0]) for fold, title in enumerate(titles)]
        cells = []
        for kind in (True, False):
            missed = [title for title, networks in found if not _holds(networks, "known", kind)]
            cells.append("**missed**: " + ", ".join(missed) if missed else "all met")
        lines.append(f"| {protocol} | {cells[0]} | {cells[1]} |")
    return lines


def summary(folder: Path) -> list[str]:
    """The table of README.md."""
    network, _ = read(folder, "unseen-network")
    family, _ = read(folder, "unseen-family")
    known, _ = read(folder, "random-rows")
    lines = ["| held out | K | mean over networks | median | 90 % interval holds |", "|---|--:|--:|--:|--:|"]
    for title, networks, points, shown in (
        ("a network", network, "0", "0"),
        ("a network", network, "3", "3"),
        ("a network", network, "11", "11"),
        ("a family of networks", family, "11", "11"),
        ("random rows of known networks", known, "known", "all"),
    ):
        errors, cover = column(networks, points, "mape"), column(networks, points, "coverage").mean()
        lines.append(
            f"| {title} | {shown} | {errors.mean():.1f} % | {np.median(errors):.1f} % | {cover:.0f} % |"
        )
    found = device(network, "device_mape")
    lines.append(f"| a network, its device time | 0 | {np.mean(found):.1f} % | {np.median(found):.1f} % | |")
    return lines


def _where(networks: Networks, mean: bool) -> str:
    missed = [f"K = {k}" for k in POINTS if not _holds(networks, k, mean)]
    return "**missed** at " + ", ".join(missed) if missed else "met at each K"


def _holds(networks: Networks, points: str, mean: bool) -> bool:
    cover = column(networks, points, "coverage")
    if not mean:
        return bool(np.percentile(cover, 10) >= LOWEST)
    low, high = bootstrap_mean(cover, seed=0)
    return low <= COVERAGE <= high
