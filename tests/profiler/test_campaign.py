"""Campaigns on a device that computes its latency: order, resuming, stopping, derived quotas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.campaign import Brake, Campaign, Halt, Watcher
from profiler.device import Failure, NetworkFile
from profiler.journal import Journal
from profiler.measure import StopRule
from profiler.outcome import Outcome, Status
from profiler.plan import NetworkPlan, Point, QuotaMode, plan_network
from profiler.specification import specify
from rapp.errors import ConfigError
from rapp.profiles import ProfileTable
from rapp.types import ResourceConfig, ResourceGrid

NETWORKS = [NetworkFile("first", None, "h1"), NetworkFile("second", None, "h2")]
GRID = ResourceGrid((25, 50, 100), (20, 60, 100), (1, 2))
Scripted = Callable[..., Any]


class KilledError(BaseException):
    """Ends the process in the eyes of a test."""


class Kill(Watcher):
    """Kills the campaign after so many outcomes."""

    def __init__(self, after: int | None = None) -> None:
        self.left = after
        self.begun: list[Point] = []

    def begin(self, point: Point) -> None:
        self.begun.append(point)

    def ended(self, outcome: Outcome) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left <= 0:
                raise KilledError


def ran(
    device: Any,
    out: Path,
    rule: StopRule,
    *,
    mode: QuotaMode = QuotaMode.MEASURE,
    watcher: Watcher | None = None,
    budget_s: float | None = None,
    grid: ResourceGrid = GRID,
    networks: Sequence[NetworkFile] = tuple(NETWORKS),
) -> tuple[Campaign, Halt | None]:
    """A run of the campaign, its table written."""
    plans = [
        plan_network(network, grid, mode=mode, why_not=lambda _, c: device.why_not(c.sm_pct))
        for network in networks
    ]
    specification = specify(networks, grid, device.info, rule, mode=mode)
    with Journal.open(out, specification) as journal:
        brake = Brake(budget_s, virtual_time=device.info.virtual_time)
        campaign = Campaign(device.info, plans, journal, rule, mode=mode, brake=brake, watcher=watcher)
        halt = campaign.run(device)
        campaign.write(out)
        return campaign, halt


def places(table: ProfileTable) -> Counter[tuple[str, float, float, int]]:
    """How often each point of the grid is in a table."""
    rows = table.filter(anchor=False).arrow.to_pylist()
    return Counter((row["network"], row["sm_pct"], row["quota_pct"], row["batch"]) for row in rows)


WANTED = Counter((n.name, c.sm_pct, c.quota_pct, c.batch) for n in NETWORKS for c in GRID)


def test_networks_come_in_order_each_with_its_anchors(
    scripted: Scripted, quick: StopRule, tmp_path: Path
) -> None:
    device, watcher = scripted(), Kill()
    _, halt = ran(device, tmp_path / "t.parquet", quick, watcher=watcher)
    assert halt is None
    assert list(dict.fromkeys(point.network for point in watcher.begun)) == ["first", "second"]
    own = [point for point in watcher.begun if point.network == "first"]
    anchors = [place for place, point in enumerate(own) if point.anchor is not None]
    assert anchors == [0, 13, 20], "two partitions of six points before the middle, one after"
    # One session each for 3 partitions and 3 anchors; the first anchor's makes the references.
    assert [name for name, _ in device.opened] == ["first"] * 6 + ["second"] * 6


def test_the_table_holds_the_truth(
    scripted: Scripted, quick: StopRule, tmp_path: Path, latency_truth: Callable[..., Any]
) -> None:
    ran(scripted(), tmp_path / "t.parquet", quick)
    table = ProfileTable.read(tmp_path / "t.parquet")
    assert places(table) == WANTED
    for row in table.filter(anchor=False).arrow.to_pylist():
        config = ResourceConfig(row["sm_pct"], row["quota_pct"], row["batch"])
        assert row["latency_ms"] == pytest.approx(latency_truth(config)[1])


@settings(max_examples=10, deadline=None)
@given(kills=st.lists(st.integers(1, 12), max_size=8))
def test_killed_anywhere_it_measures_nothing_twice_and_forgets_nothing(
    tmp_path_factory: pytest.TempPathFactory, scripted: Scripted, quick: StopRule, kills: list[int]
) -> None:
    out = tmp_path_factory.mktemp("killed") / "t.parquet"
    device = scripted()
    ended: list[Point] = []
    for after in kills:
        watcher = Kill(after)
        try:
            ran(device, out, quick, watcher=watcher)
        except KilledError:
            ended += watcher.begun
    watcher = Kill()
    campaign, halt = ran(device, out, quick, watcher=watcher)
    ended += watcher.begun
    assert halt is None
    assert max(Counter(ended).values()) == 1
    table = ProfileTable.read(out)
    assert places(table) == WANTED
    assert set(table.column("status")) == {"ok"}
    assert len(table) == len(WANTED) + 6
    assert set(table.column("campaign_id")) == {campaign.origin.campaign_id}


def test_a_complete_campaign_is_left_as_it_is(scripted: Scripted, quick: StopRule, tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    ran(scripted(), out, quick)
    before = out.stat().st_mtime_ns
    device = scripted()
    ran(device, out, quick)
    assert device.opened == []
    assert out.stat().st_mtime_ns == before
    out.unlink()
    ran(device, out, quick)
    assert device.opened == []
    assert places(ProfileTable.read(out)) == WANTED
    out.write_bytes(b"damaged")
    ran(device, out, quick)
    assert places(ProfileTable.read(out)) == WANTED


def test_a_budget_stops_between_points_and_the_rest_comes_later(
    scripted: Scripted, quick: StopRule, tmp_path: Path
) -> None:
    """The device's time is virtual, so its own seconds count."""
    out = tmp_path / "t.parquet"
    campaign, halt = ran(scripted(), out, quick, budget_s=20.0)
    assert halt == Halt.BUDGET
    spent = [outcome.seconds for outcome in campaign.outcomes.values()]
    assert sum(spent) >= 20.0 > sum(spent[:-1])
    table = ProfileTable.read(out)
    assert places(table) == WANTED
    skipped = table.filter(status="skipped")
    assert set(skipped.column("reason")) == {"not measured: budget"}
    assert 0 < len(skipped) < len(WANTED)
    _, halt = ran(scripted(), out, quick)
    assert halt is None
    assert len(ProfileTable.read(out).ok()) == len(WANTED) + 6


