"""How the GPUs were packed over time: a lane a GPU, where area is GPU-seconds.

A row, pale, is as high as its SM partition. An instance in it is as high as its quota is of that, so that
what is pale or empty is what nobody paid for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from rapp.report.axis import Axis
from rapp.report.svg import Plot
from scaler.replay.account import Allotment
from scaler.replay.report_charts import Clock

MOST_MOMENTS = 240
"""Moments at which the packing is looked at; what is the same at the next one is one box."""

LANE = 96
"""Height of a GPU's lane, user units."""


class Box(NamedTuple):
    """An instance, or with None a row, on the picture: from when to when, s; between which heights, % of the
    GPU."""

    one: Allotment | None
    from_s: float
    to_s: float
    low: float
    high: float


def packing_chart(
    allotments: Sequence[Allotment],
    gpus: Sequence[str],
    functions: Sequence[str],
    clock: Clock,
    lost_s: Mapping[str, float],
) -> str:
    """The picture; functions have a colour each, by their place.

    Args:
        lost_s: by GPU that was lost: when, s.
    """
    y = Axis(0.0, 100.0 * len(gpus), "GPUs", ())
    plot = _Picture(
        clock.axis, y, title="Packing of the GPUs over time", width=1060, height=LANE * len(gpus) + 60
    )
    colour = {name: number % 8 for number, name in enumerate(functions)}
    for lane, gpu in enumerate(gpus):
        # The first GPU is on top.
        floor = 100.0 * (len(gpus) - 1 - lane)
        own = [one for one in allotments if one.gpu == gpu]
        # A row before what is in it.
        for box in sorted(_boxes(own, clock.end_s), key=lambda box: (box.one is not None, box.from_s)):
            plot.box(box, floor, clock, 0 if box.one is None else colour[box.one.function])
        plot.line([0, clock.axis.high], [floor, floor], "grid")
        if gpu in lost_s:
            plot.lost(lost_s[gpu], floor, clock)
        plot.text(0, floor + 100, gpu, style="name", dx=6, dy=13)
    return plot.svg()


class _Picture(Plot):
    """A plot with boxes of several colours."""

    def box(self, box: Box, floor: float, clock: Clock, colour: int) -> None:
        """A row, or an instance with its configuration under the pointer."""
        path = self._rectangle(box.from_s, box.to_s, floor + box.low, floor + box.high, clock)
        if box.one is None:
            self._marks.append(f'<path class="lane" d="{path}"/>')
            return
        config = box.one.config
        about = f"SM {config.sm_pct:g} %, quota {config.quota_pct:.4g} %, batch {config.batch}"
        title = f"<title>{escape(box.one.instance)}: {about}</title>"
        self._marks.append(f'<path class="box p{colour}" d="{path}">{title}</path>')

    def lost(self, at_s: float, floor: float, clock: Clock) -> None:
        """From here on the GPU is not there."""
        path = self._rectangle(at_s, clock.end_s, floor, floor + 100, clock)
        self._marks.append(f'<path class="lost" d="{path}"/>')
        self.text(at_s / clock.seconds, floor + 50, "lost", style="name", dx=8, dy=4)

    def _rectangle(self, from_s: float, to_s: float, low: float, high: float, clock: Clock) -> str:
        ends = [from_s / clock.seconds, to_s / clock.seconds]
        (left, bottom), (right, top) = self._at(ends, [low, high])
        return f"M{left:.1f} {bottom:.1f}H{right:.1f}V{top:.1f}H{left:.1f}Z"


def _boxes(allotments: Sequence[Allotment], end_s: float) -> Iterable[Box]:
    """The boxes of one GPU."""
    step_s = end_s / MOST_MOMENTS
    drawn: dict[str, Box] = {}
    starts = sorted(allotments, key=lambda one: one.from_s)
    coming = 0
    there: list[Allotment] = []
    for moment in range(MOST_MOMENTS):
        now_s = (moment + 0.5) * step_s
        while coming < len(starts) and starts[coming].from_s <= now_s:
            there.append(starts[coming])
            coming += 1
        there = [one for one in there if one.to_s > now_s]
        placed = {name: Box(one, now_s, now_s, low, high) for name, one, low, high in _stacked(there)}
        for name, box in list(drawn.items()):
            if name not in placed or not _alike(placed[name], box):
                yield drawn.pop(name)
        for name, box in placed.items():
            first_s = drawn[name].from_s if name in drawn else moment * step_s
            drawn[name] = box._replace(from_s=first_s, to_s=(moment + 1) * step_s)
    yield from drawn.values()


def _alike(box: Box, other: Box) -> bool:
    return (box.one, box.low, box.high) == (other.one, other.low, other.high)


def _stacked(there: Sequence[Allotment]) -> Iterable[tuple[str, Allotment | None, float, float]]:
    """Rows on top of each other, in each its instances: a name, and between which heights, % of the GPU."""
    floor = 0.0
    for row in sorted({one.row for one in there}):
        own = sorted((one for one in there if one.row == row), key=lambda one: one.instance)
        low = floor
        for one in own:
            high = low + one.config.sm_pct * one.config.quota_pct / 100
            yield one.instance, one, low, high
            low = high
        yield f"row {row}", None, floor, floor + own[0].config.sm_pct
        floor += own[0].config.sm_pct
