"""Maps on a terminal of 80 columns: with colour, without it, and where figures fit."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from rapp.profiles import ProfileTable
from rapp.profiles.cells import cells
from rapp.report.terminal import print_latency_map


def printed(table: ProfileTable, width: int = 80, colour: str | None = None) -> str:
    console = Console(
        file=io.StringIO(), width=width, color_system=colour, force_terminal=colour is not None,
        highlight=False, _environ={},
    )  # fmt: skip
    for one in cells(table):
        print_latency_map(console, one, one.values(table.column("latency_ms")))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    if colour is None:
        assert max(map(len, text.splitlines())) <= width
    return text


def grid(row, sms, quotas=(20.0, 100.0), batches=(1, 2, 4, 8)):
    return ProfileTable.from_rows(
        row | {"sm_pct": float(s), "quota_pct": q, "batch": b, "latency_ms": 1e4 * b / (s * q)}
        for s in sms
        for q in quotas
        for b in batches
    )


@pytest.fixture
def row():
    return {
        "network": "net", "device": "A100", "runtime": "ort-cuda", "precision": "fp16", "status": "ok",
        "quota_kind": "gpu_time", "derived": False, "campaign_id": "c1", "anchor": False,
    }  # fmt: skip


def test_few_cells_hold_their_latency(campaign):
    lines = printed(campaign(("alpha",))).splitlines()
    assert lines[0].split() == ["batch", "1", "batch", "8"]
    assert lines[1].split() == ["100", "32.0", "16.0", "8.00", "100", "fail", "128", "64.0"]
    assert lines[3].split() == ["20", "·160", "miss", "·40.0", "20", "skip", "·640", "·320"]
    assert lines[4].split() == ["25", "50", "100"] * 2
    assert "9 of 14 points are derived, marked ·" in lines[-1]


def test_many_cells_are_digits_four_maps_in_two_lines(row):
    text = printed(grid(row, range(5, 101, 5)))
    lines = text.splitlines()
    assert lines[0].split() == ["batch", "1", "batch", "2"]
    assert lines[4].split() == ["batch", "4", "batch", "8"]
    first = lines[1].split()[1]
    assert len(first) == 20
    assert list(first) == sorted(first, reverse=True)  # more SM is faster
    assert first[-1] == "0"
    assert lines[6].split()[3][0] == "9"
    assert "ms: 0 to " in text


def test_too_many_partitions_are_thinned_and_it_says_so(row):
    text = printed(grid(row, range(1, 101), batches=(1,)), width=40)
    assert len(text.splitlines()[1].split()[1]) <= 35
    assert "(one in 3 is shown)" in " ".join(text.split())


def test_in_colour_every_step_has_one_of_its_own(row):
    text = printed(grid(row, range(5, 101, 5)), colour="truecolor")
    assert "\x1b[37;48;2;68;1;84m" in text  # viridis' dark end: fast
    assert "48;2;253;231;37m" in text  # and its bright end
    assert "logarithmic" in text


def test_sixteen_colours_are_too_few(row):
    assert "ms: 0 to " in " ".join(printed(grid(row, range(5, 101, 5)), colour="standard").split())


def test_a_network_without_a_latency_says_so(row):
    failed = row | {"sm_pct": 50.0, "quota_pct": 100.0, "batch": 1, "status": "failed", "reason": "time-out"}
    assert printed(ProfileTable.from_rows([failed])) == "net: no point has a latency\n"