def test_a_budget_of_real_time_is_wall_time(scripted: Scripted, quick: StopRule, tmp_path: Path) -> None:
    device = scripted(info={"virtual_time": False})
    campaign, halt = ran(device, tmp_path / "t.parquet", quick, budget_s=0.0)
    assert halt == Halt.BUDGET
    assert campaign.outcomes == {}


def test_the_brake_stops_before_the_next_point(scripted: Scripted, quick: StopRule, tmp_path: Path) -> None:
    brake = Brake()

    class Pull(Watcher):
        def ended(self, outcome: Outcome) -> None:
            brake.pull(Halt.INTERRUPTED)

    device = scripted()
    plans = [plan_network(NETWORKS[0], GRID)]
    with Journal.open(tmp_path / "t", specify(NETWORKS[:1], GRID, device.info, quick)) as journal:
        campaign = Campaign(device.info, plans, journal, quick, brake=brake, watcher=Pull())
        assert campaign.run(device) == Halt.INTERRUPTED
        assert len(campaign.outcomes) == 1
        assert set(campaign.table().filter(status="skipped").column("reason")) == {
            "not measured: interrupted"
        }
    brake.pull(Halt.BUDGET)
    assert brake.halt == Halt.INTERRUPTED, "the first reason stands"


def test_a_partition_that_is_none_is_skipped_with_the_devices_reason(
    scripted: Scripted, quick: StopRule, tmp_path: Path
) -> None:
    device = scripted(absent={25.0: "3 cores are no quarter"})
    ran(device, tmp_path / "t.parquet", quick)
    skipped = ProfileTable.read(tmp_path / "t.parquet").filter(status="skipped")
    assert set(skipped.column("sm_pct")) == {25.0}
    assert set(skipped.column("reason")) == {"3 cores are no quarter"}
    assert len(skipped) == len(WANTED) // 3


