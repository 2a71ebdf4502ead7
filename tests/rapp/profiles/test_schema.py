from __future__ import annotations

import json
from importlib import resources

import pyarrow as pa

from rapp.profiles.schema import ARROW_SCHEMA, COLUMNS, POINT_KEY, VERSION_KEY, row_json_schema

PINNED = (
    "network graph_hash device device_uuid runtime precision batch sm_pct sm_count quota_pct quota_kind"
    " window_ms granularity_ms idle_ms latency_ms median_ms median_low_ms median_high_ms p95_ms p99_ms mad_ms"
    " device_ms launch_ms peak_memory_mib n_samples converged derived status reason campaign_id anchor"
    " software started_at"
)


def test_the_columns_are_the_pinned_ones_in_their_order():
    assert " ".join(ARROW_SCHEMA.names) == PINNED
    assert ARROW_SCHEMA.metadata == {b"rapp.profile_table.version": b"1"}
    assert VERSION_KEY in ARROW_SCHEMA.metadata


def test_types_follow_the_units_in_the_names():
    for field in ARROW_SCHEMA:
        if field.name.endswith(("_ms", "_pct", "_mib")):
            assert field.type == pa.float64(), field.name
    assert ARROW_SCHEMA.field("batch").type == pa.int32()
    assert ARROW_SCHEMA.field("started_at").type == pa.timestamp("us", tz="UTC")


def test_a_point_is_keyed_by_what_is_never_a_result():
    results = {"latency_ms", "median_ms", "n_samples", "status", "reason", "converged", "peak_memory_mib"}
    assert not results & set(POINT_KEY)
    assert len(set(POINT_KEY)) == len(POINT_KEY)


def test_the_committed_json_schema_is_up_to_date():
    text = resources.files("rapp").joinpath("schemas/profile_table.json").read_text()
    assert json.loads(text) == row_json_schema(), "write row_json_schema() to rapp/schemas/profile_table.json"


def test_the_json_schema_says_what_the_table_checks():
    schema = row_json_schema()
    assert schema["required"] == [column.name for column in COLUMNS]
    assert schema["additionalProperties"] is False
    of = schema["properties"]
    assert of["sm_pct"] | {"description": ""} == {
        "description": "",
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": 100,
    }
    assert of["batch"]["minimum"] == 1
    assert of["quota_kind"]["enum"] == ["gpu_time", "launch_gate"]
    assert of["p99_ms"]["type"] == ["number", "null"]
