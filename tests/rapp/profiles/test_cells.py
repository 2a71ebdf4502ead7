"""Which row stands for a configuration, and what became of points without a latency."""

from __future__ import annotations

import datetime

import numpy as np
import pytest

from rapp.profiles import ProfileTable
from rapp.profiles.cells import State, cells
from rapp.profiles.endings import endings, shared
from rapp.types import ResourceConfig, ResourceGrid

FAILED = {"status": "failed", "latency_ms": None}


def _at(minute: int) -> datetime.datetime:
    return datetime.datetime(2026, 3, 1, 9, minute, tzinfo=datetime.UTC)


def test_cells_are_the_rows_in_their_places(grid_rows):
    rows = grid_rows()
    table = ProfileTable.from_rows(rows[::-1])
    first, second = cells(table)
    assert (first.network, second.network) == ("resnet18", "vgg11")
    assert first.grid == ResourceGrid([25.0, 50.0, 75.0, 100.0], [50.0, 100.0], [1, 8])
    assert first.state.tolist() == np.full((4, 2, 2), State.MEASURED).tolist()
    latency_ms = second.values(table.column("latency_ms"))
    for row in rows:
        if row["network"] == "vgg11":
            place = [25, 50, 75, 100].index(row["sm_pct"]), [50, 100].index(row["quota_pct"])
            assert latency_ms[(*place, [1, 8].index(row["batch"]))] == row["latency_ms"]


def test_what_has_no_row_is_missing(grid_rows):
    rows = grid_rows(networks=("net",))
    table = ProfileTable.from_rows(rows[1:])
    (one,) = cells(table)
    assert one.state[0, 0, 0] == State.MISSING
    assert one.known.sum() == 15
    assert np.isnan(one.values(table.column("latency_ms"))).sum() == 1


@pytest.mark.parametrize("turned", [False, True])
def test_measured_comes_before_derived_and_the_latest_before_others(row, turned):
    rows = [
        row(latency_ms=1.0, campaign_id="a", started_at=_at(1)),
        row(latency_ms=2.0, campaign_id="b", started_at=_at(3)),
        row(latency_ms=3.0, campaign_id="c", started_at=_at(2)),
        row(latency_ms=4.0, campaign_id="d", started_at=None),
        row(latency_ms=5.0, campaign_id="e", started_at=_at(9), derived=True),
        row(campaign_id="f", started_at=_at(10), reason="out of memory", **FAILED),
        row(latency_ms=6.0, campaign_id="g", started_at=_at(11), anchor=True),
    ]
    table = ProfileTable.from_rows(rows[::-1] if turned else rows)
    (one,) = cells(table)
    assert one.state.tolist() == [[[State.MEASURED]]]
    assert one.values(table.column("latency_ms")).tolist() == [[[2.0]]]
    assert one.repeated == 1


def test_without_a_latency_a_failure_is_shown_before_what_was_skipped(row):
    rows = [
        row(campaign_id="a", reason="tried", **FAILED),
        row(campaign_id="b", reason="left out", **(FAILED | {"status": "skipped"})),
    ]
    table = ProfileTable.from_rows(rows)
    (one,) = cells(table)
    assert one.state.tolist() == [[[State.FAILED]]]
    assert table.column("reason")[one.row].tolist() == [[["tried"]]]
    assert (one.repeated, one.known.any()) == (0, False)


def test_endings_are_gathered_by_what_their_reasons_share(row):
    rows = [
        *(row(batch=b, reason=f"out of memory: {b} MiB short", **FAILED) for b in (4, 8)),
        row(batch=16, **FAILED, reason="batch 4 ended with: out of memory: 4 MiB short"),
        row(batch=1, campaign_id="first", reason="worker crashed: signal 11", **FAILED),
        row(batch=1, campaign_id="second"),
        row(batch=2, anchor=True, reason="time-out: 30 s", **FAILED),
        row(sm_pct=30.0, **(FAILED | {"status": "skipped"}), reason="30 % of 4 cores is no whole number"),
    ]
    memory, after, cores = endings(ProfileTable.from_rows(rows))
    assert (memory.status, memory.reason, memory.detail) == ("failed", "out of memory", "4 MiB short")
    assert memory.details == 2
    assert memory.configs == (ResourceConfig(50, 100, 4), ResourceConfig(50, 100, 8))
    assert memory.describe() == "2 points failed: out of memory (SM 50 %, quota 100 %, batch 4 8)"
    assert (after.reason, after.detail) == ("batch 4 ended with: out of memory", "4 MiB short")
    assert (cores.status, cores.reason, cores.detail) == (
        "skipped", "30 % of 4 cores is no whole number", "",
    )  # fmt: skip


def test_the_same_ending_of_several_networks_is_told_once(row):
    rows = [
        row(network=n, sm_pct=sm, reason=f"unsupported: {n}", **FAILED)
        for n, sms in (("a", (10.0, 20.0)), ("b", (20.0, 10.0)), ("c", (10.0,)))
        for sm in sms
    ]
    found = shared(endings(ProfileTable.from_rows(rows)))
    told = [(names, len(ending.configs), ending.details) for names, ending in found]
    assert told == [(("a", "b"), 2, 2), (("c",), 1, 1)]
