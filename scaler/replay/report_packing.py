"""How the GPUs were packed over time: a lane a GPU, where area is GPU-seconds.

A row is as high as its SM partition. An instance in it is as high as its quota is of that, so that what is
empty is what nobody paid for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from rapp.report.axis import Axis
from rapp.report.svg import Plot
from scaler.replay.account import Allotment
from scaler.replay.report_charts import Clock

MOST_MOMENTS = 240
"""Moments at which the packing is looked at; what is the same at the next one is one box."""

LANE = 96
"""Height of a GPU's lane, user units."""


class Box(NamedTuple):
    """An instance on the picture: from when to when, s; from which height to which, % of the GPU."""

    one: Allotment
    from_s: float
    to_s: float
    low: float
    high: float


def packing_chart(
    allotments: Sequence[Allotment], gpus: Sequence[str], functions: Sequence[str], clock: Clock
) -> str:
    """The picture; functions have a colour each, by their place."""
    height = LANE * len(gpus) + 60
    ticks = np.arange(len(gpus)) * 100.0
    y = Axis(0.0, 100.0 * len(gpus), "SM × quota, a GPU a lane", tuple(ticks.tolist()))
    plot = _Picture(clock.axis, y, title="Packing of the GPUs over time", width=1060, height=height)
    colour = {name: number % 8 for number, name in enumerate(functions)}
    for lane, gpu in enumerate(gpus):
        # The first GPU is on top.
        floor = 100.0 * (len(gpus) - 1 - lane)
        own = [one for one in allotments if one.gpu == gpu]
        for box in _boxes(own, clock.end_s):
            plot.box(box, floor, clock, colour[box.one.function])
        plot.text(0, floor + 100, gpu, style="name", dx=6, dy=13)
    return plot.svg()


class _Picture(Plot):
    """A plot with boxes of several colours."""

    def box(self, box: Box, floor: float, clock: Clock, colour: int) -> None:
        """An instance, with its configuration under the pointer."""
        ends = [box.from_s / clock.seconds, box.to_s / clock.seconds]
        (left, bottom), (right, top) = self._at(ends, [floor + box.low, floor + box.high])
        config = box.one.config
        about = f"SM {config.sm_pct:g} %, quota {config.quota_pct:.4g} %, batch {config.batch}"
        self._marks.append(
            f'<path class="box p{colour}" d="M{left:.1f} {bottom:.1f}H{right:.1f}V{top:.1f}H{left:.1f}Z">'
            f"<title>{escape(f'{box.one.instance}: {about}')}</title></path>"
        )


def _boxes(allotments: Sequence[Allotment], end_s: float) -> Iterable[Box]:
    """The boxes of one GPU."""
    step_s = end_s / MOST_MOMENTS
    open_boxes: dict[str, Box] = {}
    starts = sorted(allotments, key=lambda one: one.from_s)
    coming = 0
    there: list[Allotment] = []
    for moment in range(MOST_MOMENTS):
        now_s = (moment + 0.5) * step_s
        while coming < len(starts) and starts[coming].from_s <= now_s:
            there.append(starts[coming])
            coming += 1
        there = [one for one in there if one.to_s > now_s]
        placed = {one.instance: (one, low, high) for one, low, high in _stacked(there)}
        for name, box in list(open_boxes.items()):
            now = placed.get(name)
            if now is None or now != (box.one, box.low, box.high):
                yield open_boxes.pop(name)
        for name, (one, low, high) in placed.items():
            known = open_boxes.get(name)
            first_s = moment * step_s if known is None else known.from_s
            open_boxes[name] = Box(one, first_s, (moment + 1) * step_s, low, high)
    yield from open_boxes.values()


def _stacked(there: Sequence[Allotment]) -> Iterable[tuple[Allotment, float, float]]:
    """Rows on top of each other, and in each its instances; from which height to which, % of the GPU."""
    floor = 0.0
    for row in sorted({one.row for one in there}):
        own = sorted((one for one in there if one.row == row), key=lambda one: one.instance)
        low = floor
        for one in own:
            high = low + one.config.sm_pct * one.config.quota_pct / 100
            yield one, low, high
            low = high
        floor += own[0].config.sm_pct
