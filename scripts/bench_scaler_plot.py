"""The front of cost and violations: one point a policy and cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench_scaler_cells import POLICIES, Cell
from bench_scaler_results import Results, main_cells

from rapp.fileio import atomic_path

STYLES = {
    "hybrid": ("#0072b2", "o", 34), "oracle": ("black", "*", 46), "static": ("#009e73", "s", 22),
    "has-gpu": ("#d55e00", "^", 24), "fast-gshare": ("#cc79a7", "v", 24),
    "fast-gshare-best": ("#e69f00", "D", 20), "whole-gpu": ("#7f7f7f", "P", 26),
}  # fmt: skip
LEAST_PCT = 0.005
"""Violations below it, and none, stand there: the axis is logarithmic."""

TRACES = (("standard",), ("stress",), ("azure", "servegen"))


def plot_front(listed: list[Cell], found: Results, file: Path) -> None:
    """Cost over the bound against violations, by load, single functions and all six together."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure: Any
    figure, grid = plt.subplots(2, 3, figsize=(11.5, 7.4), layout="constrained", sharex=True, sharey=True)
    panels = [(traces, together) for together in (False, True) for traces in TRACES]
    for axes, (traces, together) in zip(grid.flat, panels, strict=True):
        cells = [
            cell
            for cell in main_cells(listed)
            if cell.trace in traces and (len(cell.functions) > 1) == together
        ]
        for policy in POLICIES:
            colour, marker, size = STYLES[policy]
            those = [found[cell.key][policy] for cell in cells if policy in found[cell.key]]
            axes.scatter(
                [max(one.violations_pct, LEAST_PCT) for one in those],
                [one.over_bound for one in those],
                color=colour, marker=marker, s=size, alpha=0.75, linewidths=0, label=policy,
                zorder=3 if policy in ("hybrid", "oracle") else 2,
            )  # fmt: skip
        axes.axvline(1.0, color="black", linewidth=0.6, linestyle=":")
        axes.axhline(1.0, color="black", linewidth=0.6)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(LEAST_PCT * 0.8, 110)
        axes.set_xticks([0.01, 0.1, 1, 10, 100], ["0.01", "0.1", "1", "10", "100"])
        axes.set_yticks([1, 2, 5, 10, 20, 50, 100, 200], ["1", "2", "5", "10", "20", "50", "100", "200"])
        axes.minorticks_off()
        axes.grid(color="#e5e5e5", linewidth=0.6)
        axes.set_axisbelow(True)
        title = f"{' and '.join(traces)}, {'all six on 4 GPUs' if together else 'functions alone'}"
        axes.set_title(title, fontsize=10)
    for axes in grid[1]:
        axes.set_xlabel("violations, % of arrivals")
    for axes in grid[:, 0]:
        axes.set_ylabel("GPU-seconds over the fluid bound")
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=7, frameon=False)
    with atomic_path(file) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)
