from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from profiler.device import DeviceInfo, Failure, NetworkFile
from profiler.measure import Measurement
from profiler.outcome import Outcome, Stage, Status
from profiler.plan import NetworkPlan, Point, QuotaMode, plan_network
from profiler.rows import Origin, campaign_table, quality
from rapp.profiles import ProfileTable
from rapp.types import QuotaKind, ResourceConfig, ResourceGrid

INFO = DeviceInfo(
    "NVIDIA A100", "GPU-1", "ort-cuda", "fp32", QuotaKind.GPU_TIME, 40.0, 5.0, 2.0, software={"driver": "580"}
)
ORIGIN = Origin(INFO, "c-1", seed=7, mode=QuotaMode.MEASURE)
NET = NetworkFile("net", None, "abc")
GRID = ResourceGrid((50, 100), (50, 100), (1, 2))
AT = datetime(2026, 1, 2, tzinfo=UTC)


def measurement(latency_ms: float = 10.0, **changes: Any) -> Measurement:
    figures: dict[str, Any] = {
        "latency_ms": latency_ms, "median_ms": latency_ms - 0.1, "median_low_ms": latency_ms - 0.2,
        "median_high_ms": latency_ms, "p95_ms": None, "p99_ms": None, "mad_ms": 0.05,
        "device_ms": latency_ms - 1, "launch_ms": 1.5, "n_samples": 30, "converged": True,
        "rejected": {}, "warm_up_runs": 23,
    }  # fmt: skip
    return Measurement(**(figures | changes))


def outcomes(plan: NetworkPlan, **latencies: float) -> dict[Point, Outcome]:
    """Every point measured; `start=`, `middle=`, `end=` are latencies of the anchors."""
    anchors = [latencies.get(name, 10.0) for name in ("start", "middle", "end")]
    return {
        point: Outcome(
            point,
            Status.OK,
            started_at=AT + timedelta(seconds=number),
            sm_count=54,
            peak_memory_mib=700.0,
            outputs_compared=True,
            measurement=measurement(20.0 if point.anchor is None else anchors[point.anchor]),
        )
        for number, point in enumerate(plan.measured)
    }


def rows(table: ProfileTable) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = table.arrow.to_pylist()
    return [row | {"software": json.loads(row["software"])} for row in listed]


def test_a_measured_point_is_a_whole_row() -> None:
    plan = plan_network(NET, GRID)
    ended = outcomes(plan)
    point = Point("net", ResourceConfig(50, 50, 2))
    ended[point] = Outcome(
        point, Status.OK, started_at=AT, sm_count=54, peak_memory_mib=700.0, outputs_compared=True,
        measurement=measurement(12.0, rejected={"throttled": 2}, counts_rejected=True, converged=False),
    )  # fmt: skip
    table = campaign_table([plan], ended, ORIGIN, "not measured: budget")
    assert len(table) == 8 + 3
    row = next(row for row in rows(table) if row["median_ms"] == 11.9)
    assert row == {
        "network": "net", "graph_hash": "abc", "device": "NVIDIA A100", "device_uuid": "GPU-1",
        "runtime": "ort-cuda", "precision": "fp32", "batch": 2, "sm_pct": 50.0, "sm_count": 54,
        "quota_pct": 50.0, "quota_kind": "gpu_time", "window_ms": 40.0, "granularity_ms": 5.0,
        "idle_ms": 2.0, "latency_ms": 12.0, "median_ms": 11.9, "median_low_ms": 11.8,
        "median_high_ms": 12.0, "p95_ms": None, "p99_ms": None, "mad_ms": 0.05, "device_ms": 11.0,
        "launch_ms": 1.5, "peak_memory_mib": 700.0, "n_samples": 30, "converged": False,
        "derived": False, "status": "ok", "reason": None, "campaign_id": "c-1", "anchor": False,
        "started_at": AT,
        "software": {
            "driver": "580", "rapp": row["software"]["rapp"], "seed": 7, "quota_mode": "measure",
            "anchor_drift_pct": 0.0, "outputs_compared": True, "warm_up_runs": 23,
            "rejected_blocks": {"throttled": 2}, "counts_rejected": True,
        },
    }  # fmt: skip


