"""Maps and their scales: every cell in its place and colour, and valid whatever the grid."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapp.report.axis import linear, logarithmic
from rapp.report.heatmap import ACROSS, heat_map, legend
from rapp.report.scale import STEPS, Scale, latency_scale, noise_scale, thinned


def texts(svg: str) -> dict[str, tuple[str, str]]:
    """Class and path of each cell, by its text."""
    found = {}
    for group in ET.fromstring(svg).iter("g"):
        for path in group.findall("path"):
            title = path.find("title")
            if title is not None:
                found[title.text or ""] = (group.get("class", ""), path.get("d", ""))
    return found


def test_a_scale_has_even_steps_of_the_logarithm():
    scale = latency_scale([1.0, 1024.0, np.nan])
    assert scale.edges() == pytest.approx(2.0 ** np.arange(11))
    assert scale.step([1.0, 1.9, 2.1, 1000.0, 1024.0]).tolist() == [0, 0, 1, 9, 9]
    assert scale.step([[np.nan, 0.5], [5000.0, 33.0]]).tolist() == [[-1, 0], [9, 5]]


def test_latencies_that_are_alike_do_not_fill_the_scale():
    scale = latency_scale([10.0, 10.1])
    assert scale.axis.high / scale.axis.low == pytest.approx(1.25)
    first, second = scale.step([10.0, 10.1])
    assert 3 <= first <= second <= 6


def test_noise_has_a_scale_from_zero_that_few_points_leave():
    relative = np.append(np.linspace(0, 0.05, 99), 0.9)
    scale = noise_scale(relative, "noise, %")
    assert scale.axis.low == 0
    assert 4.5 < scale.axis.high < 6
    assert scale.step(90.0) == STEPS - 1
    assert noise_scale([0.02, 0.02], "noise, %").step(2.0) == 5
    assert noise_scale([0.0], "noise, %").axis.high > 0


@given(st.floats(1e-2, 1e4), st.floats(1.3, 1e5), st.floats(0.02, 0.4))
def test_ticks_are_thinned_to_their_distance(low, factor, least):
    for axis in (linear(low, low * factor, "x"), logarithmic(low, low * factor, "x")):
        kept = thinned(axis, least)
        assert 1 <= len(kept.ticks) <= len(axis.ticks)
        assert set(kept.ticks) <= set(axis.ticks)
        assert (np.diff(kept.place(kept.ticks)) >= least).all()


def test_powers_of_ten_stay():
    assert thinned(logarithmic(1, 1000, "x"), 0.2).ticks == (1, 10, 100, 1000)


def test_cells_lie_where_their_values_are():
    step = np.array([[0, 3], [-1, 9]])
    about = [["left low", "left high"], ["right low", "right high"]]
    svg = heat_map([25, 100], [10, 100], step, title="t", palette="h", about=about)
    assert texts(svg) == {
        "left low": ("h0", "M0 0h1v1H0z"),
        "left high": ("h3", "M0 1h1v1H0z"),
        "right low": ("none", "M1 0h1v1H1z"),
        "right high": ("h9", "M1 1h1v1H1z"),
    }
    # The origin is at the bottom left, rows go up, and two columns share the room.
    (transform,) = re.findall(r'transform="translate\(38 72\) scale\((\d+) -(\d+)\)"', svg)
    assert transform == (str(ACROSS // 2), "34")


def test_values_are_written_where_there_is_room():
    step = np.zeros((2, 2), dtype=np.int64)
    step[1, 1] = -1
    figures = [["a1", "a2"], ["b1", "b2"]]
    shown = heat_map([50, 100], [50, 100], step, title="t", palette="h", figures=figures)
    assert [text for text in ("a1", "a2", "b1", "b2") if f">{text}<" in shown] == ["a1", "a2", "b1"]
    narrow = heat_map(range(5, 105, 5), [50, 100], np.zeros((20, 2), int), title="t", palette="h",
                      figures=[["value"] * 2] * 20)  # fmt: skip
    assert "value" not in narrow


def test_failed_skipped_missing_and_derived_are_told_apart():
    step = np.array([[-1], [-1], [-1], [2], [7]])
    masks = {name: np.arange(5)[:, None] == k for k, name in enumerate(("failed", "skipped", "missing"))}
    dotted = np.array([[False]] * 3 + [[True]] * 2)
    svg = heat_map([1, 2, 3, 4, 5], [100], step, title="t", palette="h", hatched=masks, dotted=dotted)
    paths = [path for path in ET.fromstring(svg).iter("path") if "hatch" in path.get("class", "")]
    assert [path.get("class") for path in paths] == ["hatch failed", "hatch skipped", "hatch missing"]
    left = [int(re.match(r"M(\d+)", path.get("d", ""))[1]) for path in paths]  # type: ignore[index]
    assert np.diff(left).tolist() == [48, 48]
    assert len({path.get("d", "").count("l") for path in paths}) == 3
    # A dot on a bright cell is dark, and bright on a dark one.
    assert svg.count('class="derived on-low"') == svg.count('class="derived on-high"') == 1


@settings(deadline=None)
@given(
    st.lists(st.floats(0.5, 100), min_size=1, max_size=130, unique=True),
    st.lists(st.floats(0.5, 100), min_size=1, max_size=70, unique=True),
)
def test_a_map_of_any_grid_is_valid_and_has_readable_ticks(columns, rows):
    step = np.full((len(columns), len(rows)), 4)
    svg = heat_map(sorted(columns), sorted(rows), step, title='<&"', palette="n")
    root = ET.fromstring(svg)
    assert root.get("aria-label") == '<&"'
    ticks = [text for text in root.iter("text") if text.get("class") is None]
    places = [float(text.get("x", "")) for text in ticks]
    assert all(before - after >= 24 for before, after in pairwise(places))


def test_a_legend_has_every_colour_and_its_ends():
    svg = legend(Scale(logarithmic(1, 1000, "latency, ms")), "h")
    root = ET.fromstring(svg)
    assert [p.get("class") for p in root.iter("path")][:STEPS] == [f"h{k}" for k in range(STEPS)]
    shown = [text.text for text in root.iter("text")]
    assert shown[0] == "1"
    assert shown[-1] == "1,000"
    assert "and more" in legend(noise_scale([0.01], "noise, %"), "n", beyond=True)
