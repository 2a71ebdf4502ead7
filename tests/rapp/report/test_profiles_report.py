"""The page of a profile table: self-contained, every figure from the right row, small enough."""

from __future__ import annotations

import datetime
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest

from rapp.profiles import ProfileTable
from rapp.profiles.cells import cells
from rapp.profiles.summary import chosen, summarise
from rapp.report import profile_charts
from rapp.report.profiles import profiles_html

VOID = frozenset({"meta", "br", "circle", "path", "rect"})


class _Page(HTMLParser):
    """Attributes, text and table rows of a page, and whether its elements are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID or tag == "path":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID or tag == "path":
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data.strip()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def checked(table: ProfileTable) -> tuple[str, _Page]:
    """The page, once it needs nothing from elsewhere and its elements and links are whole."""
    html = profiles_html(table, summarise(table))
    page = _Page(html)
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "img", "object")
        assert not {"src", "srcset", "action"} & set(attributes)
        target = attributes.get("href")
        assert target is None or (target[0] == "#" and target[1:] in ids)
    assert not re.search(r"url\(|@import", html)
    for svg in re.findall(r"<svg.*?</svg>", html, re.S):
        ET.fromstring(svg)
    return html, page


def test_cells_tell_their_latency_or_why_there_is_none(campaign):
    html, page = checked(campaign(("alpha",)))
    titles = re.findall(r"<title>(.*?)</title>", html)
    for told in (
        "SM 100 %, quota 100 %: 8.00 ms, median 7.92 to 8.16",
        "SM 25 %, quota 20 %: 160 ms, derived",
        "SM 25 %, quota 100 %: failed: out of memory: 96 MiB short",
        "SM 25 %, quota 50 %: skipped: quota 100 % ended with: out of memory: 96 MiB short",
        "SM 50 %, quota 20 %: no row",
        "SM 100 %, quota 100 %: 1.5 %",
    ):
        assert titles.count(told) >= 1, told
    maps = [svg for svg in re.findall(r"<svg.*?</svg>", html, re.S) if "Latency of alpha at batch" in svg]
    assert len(maps) == 2
    assert sum(svg.count("<title>") for svg in maps) == 18
    assert "runs/a.parquet" in page.text
    assert "someone" not in html


def test_figures_of_the_head_and_the_tables(campaign):
    _, page = checked(campaign())
    assert "A100 · ort-cuda · fp16 · gpu_time" in page.text
    assert "points with a latency 28 78 % of 36 in the grid" in page.text
    assert "of them derived 18" in page.text
    assert "without a latency 6 2 failed, 4 skipped" in page.text
    assert "noise 1.5 % half-width of the median's interval" in page.text
    rows = {row[0]: row for row in page.rows if row[0] in ("alpha", "beta")}
    assert rows["beta"][:-1] == ["beta", "14 of 18", "9", "1", "2", "8.00", "640", "1.5 %"]
    ended = [row for row in page.rows if row[0] in ("failed", "skipped", "no row")]
    assert [row[:2] for row in ended] == [["failed", "2"], ["skipped", "4"], ["no row", "1"], ["no row", "1"]]
    assert ended[0][2:] == [
        "out of memory96 MiB short",
        "alpha, beta",
        "SM 25 %, quota 100 %, batch 8",
    ]


def test_drift_is_told_and_marked(campaign):
    start = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
    unknown = dict.fromkeys(("median_ms", "median_low_ms", "median_high_ms"))
    fixed = campaign(("net",)).arrow.to_pylist()[-1] | {"anchor": True} | unknown
    for factor, marked in ((1.01, False), (1.05, True)):
        anchors = [
            fixed | {"latency_ms": 10 * f, "started_at": start.replace(hour=hour)}
            for hour, f in ((9, 1.0), (10, factor))
        ]
        table = ProfileTable.concat([campaign(("net",)), ProfileTable.from_rows(anchors)])
        html, page = checked(table)
        assert f"drift of anchors {100 * factor - 100:.1f}" in page.text
        assert ("latency moved while the campaign ran" in page.text) == marked
        assert ('class="tile bad"' in html) == marked
        assert f"10.0 → {10 * factor:.1f}" in page.text


def test_a_cpu_campaign_of_four_points(campaign):
    rows = [
        row for row in campaign(("net",)).arrow.to_pylist() if row["sm_pct"] > 25 and row["quota_pct"] > 20
    ]
    html, page = checked(
        ProfileTable.from_rows(row | {"runtime": "ort-cpu"} for row in rows if row["batch"] == 1)
    )
    assert "100 % of 4 in the grid" in page.text
    assert "no row" not in page.text
    assert len(html) < 40_000


def test_settings_are_kept_apart(campaign):
    other = ProfileTable.from_rows(
        row | {"runtime": "ort-cpu"} for row in campaign(("alpha",)).arrow.to_pylist()
    )
    html, page = checked(ProfileTable.concat([campaign(), other]))
    assert page.text.count("Maps and curves") == 2
    assert html.count("Latency of alpha at batch 1") == 2
    assert html.count("Latency of beta at batch 1") == 1


def test_tables_without_a_latency_or_without_rows(campaign):
    failed = [row for row in campaign(("net",)).arrow.to_pylist() if row["status"] != "ok"]
    _, page = checked(ProfileTable.from_rows(failed))
    assert "No point has a latency." in page.text
    _, page = checked(ProfileTable.from_rows([]))
    assert "The table has no points." in page.text


def test_texts_are_escaped(campaign):
    bad = '<script>alert("x")</script>'
    names = ("network", "device", "campaign_id", "device_uuid")
    rows = [
        row | dict.fromkeys(names, bad) | {"software": json.dumps({bad: bad})}
        for row in campaign(("a",)).arrow.to_pylist()
    ]
    for row in rows:
        if row["reason"]:
            row["reason"] = f"{bad}: {bad}"
    html, _ = checked(ProfileTable.from_rows(rows, bad))
    assert html.count("<script>") == 2  # the page's own: sorting and unfolding
    assert "<title>SM 25 %, quota 100 %: failed: &lt;script&gt;" in html


def test_a_large_page_stays_small():
    """Two networks of 800 points with intervals, beyond the limit of texts: 57 would have under 6 MB."""
    axes = [
        np.array(a, float).ravel() for a in np.meshgrid(range(5, 101, 5), range(10, 101, 10), (1, 2, 4, 8))
    ]
    noise = np.random.default_rng(0).lognormal(0, 0.03, axes[0].size)
    rows = [
        {"network": name, "device": "A100", "runtime": "ort-cuda", "precision": "fp16",
         "quota_kind": "gpu_time", "sm_pct": sm, "quota_pct": quota, "batch": int(batch), "latency_ms": ms,
         "median_ms": ms, "median_low_ms": 0.99 * ms, "median_high_ms": 1.01 * ms, "device_ms": 0.9 * ms,
         "derived": False, "status": "ok", "campaign_id": "c", "anchor": False}
        for name in ("first", "second")
        for sm, quota, batch, ms in zip(*axes, 1e5 * axes[2] / axes[0] / axes[1] * noise, strict=True)
    ]  # fmt: skip
    table = ProfileTable.from_rows(rows)
    one, two = (_large(chosen(table, names)) for names in (["first"], ["first", "second"]))
    assert 57 * (len(two) - len(one)) + len(one) < 6_000_000
    assert len(one) < len(profiles_html(chosen(table, ["first"]), summarise(chosen(table, ["first"]))))


def _large(table: ProfileTable) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rapp.report.profiles.MOST_HOVER", 0)
        return profiles_html(table, summarise(table))


def test_throughput_has_the_best_of_each_share(campaign):
    table = campaign(("net",))
    (one,) = cells(table)
    svg = profile_charts.throughput(one, one.values(table.column("latency_ms")))
    titles = re.findall(r"<title>(.*?)</title>", svg)
    # 1000 batch / latency is 125 x SM x quota for every batch, so that each share of its own is a step.
    assert "1 of the device (SM 100 %, quota 100 %, batch 1): 125 requests/s" in titles
    shares = sorted(float(title.split()[0]) for title in titles)
    assert shares == [0.05, 0.1, 0.125, 0.2, 0.25, 0.5, 1]


def test_curves_are_at_the_largest_quota_and_partition(campaign):
    table = campaign(("net",))
    (one,) = cells(table)
    latency_ms = one.values(table.column("latency_ms"))
    quota, over_sm = profile_charts.over_sm(one, latency_ms) or (0, "")
    sm, over_quota = profile_charts.over_quota(one, latency_ms) or (0, "")
    assert (quota, sm) == (100, 100)
    lines = [re.findall(r'class="line b\d" d="M([^"]*)"', svg) for svg in (over_sm, over_quota)]
    assert [[line.count("L") + 1 for line in own] for own in lines] == [[3, 2], [3, 3]]
    assert over_sm.count("hole") == 0
    assert over_quota.count("hole") == 2
    (alone,) = cells(table.filter(sm_pct=100.0, quota_pct=100.0))
    assert profile_charts.over_sm(alone, np.full((1, 1, 2), 8.0)) is None
