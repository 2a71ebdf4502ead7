"""Table and plot of what scripts/bench_adaptive.py found."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rapp.fileio import atomic_path

DEVELOPED_ON = (0, 1, 2, 3)
"""Folds on whose networks the constants of the rule were chosen."""

REPLAYED = ", replayed"
"""End of the name of a method that measured through the replay device."""

Folds = Mapping[int, Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]]
"""Scores by fold, network and method, one for each count of points."""


def write_results(folds: Folds, counts: Sequence[int], document: Path | None) -> None:
    """Print the tables; with a document, put them between its markers and the plot beside it."""
    text = tables(folds, counts)
    print(text)
    if document is None:
        return
    pattern = re.compile(r"(<!-- adaptive:begin -->\n).*?(<!-- adaptive:end -->)", re.DOTALL)
    content, found = pattern.subn(
        lambda match: match.group(1) + text + match.group(2), document.read_text("utf-8")
    )
    if not found:
        raise SystemExit(f"{document}: has no markers adaptive:begin and adaptive:end")
    with atomic_path(document) as temporary:
        temporary.write_text(content, "utf-8")
    plot(folds, counts, document.with_name("adaptive.png"))


def tables(folds: Folds, counts: Sequence[int]) -> str:
    """Mean error over networks by method and count, with bootstrap intervals; then the rule's own figures."""
    methods = list(next(iter(next(iter(folds.values())).values())))
    own = [method for method in methods if REPLAYED not in method]
    through = [method for method in methods if REPLAYED in method]
    fresh = {fold: networks for fold, networks in folds.items() if fold not in DEVELOPED_ON}
    lines = ["Mean error over 57 networks, %, by the number of points measured:\n\n"]
    lines += table(folds, own, counts)
    lines.append("\nOn the networks of folds 4 to 7 alone, which nothing was chosen on:\n\n")
    lines += table(fresh, own, counts)
    lines.append("\nMeasured through the replay device, whose noise comes on top of the table's own:\n\n")
    lines += table(folds, through, counts)
    lines.append("\nWith 95 % bootstrap intervals over all networks:\n\n")
    lines.append("| points | rule, % | expected by the rule, % | coverage, % |\n|--:|---|--:|--:|\n")
    rule = gathered(folds, "rule", "error_pct")
    expected, coverage = (gathered(folds, "rule", key) for key in ("expected_pct", "coverage_pct"))
    for place, count in enumerate(counts):
        means = f"{expected[:, place].mean():.2f} | {coverage[:, place].mean():.1f}"
        lines.append(f"| {count} | {interval(rule[:, place])} | {means} |\n")
    others = [method for method in own if not method.startswith("rule")]
    lines.append("\n| points | " + " | ".join(f"rule - {method}" for method in others) + " |\n")
    lines.append("|--:|" + "---|" * len(others) + "\n")
    for place, count in enumerate(counts):
        differences = [
            interval(rule[:, place] - gathered(folds, method, "error_pct")[:, place]) for method in others
        ]
        lines.append(f"| {count} | " + " | ".join(differences) + " |\n")
    return "".join(lines)


def table(folds: Folds, methods: Sequence[str], counts: Sequence[int]) -> list[str]:
    """Lines of a table of mean errors: one row a method, one column a count."""
    lines = ["| choice of points | " + " | ".join(f"{count}" for count in counts) + " |\n"]
    lines.append("|---|" + "--:|" * len(counts) + "\n")
    for method in methods:
        errors = gathered(folds, method, "error_pct").mean(axis=0)
        shown = " | ".join(f"{value:.2f}" for value in errors)
        lines.append(f"| {method.removesuffix(REPLAYED)} | {shown} |\n")
    return lines


def gathered(folds: Folds, method: str, key: str) -> np.ndarray:
    """(networks, counts)."""
    return np.array(
        [
            [one[key] for one in methods[method]]
            for networks in folds.values()
            for methods in networks.values()
        ]
    )


def interval(values: np.ndarray) -> str:
    """Mean and 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (2000, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{values.mean():.2f} ({low:.2f} to {high:.2f})"


def plot(folds: Folds, counts: Sequence[int], file: Path) -> None:
    """Error against the number of points, one line a method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure: Any
    figure, axes = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    styles = {
        "rule": ("#0072b2", "-", 2.4), "rule, replayed": ("#0072b2", ":", 1.4),
        "fixed list": ("#d55e00", "-", 1.6), "fixed list, replayed": ("#d55e00", ":", 1.2),
        "random": ("#7f7f7f", "-", 1.2),
        "grid": ("#009e73", "--", 1.2), "Latin hypercube": ("#cc79a7", "--", 1.2),
    }  # fmt: skip
    for method, (colour, line, width) in styles.items():
        errors = gathered(folds, method, "error_pct").mean(axis=0)
        axes.plot(
            counts, errors, color=colour, linestyle=line, linewidth=width, marker="o", ms=3, label=method
        )
    axes.axhline(4, color="black", linewidth=0.6)
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_ylim(3, 14)
    axes.set_xlabel("points measured of a new network")
    axes.set_ylabel("mean error over 57 networks, %")
    axes.legend(frameon=False)
    with atomic_path(file) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)
