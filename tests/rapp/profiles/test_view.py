"""What the terminal tells of a campaign of our own profiler, and that every table can be shown."""

from __future__ import annotations

import datetime
import io
import json
import re
import xml.etree.ElementTree as ET
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from rapp.profiles import ProfileTable
from rapp.profiles.cells import cells
from rapp.profiles.summary import settings as settings_of
from rapp.profiles.summary import summarise, summary_json
from rapp.profiles.view import MOST_CAMPAIGNS, print_summaries
from rapp.report.profiles import profiles_html
from rapp.report.terminal import print_latency_map

START = datetime.datetime(2026, 3, 1, 9, 0, tzinfo=datetime.UTC)


def shown(table: ProfileTable, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_summaries(table, summarise(table), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    return text


def as_json(table: ProfileTable) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(summary_json(table, summarise(table)), allow_nan=False))
    return content


def flat(text: str) -> str:
    return " ".join(text.split())


def test_a_campaign_is_told(row):
    told = {"onnxruntime": "1.20.1", "derived_error_pct": 1.5}
    software, derived = json.dumps(told | {"rejected_blocks": {"throttled": 2}}), json.dumps(told)
    measured = {"median_ms": 10.0, "median_low_ms": 9.9, "median_high_ms": 10.1, "software": software}
    failed = {"status": "failed", "latency_ms": None, "reason": "out of memory: 96 MiB short"}
    rows = [
        row(sm_pct=25.0, window_ms=40.0, idle_ms=0.0, started_at=START, converged=False, **measured),
        row(sm_pct=50.0, window_ms=40.0, idle_ms=0.0, **measured),
        row(sm_pct=25.0, quota_pct=50.0, derived=True, software=derived),
        row(sm_pct=50.0, quota_pct=50.0, **failed),
        *(row(anchor=True, latency_ms=10 + 0.2 * k, started_at=START.replace(minute=k)) for k in range(3)),
    ]
    text = flat(shown(ProfileTable.from_rows(rows)))
    assert "noise 1.0 %, half-width of the median's confidence interval / median" in text
    assert "campaign c1" in text
    assert "2026-03-01 09:00 to 09:02 UTC" in text
    assert "window 40 ms, idle 0 ms" in text
    assert "onnxruntime 1.20.1" in text
    assert "2 rows measured (180 samples each, median), 1 derived, 1 failed" in text
    assert "not converged: 1 of the rows measured" in text
    assert "drift 4.0 % (net), above 3 %" in text
    assert "blocks rejected: throttled 4" in text
    assert "derived points: 1.5 % off where they were measured, mean" in text
    assert "1 of 3 points are derived" in text
    assert "net: 1 point failed: out of memory (SM 50 %, quota 50 %, batch 1): 96 MiB short" in text
    assert "missing" not in text
    assert "complete" not in text


def test_what_ended_alike_everywhere_is_one_line(row):
    rows = [row(network=f"n{k}", sm_pct=50.0) for k in range(5)]
    skipped = {"status": "skipped", "latency_ms": None, "reason": "no whole number of cores"}
    rows += [row(network=f"n{k}", sm_pct=30.0, **skipped) for k in range(5)]
    text = flat(shown(ProfileTable.from_rows(rows)))
    assert "every network: 1 point skipped: no whole number of cores (SM 30 %" in text
    text = flat(shown(ProfileTable.from_rows(rows[:-1])))
    assert "n0, n1, n2 and 1 more: 1 point skipped" in text
    assert "n4: 1 of 2 points missing (SM 30 %" in text


def test_many_campaigns_are_counted(row):
    drift = json.dumps({"anchor_drift_pct": 5})
    count = MOST_CAMPAIGNS + 3
    rows = [row(campaign_id=f"c{k}", software=drift) for k in range(count)]
    text = flat(shown(ProfileTable.from_rows(rows)))
    assert "3 more, 3 of them with drift; --json has them all" in text
    (setting,) = as_json(ProfileTable.from_rows(rows))["settings"]
    assert [one["campaign_id"] for one in setting["campaigns"]] == [f"c{k}" for k in range(count)]


def test_the_json_tells_of_campaigns_and_endings(row):
    rows = [
        row(derived=True),
        row(batch=2, status="skipped", latency_ms=None, reason="time-out: 30 s"),
        row(anchor=True, started_at=START),
    ]
    (setting,) = as_json(ProfileTable.from_rows(rows))["settings"]
    (one,) = setting["networks"]
    assert (one["measured"], one["derived"], one["failed"], one["skipped"]) == (1, 1, 0, 1)
    assert one["endings"] == [{"status": "skipped", "reason": "time-out", "points": 1}]
    (campaign,) = setting["campaigns"]
    assert (campaign["first"], campaign["drifted"]) == ("2026-03-01T09:00:00+00:00", False)
    assert campaign["anchors"][0]["latency_ms"] == [10.0]


@settings(max_examples=12)
@given(data=st.data())
def test_any_table_can_be_shown(valid_rows, data):
    table = ProfileTable.from_rows(data.draw(valid_rows))
    summaries = summarise(table)
    console = Console(file=io.StringIO(), width=80)
    print_summaries(table, summaries, console)
    json.dumps(summary_json(table, summaries), allow_nan=False)
    for colour in (None, "truecolor"):
        console = Console(file=io.StringIO(), width=80, color_system=colour, force_terminal=bool(colour))
        for _, rows in settings_of(table):
            for one in cells(rows):
                print_latency_map(console, one, one.values(rows.column("latency_ms")))
    for svg in re.findall(r"<svg.*?</svg>", profiles_html(table, summaries), re.S):
        ET.fromstring(svg)
        assert not re.search(
            r'"[^"]*(nan|inf)[^"]*"', re.sub(r'aria-label="[^"]*"|<title>.*?</title>', "", svg)
        )
