"""The plot of a recommendation as PNG; needs the extra `plot`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rapp.errors import MissingExtraError
from rapp.recommend import Recommendation
from rapp.report.axis import number
from rapp.report.recommendation import front_axes


def write_front_png(found: Recommendation, path: Path) -> None:
    """GPU share against request latency, as `rapp.report.front_svg` shows it.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "plot") from error
    options, objective, best = found.options, found.objective, found.best
    x, y = front_axes(found)
    figure = Figure(figsize=(8, 5.4), dpi=150, layout="constrained")
    axes = figure.subplots()
    for inside, colour, label in (
        (~options.meets, "#b5bcc4", "misses the objective"),
        (options.meets, "#2b6cd4", "meets it"),
    ):
        axes.scatter(
            options.gpu_share[inside], options.request_ms[inside], s=7, alpha=0.4, color=colour, label=label
        )
    share, request = (np.array([getattr(one, n) for one in found.front]) for n in ("gpu_share", "request_ms"))
    axes.step(share, request, where="post", color="#2b6cd4", marker="o", markersize=4, label="Pareto front")
    axes.axhline(
        objective.slo_ms, color="#c96a12", linestyle="--", label=f"objective {objective.slo_ms:g} ms"
    )
    axes.scatter(
        [best.gpu_share], [best.request_ms], s=130, facecolors="none", edgecolors="#c96a12", linewidths=2
    )
    axes.set(xscale="log", yscale="log", xlabel=x.label, ylabel=y.label)
    axes.set_xlim(x.low, x.high)
    axes.set_ylim(y.low, y.high)
    for side, shown in ((axes.xaxis, x), (axes.yaxis, y)):
        side.set_major_locator(FixedLocator(shown.ticks))
        side.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        side.set_minor_locator(NullLocator())
    axes.set_title(f"{found.network}: {objective.rps:g} requests/s", loc="left")
    axes.grid(color="#e3e6e9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, format="png")
