"""Adaptive campaigns with rules that a test can foresee."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from profiler.campaign import Brake, Campaign, Halt, Watcher
from profiler.device import Failure, NetworkFile
from profiler.growing import anchored_only, run_adaptively
from profiler.journal import Journal
from profiler.measure import StopRule
from profiler.outcome import Outcome
from profiler.plan import plan_network
from profiler.specification import specify
from rapp.profiles import ProfileTable
from rapp.types import MeasuredPoint, ResourceConfig, ResourceGrid

NET = NetworkFile("net", None, "h")
GRID = ResourceGrid((25, 50, 75, 100), (50, 100), (1, 2, 4))
Scripted = Callable[..., Any]


@dataclass
class Slowest:
    """Asks for the neighbour of the slowest point so far; enough after `most` points."""

    most: int
    asked: list[ResourceConfig] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)

    def next_point(
        self, measured: Sequence[MeasuredPoint], candidates: Sequence[ResourceConfig]
    ) -> ResourceConfig | None:
        self.seen.append(len(measured))
        if len(measured) >= self.most:
            return None
        centre = max(measured, key=lambda point: point.latency_ms).config if measured else candidates[0]
        choice = min(candidates, key=lambda c: (abs(c.sm_pct - centre.sm_pct), c.batch, c.quota_pct))
        self.asked.append(choice)
        return choice


class Stop(Watcher):
    def __init__(self, brake: Brake, after: int) -> None:
        self.brake, self.left = brake, after

    def ended(self, outcome: Outcome) -> None:
        self.left -= 1
        if self.left == 0:
            self.brake.pull(Halt.INTERRUPTED)


def ran(
    device: Any, out: Path, rule: StopRule, points: Any, most: int = 100, stop_after: int = -1
) -> Halt | None:
    plan = plan_network(NET, GRID)
    brake = Brake()
    with Journal.open(out, specify([NET], GRID, device.info, rule)) as journal:
        campaign = Campaign(
            device.info, [anchored_only(plan)], journal, rule, brake=brake, watcher=Stop(brake, stop_after)
        )
        halt = run_adaptively(campaign, [plan], device, lambda _: points, most)
        campaign.write(out)
    return halt


def chosen(out: Path) -> list[tuple[float, float, int]]:
    rows = ProfileTable.read(out).filter(anchor=False).arrow.to_pylist()
    return [(row["sm_pct"], row["quota_pct"], row["batch"]) for row in rows]


def test_the_table_has_the_points_that_the_rule_asked_for(
    scripted: Scripted, quick: StopRule, tmp_path: Path
) -> None:
    points = Slowest(most=7)
    device = scripted()
    assert ran(device, tmp_path / "t.parquet", quick, points, most=10) is None
    assert chosen(tmp_path / "t.parquet") == [(c.sm_pct, c.quota_pct, c.batch) for c in points.asked]
    assert points.seen == list(range(8))
    table = ProfileTable.read(tmp_path / "t.parquet")
    assert len(table.filter(anchor=True)) == 3


def test_a_session_is_kept_while_the_partition_stays(
    scripted: Scripted, quick: StopRule, tmp_path: Path
) -> None:
    points, device = Slowest(most=5), scripted()
    ran(device, tmp_path / "t.parquet", quick, points)
    changes = sum(a.sm_pct != b.sm_pct for a, b in zip(points.asked, points.asked[1:], strict=False))
    assert len(device.opened) == 2 + 1 + changes, "two anchors (the middle never came), one, and each change"


@pytest.mark.parametrize("stop_after", range(1, 10))
def test_interrupted_anywhere_it_goes_on_as_it_would_have(
    scripted: Scripted, quick: StopRule, tmp_path: Path, stop_after: int
) -> None:
    ran(scripted(), tmp_path / "whole.parquet", quick, Slowest(most=7), most=8)
    out = tmp_path / "t.parquet"
    assert ran(scripted(), out, quick, Slowest(most=7), most=8, stop_after=stop_after) == Halt.INTERRUPTED
    device = scripted()
    assert ran(device, out, quick, Slowest(most=7), most=8) is None
    assert chosen(out) == chosen(tmp_path / "whole.parquet")
    again = scripted()
    assert ran(again, out, quick, Slowest(most=7), most=8) is None
    assert again.opened == []


def test_it_ends_at_the_most_points_or_without_candidates(
    scripted: Scripted, quick: StopRule, tmp_path: Path
) -> None:
    assert ran(scripted(), tmp_path / "few.parquet", quick, Slowest(most=99), most=4) is None
    assert len(chosen(tmp_path / "few.parquet")) == 4
    assert ran(scripted(), tmp_path / "all.parquet", quick, Slowest(most=99)) is None
    assert len(set(chosen(tmp_path / "all.parquet"))) == len(GRID)


def test_what_is_known_to_fail_is_no_candidate(scripted: Scripted, quick: StopRule, tmp_path: Path) -> None:
    def fails(stage: str, _: str, sm: float, batch: int | None, quota: float | None) -> Failure | None:
        return Failure.OUT_OF_MEMORY if stage == "prepare" and (sm, batch) == (25, 1) else None

    points = Slowest(most=99)
    ran(scripted(fails=fails), tmp_path / "t.parquet", quick, points)
    assert len(points.asked) == len(GRID) - 5, "one of the six points at SM 25 % tells all of them"
    table = ProfileTable.read(tmp_path / "t.parquet")
    assert len(table.filter(status="failed")) == 1
