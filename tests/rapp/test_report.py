"""Pages and plots: self-contained, honest about numbers, safe with any name, small."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapp.evaluation import evaluate
from rapp.evaluation.result import Evaluation, NetworkResult, ScoredRows
from rapp.evaluation.scores import score
from rapp.profiles import ProfileTable
from rapp.recommend import Objective, Risk, recommend
from rapp.report import charts
from rapp.report.axis import linear, logarithmic, number, padded_log
from rapp.report.evaluation import evaluation_html
from rapp.report.recommendation import front_svg, recommendation_html, share_svg
from rapp.report.svg import Plot
from rapp.testing import ClosedFormModel
from rapp.types import QuotaKind, ResourceGrid

MODEL = ClosedFormModel("net", work_ms=6, launch_ms=12)


class _Page(HTMLParser):
    """The tags, the text and the tables of a page, and whether its elements are closed in order."""

    VOID = frozenset({"meta", "link", "br", "img", "circle", "path", "rect"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data.strip()


def check_page(html: str) -> _Page:
    """A page that needs nothing from elsewhere, and whose elements are closed."""
    page = _Page(html)
    assert page.open == []
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "img", "object")
        assert not {"src", "href", "srcset", "action"} & set(attributes)
    assert not re.search(r"https?:|url\(|@import", html)
    for svg in re.findall(r"<svg.*?</svg>", html, re.S):
        ET.fromstring(svg)
        assert "nan" not in svg.lower()
    return page


def made(n_networks: int, n_rows: int, seed: int = 0) -> Evaluation:
    """An evaluation of random rows, each network with a bias of its own."""
    rng = np.random.default_rng(seed)
    parts, results = [], []
    for index in range(n_networks):
        measured = rng.lognormal(3, 1, n_rows)
        width = rng.uniform(0.05, 0.3, n_rows)
        mean = measured * np.exp(rng.normal(0.02 * index, 0.05, n_rows))
        part = ScoredRows(
            np.full(n_rows, f"net{index}", dtype=object), rng.choice([10.0, 50, 100], n_rows),
            rng.choice([20.0, 100], n_rows), rng.choice([1, 8], n_rows),
            np.full(n_rows, "launch_gate", object), measured, mean, mean / (1 + width), mean * (1 + width),
            np.zeros(n_rows, bool),
        )  # fmt: skip
        scores = score(part.measured_ms, part.mean_ms, part.low_ms, part.high_ms)
        results.append(NetworkResult(f"net{index}", "ab" * 32, False, scores=scores))
        parts.append(part)
    return Evaluation(
        "/home/someone/models/v100", "table.parquet", "V100", "eager", "fp32", ("launch_gate",), 5, 0,
        tuple(results), ScoredRows.concat(parts), 0,
    )  # fmt: skip


def test_the_page_of_an_evaluation_has_its_figures():
    found = made(4, 50)
    html = evaluation_html(found)
    page = check_page(html)
    text = " ".join(" ".join(page.texts).split())
    content = found.to_dict()
    for value in (content["mape_mean"], content["mape_p95"], content["coverage_90"], found.pooled.width):
        assert f"{value:.1f}" in text
    assert "models/v100" in text
    assert "someone" not in html
    every = [row for row in page.rows if len(row) == 9 and row[0] != "network"]
    assert [row[0] for row in every] == [
        one.network for one, _ in sorted(found.scored, key=lambda pair: -pair[1].mape)
    ]
    for row in every:
        scores = next(scores for one, scores in found.scored if one.network == row[0])
        assert row[2] == f"{scores.mape:.1f} %"
        assert row[6] == f"{scores.coverage:.0f} %"


def test_worst_cases_are_the_worst_and_not_of_one_network_alone():
    found = made(3, 40)
    page = check_page(evaluation_html(found))
    listed = [row for row in page.rows if len(row) == 8 and row[0] != "network"]
    assert len(listed) == 9  # three of each
    shown = [abs(float(row[7].removesuffix(" %").replace("−", "-"))) for row in listed]
    assert shown == sorted(shown, reverse=True)
    assert shown[0] == pytest.approx(np.abs(found.rows.error).max(), abs=0.05)


def test_a_large_evaluation_stays_small_and_a_tiny_one_works():
    assert len(evaluation_html(made(69, 800))) < 300_000
    check_page(evaluation_html(made(1, 1)))


def test_every_mark_of_an_evaluation_is_there(predictor, table, graphs):
    """Left out, trained on, replaced points, rows of other settings: each is said on the page."""
    measured = ProfileTable.concat(
        [
            table({"alpha": 1.2, "beta": 0.9, "gamma": 1.0}, ResourceGrid([10, 50], [50, 100], [1, 8])),
            table({"alpha": 1.0}, device="T4", campaign_id="c2"),
        ]
    )
    left_out = evaluate(predictor(["gamma"]), measured, graphs, points=2, artifact="m")
    text = " ".join(" ".join(_Page(evaluation_html(left_out)).texts).split())
    assert "Not scored: 1 of 3 networks" in text
    assert "takes its place (4 of 4 here)" in text
    assert "24 rows of the table are of another device" in text
    html = evaluation_html(evaluate(predictor(["gamma"]), measured, graphs, include_trained=True))
    assert "1 of the scored networks were in the artifact" in html
    assert html.count(">trained on<") == 1


def test_names_are_escaped():
    found = made(2, 10)
    bad = '<script>alert("x")</script>'
    found.rows.network[:10] = bad
    results = (NetworkResult(bad, "ab" * 32, False, scores=found.networks[0].scores), found.networks[1])
    spoilt = Evaluation(bad, bad, bad, bad, bad, ("launch_gate",), 0, 0, results, found.rows, 0)
    html = evaluation_html(spoilt)
    assert html.count("<script>") == 1  # the page's own
    check_page(html)
    page = recommendation_html(recommend(ClosedFormModel(bad), Objective(100, 10)), artifact=bad, device=bad)
    assert page.count("<script>") == 1
    check_page(page)


def test_the_page_of_a_recommendation_has_its_figures():
    found = recommend(MODEL, Objective(60, 100, Risk.UPPER))
    page = check_page(recommendation_html(found, artifact="/home/someone/models/v100", device="V100"))
    text = " ".join(" ".join(page.texts).split())
    assert "someone" not in text
    assert "net: 100 requests/s within 60 ms" in text
    rows = [row for row in page.rows if row[0] != "SM"]
    assert len(rows) == len(found.choices) + len(found.front)
    best = found.best
    assert rows[0][:5] == [
        f"{best.config.sm_pct:g} %", f"{best.config.quota_pct:g} %", str(best.config.batch),
        str(best.instances), f"{best.gpu_share:.2f}",
    ]  # fmt: skip
    gated = recommend(MODEL, Objective(60, 100), quota_kind=QuotaKind.LAUNCH_GATE)
    assert "no price" in recommendation_html(gated, artifact="m", device="V100")


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.floats(1, 100), min_size=1, max_size=4, unique=True),
    st.lists(st.floats(1, 100), min_size=1, max_size=3, unique=True),
    st.lists(st.integers(1, 16), min_size=1, max_size=2, unique=True),
    st.floats(0.1, 500),
)
def test_plots_of_any_grid_are_valid(sm, quota, batch, rps):
    found = recommend(MODEL, Objective(1e7, rps), ResourceGrid(sm, quota, batch))
    for svg in (front_svg(found), front_svg(found, alone=True), share_svg(found)):
        ET.fromstring(svg)
        assert "nan" not in svg
        assert "inf" not in svg


def test_the_plot_of_a_front_shows_each_of_its_points_and_the_best():
    found = recommend(MODEL, Objective(60, 100))
    root = ET.fromstring(front_svg(found, alone=True))
    circles = [one for one in root.iter() if one.tag.endswith("circle")]
    rings = [one for one in circles if one.get("class") == "ring"]
    shown = [one for one in found.front if one.request_ms < 20 * 60]
    assert len(circles) - len(rings) >= len(shown) - 1
    (ring,) = rings
    assert f"SM {found.best.config.sm_pct:g} %" in "".join(ring.itertext())
    across = {one.get("cx") for one in circles if one.get("cx") == ring.get("cx")}
    assert across  # the ring lies on a point of the front


def test_axes_place_values_and_mark_round_numbers():
    axis = linear(0, 100, "x")
    assert axis.place([0, 25, 100]).tolist() == [0, 0.25, 1]
    assert axis.ticks == (0, 20, 40, 60, 80, 100)
    log = logarithmic(1, 1000, "x")
    assert log.place([1, 10, 1000]) == pytest.approx([0, 1 / 3, 1])
    assert log.ticks == (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
    assert [number(value) for value in (0.05, 20.0, 1500.0)] == ["0.05", "20", "1,500"]
    assert padded_log([5.0, 5.0], "x").place([5.0]) == pytest.approx([0.5])


@given(st.floats(1e-3, 1e6), st.floats(1.0001, 1e6))
def test_axes_have_a_few_ticks_within_their_ends(low, factor):
    for axis in (linear(low, low * factor, "x"), logarithmic(low, low * factor, "x")):
        assert 1 <= len(axis.ticks) <= 12
        assert all(-1e-6 <= place <= 1 + 1e-6 for place in axis.place(axis.ticks))
        assert list(axis.ticks) == sorted(set(axis.ticks))


def test_a_plot_puts_points_where_they_belong():
    plot = Plot(linear(0, 10, "x"), linear(0, 10, "y"), title="t", width=166, height=154)
    plot.dots([0, 10], [0, 10], ["<a>", "b"])  # the frame is 100 x 100, from (52, 112) to (152, 12)
    root = ET.fromstring(plot.svg())
    (first, second) = root.iter("circle")
    assert (first.get("cx"), first.get("cy")) == ("58.0", "112.0")
    assert (second.get("cx"), second.get("cy")) == ("152.0", "12.0")
    assert "".join(first.itertext()) == "<a>"


def test_error_by_value_is_the_mean_of_its_rows():
    found = made(2, 60)
    svg = charts.error_by(found)["sm_pct"]
    own = np.abs(found.rows.error)[found.rows.sm_pct == 50]
    assert f"SM partition 50: mean {own.mean():.1f} %" in svg


def test_few_rows_have_each_its_interval():
    few, many = made(1, charts.FEW_DOTS), made(1, charts.FEW_DOTS + 1)
    svg = charts.predicted_against_measured(few.rows)
    assert svg.count('class="whisker"') == svg.count("<circle") == charts.FEW_DOTS
    row = few.rows
    told = f"measured {row.measured_ms[7]:,.1f} ms, predicted {row.mean_ms[7]:,.1f} ({row.low_ms[7]:,.1f} to"
    assert told in svg
    assert "<circle" not in charts.predicted_against_measured(many.rows)


def test_coverage_by_width_counts_every_row_once():
    found = made(3, 70)
    svg = charts.coverage_by_width(found.rows)
    counts = [int(text.replace(",", "")) for text in re.findall(r"<title>([\d,]+) rows", svg)]
    assert sum(counts) == 210
    assert len(counts) == charts.WIDTH_GROUPS


def test_png(tmp_path):
    pytest.importorskip("matplotlib")
    from rapp.report.png import write_front_png

    write_front_png(recommend(MODEL, Objective(60, 100)), tmp_path / "front")
    assert (tmp_path / "front").read_bytes().startswith(b"\x89PNG")
