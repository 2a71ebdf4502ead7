from __future__ import annotations

import datetime
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapp.errors import ProfileError
from rapp.profiles import ProfileTable
from rapp.profiles.schema import ARROW_SCHEMA, COLUMNS, POINT_KEY

NULLED = {column.name: None for column in COLUMNS if not column.nullable}

WRONG = [
    ({"latency_ms": math.nan}, "latency_ms is nan: it must be a finite number"),
    ({"latency_ms": math.inf}, "latency_ms is inf: it must be a finite number"),
    ({"latency_ms": 0.0}, "latency_ms is 0.0: it must be above 0"),
    ({"latency_ms": -1.0}, "latency_ms is -1.0: it must be above 0"),
    ({"mad_ms": -0.5}, "mad_ms is -0.5: it must not be negative"),
    ({"quota_pct": 0.0}, r"quota_pct is 0.0: it must lie in (0, 100]"),
    ({"quota_pct": 150.0}, r"quota_pct is 150.0: it must lie in (0, 100]"),
    ({"sm_pct": -5.0}, r"sm_pct is -5.0: it must lie in (0, 100]"),
    ({"sm_pct": 100.1}, r"sm_pct is 100.1: it must lie in (0, 100]"),
    ({"sm_pct": math.nan}, r"sm_pct is nan: it must be a finite number"),
    ({"batch": 0}, "batch is 0: it must be 1 or more"),
    ({"status": "done"}, "status is 'done': it must be one of ok, failed, skipped"),
    ({"quota_kind": "time"}, "quota_kind is 'time': it must be one of gpu_time, launch_gate"),
    ({"network": " "}, "network is ' ': it must not be empty"),
    ({"software": "torch 2"}, "software must be a JSON object"),
    ({"software": "[1]"}, "software must be a JSON object"),
    ({"latency_ms": None}, "status is ok, but latency_ms is null"),
    ({"status": "failed", "reason": "oom"}, "status is not ok, but there is a latency_ms"),
    ({"status": "failed", "latency_ms": None}, "status is not ok, but reason is null"),
    ({"reason": "oom"}, "status is ok, but there is a reason for a failure"),
    ({"p95_ms": 12.0, "n_samples": 99}, "p95_ms must be null under 100 samples"),
    ({"p95_ms": 12.0, "n_samples": None}, "p95_ms must be null under 100 samples"),
    ({"p99_ms": 12.0, "n_samples": 999}, "p99_ms must be null under 1,000 samples"),
    ({"median_ms": 1.0, "median_low_ms": 2.0}, "median_low_ms is above median_ms"),
    ({"median_ms": 3.0, "median_high_ms": 2.0}, "median_high_ms is below median_ms"),
    ({"median_high_ms": 1.0, "median_low_ms": 2.0}, "median_low_ms is above median_high_ms"),
    *(({name: None}, f"{name} is null, but it must be known") for name in NULLED),
]


def _raw(rows):
    """A parquet-ready table without any check: as a foreign program would write it."""
    return pa.Table.from_pylist(
        rows, schema=pa.schema([f.with_nullable(True) for f in ARROW_SCHEMA])
    ).replace_schema_metadata(ARROW_SCHEMA.metadata)


@pytest.mark.parametrize(("change", "reason"), WRONG)
def test_a_wrong_value_is_named_on_write_and_on_read(tmp_path, row, change, reason):
    rows = [row(batch=3), row(**change), row(batch=4)]
    with pytest.raises(ProfileError) as made:
        ProfileTable.from_rows(rows)
    file = tmp_path / "t.parquet"
    pq.write_table(_raw(rows), file)
    with pytest.raises(ProfileError) as read:
        ProfileTable.read(file)
    for error in (made.value, read.value):
        assert error.reason == reason
        assert error.where is not None
        assert error.where.startswith("row 1 (")
        assert "\n" not in str(error)
    assert read.value.path == str(file)


def test_the_message_names_file_row_point_and_how_many(tmp_path, row):
    file = tmp_path / "t.parquet"
    bad = [row(network="vgg16", batch=b, sm_pct=12.5, latency_ms=-1.0) for b in (2, 4, 8)]
    pq.write_table(_raw([row(), *bad]), file)
    with pytest.raises(ProfileError) as error:
        ProfileTable.read(file)
    assert str(error.value) == (
        f"{file}: row 1 (vgg16, batch 2, SM 12.5 %, quota 100 %, launch_gate): "
        "latency_ms is -1.0: it must be above 0 (and 2 more rows like it)"
    )