def test_every_planned_point_is_there_once_however_it_ended() -> None:
    plan = plan_network(
        NET, GRID, why_not=lambda _, c: "too large" if (c.sm_pct, c.batch) == (50, 2) else None
    )
    ended = outcomes(plan)
    measured = [point for point in ended if point.anchor is None]
    failed, missing = measured[0], measured[1]
    ended[failed] = Outcome(failed, Status.FAILED, "time-out: x", Failure.TIMEOUT, Stage.RUN, AT)
    del ended[missing]
    table = rows(campaign_table([plan], ended, ORIGIN, "not measured: budget"))
    grid = [row for row in table if not row["anchor"]]
    assert {(r["sm_pct"], r["quota_pct"], r["batch"]) for r in grid} == {
        (c.sm_pct, c.quota_pct, c.batch) for c in GRID
    }
    assert len(grid) == len(GRID)
    assert sorted((row["status"], row["reason"]) for row in grid if row["status"] != "ok") == [
        ("failed", "time-out: x"),
        ("skipped", "not measured: budget"),
        ("skipped", "too large"),
        ("skipped", "too large"),
    ]


def test_an_anchor_without_a_start_has_no_row() -> None:
    plan = plan_network(NET, GRID)
    table = rows(campaign_table([plan], {}, ORIGIN, "not measured: budget"))
    assert len(table) == len(GRID)
    assert not any(row["anchor"] for row in table)
    ended = outcomes(plan)
    anchors = [point for point in ended if point.anchor is not None]
    for number, anchor in enumerate(anchors):
        ended[anchor] = Outcome(
            anchor, Status.FAILED, "crash", Failure.CRASHED, Stage.OPEN, AT + timedelta(seconds=number)
        )
    table = rows(campaign_table([plan], ended, ORIGIN, ""))
    assert [row["status"] for row in table if row["anchor"]] == ["failed"] * 3


@pytest.mark.parametrize(
    ("start", "middle", "end", "drift", "flagged"),
    [(10.1, 10.1, 10.1, 0.0, False), (10.1, 10.3, 10.2, 0.02, False), (10.1, 10.1, 9.6, 0.0526, True)],
)
def test_anchors_that_move_are_flagged_in_every_row_of_the_network(
    start: float, middle: float, end: float, drift: float, flagged: bool
) -> None:
    plan, other = plan_network(NET, GRID), plan_network(NetworkFile("other", None), GRID)
    ended = outcomes(plan, start=start, middle=middle, end=end)
    found = quality(ended.values(), ORIGIN)
    assert found.drift == pytest.approx(drift, abs=1e-4)
    assert found.drifted == flagged
    table = rows(campaign_table([plan, other], ended | outcomes(other), ORIGIN, ""))
    told = {row["software"]["anchor_drift_pct"] for row in table if row["network"] == "net"}
    assert told == {round(100 * found.drift, 2)}
    assert {row["software"]["anchor_drift_pct"] for row in table if row["network"] == "other"} == {0.0}


def test_one_anchor_tells_no_drift() -> None:
    plan = plan_network(NET, GRID)
    ended = dict(list(outcomes(plan).items())[:1])
    assert quality(ended.values(), ORIGIN).drift is None


def test_derived_rows_are_marked_and_hold_what_was_computed_alone() -> None:
    origin = Origin(INFO, "c-1", 7, QuotaMode.DERIVE)
    plan = plan_network(NET, ResourceGrid((50, 100), (10, 20, 30, 40, 50, 100), (1,)), mode=QuotaMode.DERIVE)
    ended = outcomes(plan)
    table = rows(campaign_table([plan], ended, origin, ""))
    assert len(table) == 12 + 3
    derived = [row for row in table if row["derived"]]
    assert len(derived) == len(plan.derived) > 0
    for row in derived:
        assert row["latency_ms"] == pytest.approx(19.0 / (row["quota_pct"] / 100) - 2.0)
        assert row["n_samples"] is row["median_ms"] is row["started_at"] is row["device_ms"] is None
        assert "device time / quota" in row["software"]["derived_by"]
        assert row["software"]["derived_error_pct"] > 0
    assert all("derived_by" not in row["software"] for row in table if not row["derived"])


def test_points_that_no_plan_has_are_rows_too() -> None:
    """Adaptive sampling chooses on the way."""
    plan = NetworkPlan(NET, (), (), {})
    ended = outcomes(plan_network(NET, GRID, anchors=False))
    assert len(campaign_table([plan], ended, ORIGIN, "")) == len(GRID)


def test_an_outcome_stands_against_a_later_reason_to_skip() -> None:
    before = plan_network(NET, GRID)
    ended = outcomes(before)
    after = plan_network(NET, GRID, why_not=lambda *_: "the device has shrunk")
    table = rows(campaign_table([after], ended, ORIGIN, ""))
    assert [row["status"] for row in table] == ["ok"] * (len(GRID) + 3)
