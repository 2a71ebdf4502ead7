"""Maps and curves of each network of a profile table as PNG; needs the extra `plot`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rapp.errors import MissingExtraError
from rapp.fileio import atomic_path
from rapp.profiles.cells import Cells, State, cells
from rapp.profiles.summary import settings
from rapp.profiles.table import ProfileTable
from rapp.report.axis import number
from rapp.report.scale import STEPS, VIRIDIS, latency_scale
from rapp.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIGNS = {State.SKIPPED: "s skipped", State.FAILED: "x failed", State.DERIVED: "• derived"}


def write_profile_pngs(
    table: ProfileTable, folder: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Path]:
    """One `<network>.png` for each network that has a latency; with several settings, theirs is in the name.

    Args:
        folder: made if absent; files of the same name are replaced, each at once.
        progress: called with how many are done, and of how many.

    Raises:
        MissingExtraError: matplotlib is not installed.
        RappError: the folder cannot be written.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "plot") from error
    found = settings(table)
    drawn = [
        (setting, one, one.values(rows.column("latency_ms")))
        for setting, rows in found
        for one in cells(rows)
        if one.known.any()
    ]
    written: list[Path] = []
    for done, (setting, one, latency_ms) in enumerate(drawn):
        progress(done, len(drawn))
        name = "-".join((one.network, *(setting.values() if len(found) > 1 else ())))
        target = _free(folder, re.sub(r"[^\w.()-]+", "_", name), written)
        figure = _figure(one, latency_ms, setting)
        with atomic_path(target) as temporary:
            figure.savefig(temporary, format="png")
        written.append(target)
    progress(len(drawn), len(drawn))
    return written


def _free(folder: Path, name: str, written: list[Path]) -> Path:
    """A name that none of the files just written has: different networks may become one file name."""
    target, count = folder / f"{name}.png", 1
    while target in written:
        count += 1
        target = folder / f"{name}-{count}.png"
    return target


def _figure(one: Cells, latency_ms: FloatArray, setting: Mapping[str, str]) -> Figure:
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.figure import Figure

    scale = latency_scale(latency_ms[one.known])
    edges, batches = scale.edges(), len(one.grid.batch)
    figure = Figure(figsize=(3.4 * batches + 1.2, 3.5), dpi=130, layout="constrained")
    marks = [sign for state, sign in _SIGNS.items() if (one.state == state).any()]
    title = (f"{one.network}: latency, ms", "; ".join((" · ".join(setting.values()), *marks)))
    figure.suptitle("\n".join(title), x=0.01, ha="left", size=10)
    norm, colours = BoundaryNorm(edges, len(VIRIDIS)), ListedColormap(VIRIDIS)
    axes = figure.subplots(1, batches, squeeze=False)[0]
    for k, panel in enumerate(axes):
        mesh = panel.pcolormesh(np.ma.masked_invalid(latency_ms[:, :, k].T), cmap=colours, norm=norm)
        panel.set_facecolor("#eef1f4")
        step = scale.step(latency_ms[:, :, k])
        for state, sign in _SIGNS.items():
            for i, j in np.argwhere(one.state[:, :, k] == state).tolist():
                ink = "#66717c" if step[i, j] < 0 else "black" if step[i, j] < STEPS // 2 else "white"
                panel.text(i + 0.5, j + 0.5, sign[0], ha="center", va="center", size=8, color=ink)
        _ticks(panel.xaxis, one.grid.sm_pct)
        _ticks(panel.yaxis, one.grid.quota_pct)
        panel.set_title(f"batch {one.grid.batch[k]}", size=9, loc="left")
        panel.set_xlabel("SM partition, %", size=8)
    axes[0].set_ylabel("time quota, %", size=8)
    # The steps are even in the logarithm, so that even heights and the values at their ends tell them.
    bar = figure.colorbar(mesh, ax=list(axes), ticks=edges, spacing="uniform", pad=0.01)
    bar.ax.set_yticklabels([number(float(f"{edge:.3g}")) for edge in edges], size=7)
    bar.minorticks_off()
    return figure


def _ticks(axis: Any, values: Any) -> None:
    """At most ten, counted from the last."""
    places = np.arange(len(values) - 1, -1, -(len(values) // 10 + 1))[::-1]
    axis.set_ticks(places + 0.5, [f"{values[k]:g}" for k in places], size=7)
