from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.device import NetworkFile
from profiler.plan import NetworkPlan, Point, QuotaMode, check_names, plan_network, shuffled
from rapp.errors import ConfigError
from rapp.types import ResourceConfig, ResourceGrid

NET = NetworkFile("net", None)
GRID = ResourceGrid((10, 40, 70, 100), (30, 60, 100), (4, 1, 2))

percents = st.lists(st.integers(1, 20).map(lambda n: 5.0 * n), min_size=1, max_size=8, unique=True)
grids = st.builds(
    ResourceGrid, percents, percents, st.lists(st.integers(1, 9), min_size=1, max_size=4, unique=True)
)


def grid_points(plan: NetworkPlan) -> list[Point]:
    """Every planned point that is no anchor, however it is to end."""
    return [point for point in (*plan.measured, *plan.derived, *plan.skipped) if point.anchor is None]


@given(grids, st.sampled_from(QuotaMode), st.integers(0, 5), st.booleans(), st.data())
def test_every_configuration_is_planned_exactly_once(
    grid: ResourceGrid, mode: QuotaMode, seed: int, anchors: bool, data: st.DataObject
) -> None:
    refused = data.draw(st.sets(st.sampled_from([c.sm_pct for c in grid])))

    def why_not(_: NetworkFile, config: ResourceConfig) -> str | None:
        return "no such partition" if config.sm_pct in refused else None

    plan = plan_network(NET, grid, mode=mode, seed=seed, anchors=anchors, why_not=why_not)
    planned = grid_points(plan)
    assert len(planned) == len(set(planned))
    wanted = set(grid)
    if mode == QuotaMode.DERIVE:
        wanted |= {ResourceConfig(c.sm_pct, 100, c.batch) for c in grid}
    assert {point.config for point in planned} == wanted
    assert {point.config.sm_pct for point in plan.skipped} == refused
    assert refused.isdisjoint(point.config.sm_pct for point in plan.measured if point.anchor is None)


def test_batches_ascend_and_quotas_descend_within_one_session_for_each_partition() -> None:
    plan = plan_network(NET, GRID, anchors=False)
    assert sorted(unit.sm_pct for unit in plan.units) == [10, 40, 70, 100]
    for unit in plan.units:
        places = [(point.config.batch, point.config.quota_pct) for point in unit.points]
        assert places == [(b, q) for b in (1, 2, 4) for q in (100, 60, 30)]


def test_anchors_stand_at_the_start_in_the_middle_and_at_the_end() -> None:
    plan = plan_network(NET, GRID)
    places = [unit.points[0].anchor for unit in plan.units]
    assert places == [0, None, None, 1, None, None, 2]
    anchors = [point for point in plan.measured if point.anchor is not None]
    assert {point.config for point in anchors} == {ResourceConfig(100, 100, 1)}
    assert [unit.points[0] for unit in plan.anchors] == anchors
    assert len(plan.candidates) == len(GRID)


def test_an_anchor_takes_the_smallest_batch_that_the_network_serves() -> None:
    plan = plan_network(NET, GRID, why_not=lambda _, c: "fixed batch" if c.batch != 4 else None)
    assert {u.points[0].config for u in plan.anchors} == {ResourceConfig(100, 100, 4)}
    refused = plan_network(NET, GRID, why_not=lambda _, c: "none" if c.sm_pct == 100 else None)
    assert refused.anchors == ()


def test_a_sweep_of_one_partition_has_no_middle() -> None:
    plan = plan_network(NET, ResourceGrid((100,), (100,), (1,)))
    assert [unit.points[0].anchor for unit in plan.units] == [0, None, 2]


def test_nothing_to_measure_has_no_anchors() -> None:
    plan = plan_network(NET, GRID, why_not=lambda *_: "nothing works")
    assert plan.units == ()
    assert len(plan.skipped) == len(GRID)


def test_the_order_of_partitions_hangs_on_the_seed_and_the_network() -> None:
    values = {float(value) for value in range(5, 101, 5)}
    orders = {tuple(shuffled(values, seed, name)) for seed in range(3) for name in "ab"}
    assert len(orders) == 6
    assert all(set(order) == values for order in orders)
    assert tuple(sorted(values)) not in orders
    # Pinned: a campaign that goes on with a later version must find its order again.
    assert shuffled({10.0, 20.0, 30.0, 40.0}, 0, "net") == [30, 40, 20, 10]


def test_deriving_measures_quota_100_and_a_few_points_to_verify() -> None:
    grid = ResourceGrid((10, 50, 100), range(10, 100, 10), (1, 8))
    plan = plan_network(NET, grid, mode=QuotaMode.DERIVE)
    limited = {point.config for point in plan.measured if point.config.quota_pct < 100}
    assert limited == {ResourceConfig(s, q, b) for s, b in ((10, 8), (100, 1)) for q in (20, 50, 80)}
    full = [point for point in plan.measured if point.config.quota_pct == 100 and point.anchor is None]
    assert len(full) == 6, "quota 100 % is measured although the grid lacks it"
    assert len(plan.derived) == len(grid) - len(limited)


@pytest.mark.parametrize(("quotas", "verified"), [((100,), set()), ((50, 100), {50}), ((20, 70), {20, 70})])
def test_short_quota_axes_are_verified_whole(quotas: tuple[float, ...], verified: set[float]) -> None:
    plan = plan_network(NET, ResourceGrid((100,), quotas, (1,)), mode=QuotaMode.DERIVE)
    assert {point.config.quota_pct for point in plan.measured} - {100.0} == verified
    assert plan.derived == ()


def test_names_tell_networks_apart() -> None:
    check_names([NET, NetworkFile("other", None)])
    with pytest.raises(ConfigError, match="two networks are called net"):
        check_names([NET, NetworkFile("net", None)])
    with pytest.raises(ConfigError, match="no network"):
        check_names([])
