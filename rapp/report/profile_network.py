"""What the page of a profile table shows of one network: its maps and its curves."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup

from rapp.profiles.cells import Cells, State
from rapp.profiles.noise import Spread
from rapp.profiles.table import ProfileTable
from rapp.report import profile_charts
from rapp.report.axis import number
from rapp.report.heatmap import heat_map, legend
from rapp.report.scale import Scale, latency_scale
from rapp.types import FloatArray

LONGEST_REASON = 160
_HATCHED = {"missing": State.MISSING, "skipped": State.SKIPPED, "failed": State.FAILED}


class NetworkPlots:
    """Draws the networks of one setting from the columns of its rows.

    Args:
        rows: the rows of the setting; `Cells.row` of what is drawn are places in it.
        spread, noise: what the noise of a row is told by, and its value, relative, shape (R,).
        noise_scale: shared by all networks, so that they can be compared; None without any noise.
        hover: whether texts under the pointer tell of noise too: in its maps, and as the median's interval
            in those of latency.
    """

    def __init__(
        self,
        rows: ProfileTable,
        spread: Spread,
        noise: FloatArray,
        noise_scale: Scale | None,
        *,
        hover: bool,
    ) -> None:
        names = ("latency_ms", "device_ms", "median_low_ms", "median_high_ms", "quota_kind")
        self._columns = {name: rows.column(name) for name in names}
        self._reason = rows.column("reason")
        self._spread, self._noise, self._scale, self._hover = spread, noise, noise_scale, hover

    def context(self, cells: Cells) -> dict[str, Any]:
        """Values for the template: maps, legends and charts; `None` for what there is nothing to show of."""
        if not cells.known.any():
            return {"maps": [], "noise_maps": [], "charts": [], "legend": None, "batches": [], "marks": []}
        latency_ms = cells.values(self._columns["latency_ms"])
        scale = latency_scale(latency_ms[cells.known])
        return {
            "maps": self._latency_maps(cells, latency_ms, scale),
            "legend": Markup(legend(scale, "h")),
            "noise_maps": self._noise_maps(cells),
            "charts": self._charts(cells, latency_ms),
            "batches": [(index % profile_charts.COLOURS, b) for index, b in enumerate(cells.grid.batch)],
            "marks": [
                name
                for name, state in (*_HATCHED.items(), ("derived", State.DERIVED))
                if (cells.state == state).any()
            ],
        }

    def _latency_maps(self, cells: Cells, latency_ms: FloatArray, scale: Scale) -> list[tuple[int, Markup]]:
        maps = []
        low, high = (cells.values(self._columns[f"median_{end}_ms"]) for end in ("low", "high"))
        for k, batch in enumerate(cells.grid.batch):
            about = [
                [
                    self._about(cells, (i, j, k), latency_ms, low, high)
                    for j in range(len(cells.grid.quota_pct))
                ]
                for i in range(len(cells.grid.sm_pct))
            ]
            svg = heat_map(
                cells.grid.sm_pct,
                cells.grid.quota_pct,
                scale.step(latency_ms[:, :, k]),
                title=f"Latency of {cells.network} at batch {batch}",
                palette="h",
                about=about,
                figures=[[ms(value) for value in column] for column in latency_ms[:, :, k].tolist()],
                hatched={name: cells.state[:, :, k] == state for name, state in _HATCHED.items()},
                dotted=cells.state[:, :, k] == State.DERIVED,
            )
            maps.append((batch, Markup(svg)))
        return maps

    def _about(
        self,
        cells: Cells,
        place: tuple[int, int, int],
        latency_ms: FloatArray,
        low: FloatArray,
        high: FloatArray,
    ) -> str:
        where = f"SM {cells.grid.sm_pct[place[0]]:g} %, quota {cells.grid.quota_pct[place[1]]:g} %: "
        state = State(cells.state[place])
        if state == State.MISSING:
            return where + "no row"
        if state < State.DERIVED:
            return f"{where}{state.name.lower()}: {_short(self._reason[cells.row[place]])}"
        told = f"{where}{ms(latency_ms[place])} ms"
        if state == State.DERIVED:
            return f"{told}, derived"
        if self._hover and np.isfinite(low[place]) and np.isfinite(high[place]):
            told += f", median {ms(low[place])} to {ms(high[place])}"
        return told

    def _noise_maps(self, cells: Cells) -> list[tuple[int, Markup]]:
        """Over the partitions and quotas where some batch has a noise; empty without any."""
        noise_pct = 100 * cells.values(self._noise)
        known = np.isfinite(noise_pct)
        if self._scale is None or not known.any():
            return []
        sms, quotas = (np.unique(places).tolist() for places in np.nonzero(known)[:2])
        columns = [cells.grid.sm_pct[i] for i in sms]
        rows = [cells.grid.quota_pct[j] for j in quotas]
        maps = []
        for k, batch in enumerate(cells.grid.batch):
            own = noise_pct[:, :, k][np.ix_(sms, quotas)]
            if not np.isfinite(own).any():
                continue
            about = [
                [
                    f"SM {sm:g} %, quota {quota:g} %: {_percent(value)}"
                    for quota, value in zip(rows, column, strict=True)
                ]
                for sm, column in zip(columns, own.tolist(), strict=True)
            ]
            svg = heat_map(
                columns,
                rows,
                self._scale.step(own),
                title=f"Noise of {cells.network} at batch {batch}",
                palette="n",
                about=about if self._hover else None,
                figures=[[_percent(value) for value in column] for column in own.tolist()],
            )
            maps.append((batch, Markup(svg)))
        return maps

    def _charts(self, cells: Cells, latency_ms: FloatArray) -> list[dict[str, Any]]:
        """Title, plot and note of each chart that the points suffice for."""
        device_ms = cells.values(self._columns["device_ms"])
        # Three fill a line; four make two lines of wider ones.
        width = profile_charts.WIDTH if np.isnan(device_ms).all() else 4 * profile_charts.WIDTH // 3
        charts: list[dict[str, Any]] = []

        def add(title: str, plot: str, note: str = "") -> None:
            charts.append({"title": title, "plot": Markup(plot), "note": note})

        found = profile_charts.over_sm(cells, latency_ms, width)
        if found:
            add(f"Over SM partition, at quota {found[0]:g} %", found[1])
        found = profile_charts.over_quota(cells, latency_ms, width)
        if found:
            add(f"Over time quota, at SM {found[0]:g} %", found[1])
        most = "The most that one instance serves with at most this share. Dots: the best of all batches."
        add("Throughput over device share", profile_charts.throughput(cells, latency_ms, width), most)
        device = profile_charts.device_against_latency(cells, latency_ms, device_ms, width)
        if device:
            busy = "Dashed: the device is busy all the time. Above it host or quota take the rest."
            add(f"Over device time, at quota {device[0]:g} %", device[1], busy)
        return charts


def ms(value: float) -> str:
    """Milliseconds with three digits that count: `0.051`, `5.12`, `51.2`, `512`, `5,120`."""
    if not np.isfinite(value):
        return ""
    if value < 1:
        return number(float(f"{value:.3g}"))
    return f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f}"


def _percent(value: float) -> str:
    return f"{value:.1f} %" if np.isfinite(value) else "unknown"


def _short(reason: str) -> str:
    return reason if len(reason) <= LONGEST_REASON else f"{reason[: LONGEST_REASON - 1]}…"