def test_anchors_see_a_device_that_slows_down(scripted: Scripted, quick: StopRule, tmp_path: Path) -> None:
    device = scripted(factor=lambda session, _: 1.0 + 0.01 * session)
    campaign, _ = ran(device, tmp_path / "t.parquet", quick)
    drifts = [quality.drift for quality in campaign.quality().values()]
    assert drifts == [pytest.approx(1.06 / 1.01 - 1), pytest.approx(1.12 / 1.07 - 1)]


def test_a_device_that_is_gone_stops_the_campaign(
    scripted: Scripted, quick: StopRule, tmp_path: Path
) -> None:
    calls = Counter[str]()

    def fails(stage: str, *_: object) -> Failure | None:
        calls[stage] += 1
        return Failure.DEVICE if calls["open"] > 2 else None

    device = scripted(fails=fails)
    campaign, halt = ran(device, tmp_path / "t.parquet", quick)
    assert halt == Halt.DEVICE
    table = ProfileTable.read(tmp_path / "t.parquet")
    assert "not measured: the device failed" in set(table.filter(status="skipped").column("reason"))
    assert 0 < len(campaign.outcomes) < len(WANTED)
    with Journal.open(
        tmp_path / "t.parquet", specify(NETWORKS, GRID, device.info, quick), retry_failed=True
    ) as journal:
        assert {outcome.status for outcome in journal.outcomes.values()} == {Status.OK}


def derived_rows(out: Path) -> Mapping[tuple[float, float, int], float]:
    rows = ProfileTable.read(out).filter(derived=True, status="ok").arrow.to_pylist()
    return {(row["sm_pct"], row["quota_pct"], row["batch"]): row["latency_ms"] for row in rows}


def test_derived_quotas_are_what_would_have_been_measured(
    scripted: Scripted, quick: StopRule, tmp_path: Path, latency_truth: Callable[..., Any]
) -> None:
    out = tmp_path / "t.parquet"
    grid = ResourceGrid((25, 50, 100), range(10, 101, 10), (1, 2))
    device = scripted()
    campaign, _ = ran(device, out, quick, mode=QuotaMode.DERIVE, grid=grid, networks=NETWORKS[:1])
    assert sum(place[3] < 100 for place in device.measured) == 6, "two places, three quotas each"
    computed = derived_rows(out)
    assert len(computed) == len(grid) - 6 - 6
    for (sm, quota, batch), latency_ms in computed.items():
        assert latency_ms == pytest.approx(latency_truth(ResourceConfig(sm, quota, batch))[1])
    verification = campaign.quality()["first"].verification
    assert verification is not None
    assert (verification.points, verification.worst_error) == (6, pytest.approx(0, abs=1e-9))


def test_quotas_without_device_time_are_refused_at_the_first_point(
    scripted: Scripted, quick: StopRule, tmp_path: Path
) -> None:
    device = scripted(tells_device_time=False)
    with pytest.raises(ConfigError, match="use --quota-mode measure"):
        ran(device, tmp_path / "t.parquet", quick, mode=QuotaMode.DERIVE)
    assert len(device.opened) == 1
    device.close()
    assert list(tmp_path.iterdir()) == [], "nothing bars the way of the next try"


def test_work_can_be_done_elsewhere(scripted: Scripted, quick: StopRule, tmp_path: Path) -> None:
    """What a driver of many devices does: units go out in any order, outcomes come back in any order."""
    from profiler.bench import run_unit
    from profiler.outputs import References

    plans: list[NetworkPlan] = [plan_network(network, GRID) for network in NETWORKS]
    device = scripted()
    with Journal.open(tmp_path / "t", specify(NETWORKS, GRID, device.info, quick)) as journal:
        campaign = Campaign(device.info, plans, journal, quick)
        done: list[Outcome] = []
        for plan in plans:
            for unit in reversed(list(campaign.units_left(plan))):
                references = References(unit.network, plan.batches)
                run_unit(device, unit, quick, references=references, report=done.append)
        for outcome in reversed(done):
            campaign.report(outcome)
        assert not campaign.left
        assert places(campaign.table()) == WANTED
