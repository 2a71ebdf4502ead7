"""What a table tells of the campaigns that its rows are from, in the form that the profiler writes it."""

from __future__ import annotations

import datetime
import json

import pytest

from rapp.profiles import ProfileTable
from rapp.profiles.campaigns import (
    campaigns,
    describe_conditions,
    describe_drift,
    describe_rows,
    describe_software,
    describe_times,
)
from rapp.types import ResourceConfig

FAILED = {"status": "failed", "latency_ms": None}


def _at(minute: int, day: int = 1) -> datetime.datetime:
    return datetime.datetime(2026, 3, day, 9, minute, tzinfo=datetime.UTC)


def _software(**more: object) -> str:
    return json.dumps({"onnxruntime": "1.20.1", "anchor_drift_pct": 0.4, "warm_up_runs": 3} | more)


def _one(*rows):
    (found,) = campaigns(ProfileTable.from_rows(rows))
    return found


def test_rows_are_counted_by_how_they_ended(row):
    found = _one(
        row(batch=1, n_samples=20, converged=True),
        row(batch=2, n_samples=40, converged=False),
        row(batch=3, derived=True),
        row(batch=4, reason="out of memory", **FAILED),
        row(batch=5, reason="batch 4 ended with: out of memory", **(FAILED | {"status": "skipped"})),
        row(anchor=True),
    )
    assert (found.measured, found.derived, found.failed, found.skipped) == (2, 1, 1, 1)
    assert (found.unconverged, found.samples) == (1, 30.0)
    assert describe_rows(found) == "2 rows measured (30 samples each, median), 1 derived, 1 failed, 1 skipped"


def test_unknown_is_unknown(row):
    found = _one(row(n_samples=None))
    assert (found.first, found.samples, found.drift_pct, found.derived_error_pct) == (None,) * 4
    assert (found.software, found.rejected, found.anchors, found.device_uuids) == ({}, {}, (), ())
    assert describe_times(found) == describe_conditions(found) == describe_drift(found) == ""
    assert describe_rows(found) == "1 row measured"
    assert not found.drifted


def test_conditions_and_times(row):
    found = _one(
        row(batch=1, idle_ms=5.0, window_ms=40.0, device_uuid="GPU-2", started_at=_at(30)),
        row(batch=2, idle_ms=0.0, window_ms=40.0, device_uuid="GPU-1", started_at=_at(5)),
        row(batch=4),
    )
    assert describe_conditions(found) == "window 40 ms, idle 0 and 5 ms"
    assert describe_times(found) == "2026-03-01 09:05 to 09:30 UTC"
    assert found.device_uuids == ("GPU-1", "GPU-2")
    assert describe_times(_one(row(started_at=_at(5)))) == "2026-03-01 09:05 UTC"
    two_days = _one(row(batch=1, started_at=_at(5)), row(batch=2, started_at=_at(5, day=3)))
    assert describe_times(two_days) == "2026-03-01 09:05 to 2026-03-03 09:05 UTC"


def test_anchors_drift_by_their_medians_in_the_order_of_time(row):
    config, common = ResourceConfig(100, 100, 1), {"anchor": True, "sm_pct": 100.0, "latency_ms": 50.0}
    found = _one(
        row(),
        *(
            row(network=network, started_at=_at(minute), median_ms=ms, **common)
            for network, times in (("steady", (10.0, 10.1, 10.0)), ("moved", (10.0, 10.2, 10.45)))
            for minute, ms in zip((40, 0, 20), (times[2], times[0], times[1]), strict=True)
        ),
        row(network="steady", anchor=True, sm_pct=100.0, reason="time-out", started_at=_at(50), **FAILED),
    )  # fmt: skip
    moved, steady = found.anchors
    assert (moved.network, moved.config, moved.latency_ms) == ("moved", config, (10.0, 10.2, 10.45))
    assert moved.drift_pct == pytest.approx(4.5)
    assert (steady.latency_ms, steady.failed) == ((10.0, 10.1, 10.0), 1)
    assert found.drift_pct == pytest.approx(4.5)
    assert found.drifted
    assert describe_drift(found) == (
        "anchors of 2 networks: drift 4.5 % (moved), above 3 %: latency moved while the campaign ran"
    )


def test_a_drift_that_the_profiler_wrote_counts_without_its_rows(row):
    found = _one(row(software=_software(anchor_drift_pct=3.2)))
    assert (found.drift_pct, found.drifted) == (3.2, True)
    assert not _one(row(software=_software(anchor_drift_pct=None))).drifted


def test_one_anchor_alone_has_no_drift(row):
    found = _one(row(), row(anchor=True))
    assert found.drift_pct is None
    assert describe_drift(found) == "anchors without a drift: none was measured twice"


def test_software_and_what_the_profiler_tells_of_points(row):
    found = _one(
        row(batch=1, software=_software(rejected_blocks={"throttled": 2}, outputs_compared=True)),
        row(batch=2, software=_software(rejected_blocks={"throttled": 1, "clock moved": 1}, seed=3)),
        row(batch=4, software=_software(rejected_blocks={"clock moved": 1}, counts_rejected=True)),
        row(batch=8, derived=True, software=_software(derived_by="L = D / q", derived_error_pct=2.5)),
        row(network="b", derived=True, software=_software(derived_by="L = D / q", derived_error_pct=1.5)),
        row(network="c", software=None),
    )
    assert found.software == {"onnxruntime": ("1.20.1",), "seed": ("3",)}
    assert found.rejected == {"throttled": 3, "clock moved": 2}
    assert (found.counts_rejected, found.outputs_compared) == (1, 1)
    assert (found.derived_by, found.derived_error_pct) == (("L = D / q",), 2.5)
    assert found.drift_pct == 0.4


def test_software_in_words(row):
    found = _one(
        row(batch=1, software=json.dumps({"cuda": "12.4", "rows": "ab" * 32})),
        row(batch=2, software=json.dumps({"cuda": "12.6"})),
    )
    assert describe_software(found) == "cuda 12.4 / 12.6, rows abababababab…"
    assert found.software["rows"] == ("ab" * 32,)


def test_software_of_equal_text_counts_for_each_row(row):
    text = _software(rejected_blocks={"throttled": 2})
    assert _one(row(batch=1, software=text), row(batch=2, software=text)).rejected == {"throttled": 4}


def test_software_of_another_program_is_no_fault(row):
    odd = json.dumps(
        {"anchor_drift_pct": "unknown", "rejected_blocks": 3, "derived_error_pct": [], "a": {"b": 1}}
    )
    found = _one(row(software=odd))
    assert (found.drift_pct, found.rejected, found.derived_error_pct) == (None, {}, None)
    assert found.software == {"a": ('{"b": 1}',)}


def test_campaigns_come_in_the_order_of_time(row):
    rows = [
        row(campaign_id="later", started_at=_at(9)),
        row(campaign_id="unknown"),
        row(campaign_id="z-first", started_at=_at(1)),
    ]
    found = campaigns(ProfileTable.from_rows(rows))
    assert [one.campaign_id for one in found] == ["z-first", "later", "unknown"]