def test_boundaries_are_allowed(row):
    rows = [
        row(sm_pct=100.0, quota_pct=100.0),
        row(sm_pct=1e-3, quota_pct=1e-3),
        row(batch=2, p95_ms=12.0, n_samples=100),
        row(batch=3, p95_ms=12.0, p99_ms=13.0, n_samples=1000),
        row(batch=4, median_low_ms=2.0, median_ms=2.0, median_high_ms=2.0, mad_ms=0.0, idle_ms=0.0),
        row(batch=5, status="skipped", reason="out of memory at batch 4", latency_ms=None, n_samples=None),
    ]
    assert len(ProfileTable.from_rows(rows)) == len(rows)


START = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
OTHER = {"batch": 2, "sm_pct": 1.0, "quota_pct": 1.0, "quota_kind": "gpu_time", "window_ms": 1.0,
         "granularity_ms": 1.0, "idle_ms": 1.0, "derived": True, "anchor": True}  # fmt: skip


@pytest.mark.parametrize("column", POINT_KEY)
def test_points_that_differ_in_one_key_are_two(row, column):
    ProfileTable.from_rows([row(), row(**{column: OTHER.get(column, "other")})])


@pytest.mark.parametrize("change", [{}, {"latency_ms": 5.0}, {"started_at": START}, {"sm_count": 1}])
def test_a_duplicate_is_refused_whatever_its_result(row, change):
    with pytest.raises(ProfileError) as error:
        ProfileTable.from_rows([row(batch=2), row(), row(batch=3), row(**change)])
    assert error.value.reason == "the same point as row 1"
    assert error.value.where is not None
    assert error.value.where.startswith("row 3 (net, batch 1,")


def test_anchors_repeat_a_point_at_another_time(row):
    later = START + datetime.timedelta(hours=1)
    rows = [row(), row(anchor=True, started_at=START), row(anchor=True, started_at=later)]
    ProfileTable.from_rows(rows)
    with pytest.raises(ProfileError, match=r"row 3 .*same point as row 2"):
        ProfileTable.from_rows([*rows, rows[2]])


@given(data=st.data())
def test_any_repeated_row_is_found(valid_rows, data):
    rows = data.draw(valid_rows.filter(bool))
    at = data.draw(st.integers(0, len(rows) - 1))
    with pytest.raises(ProfileError, match=rf"row {len(rows)} .*the same point as row {at}$"):
        ProfileTable.from_rows([*rows, rows[at]])


def test_columns_must_be_the_pinned_ones(row):
    good = _raw([row()])
    cases = [
        (good.drop_columns(["anchor", "batch"]), "without the columns batch, anchor"),
        (good.append_column("extra", pa.array([1])), "unknown column extra"),
        (good.append_column("batch", pa.array([1])), "has the column batch more than once"),
        (
            good.set_column(6, "batch", pa.array([1], pa.int64())),
            "column batch has type int64, but it must be int32",
        ),
        (
            good.set_column(good.schema.get_field_index("latency_ms"), "latency_ms", pa.array(["10"])),
            "column latency_ms has type string, but it must be double",
        ),
    ]
    for table, reason in cases:
        with pytest.raises(ProfileError) as error:
            ProfileTable(table, "t.parquet")
        assert str(error.value) == f"t.parquet: {reason}"


def test_the_order_of_columns_in_a_file_does_not_matter(row):
    good = _raw([row()])
    turned = good.select(good.schema.names[::-1])
    assert ProfileTable(turned) == ProfileTable(good)


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (b"2", "format version '2', but this rapp reads version 1 alone; upgrade rapp to read it"),
        (b"0", "format version '0', but this rapp reads version 1 alone"),
        (b"x", "format version 'x', but this rapp reads version 1 alone"),
        (
            None,
            "no profile table: its metadata has no rapp.profile_table.version; ProfileTable.write adds it",
        ),
    ],
)
def test_other_format_versions_are_refused(tmp_path, row, version, reason):
    metadata = {b"rapp.profile_table.version": version} if version else {b"else": b"1"}
    pq.write_table(_raw([row()]).replace_schema_metadata(metadata), tmp_path / "t.parquet")
    with pytest.raises(ProfileError) as error:
        ProfileTable.read(tmp_path / "t.parquet")
    assert error.value.reason == reason


def test_rows_of_the_wrong_shape_or_type(row):
    with pytest.raises(ProfileError, match=r"row 1: unknown column latency$"):
        ProfileTable.from_rows([row(), row(latency=1.0)], "new.parquet")
    with pytest.raises(ProfileError, match=r"^new.parquet: column batch must be int32"):
        ProfileTable.from_rows([row(batch="one")], "new.parquet")
    with pytest.raises(ProfileError, match="column batch must be int32"):
        ProfileTable.from_rows([row(batch=1.5)])
    with pytest.raises(ProfileError, match="column batch must be int32"):
        ProfileTable.from_rows([row(batch=2**40)])


def test_text_that_is_no_utf8_is_damage(row):
    table = _raw([row()])
    broken = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())
    with pytest.raises(ProfileError, match="is damaged"):
        ProfileTable(table.set_column(0, "network", broken))
