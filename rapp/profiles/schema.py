"""The columns of a profile table, format version 1: one row is one profile point.

This list is the one place that says which columns there are. The pyarrow schema and the JSON Schema
(`rapp/schemas/profile_table.json`) follow from it. Unknown is null, never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from rapp.types import QuotaKind

FORMAT_VERSION = 1
VERSION_KEY = b"rapp.profile_table.version"

STATUSES = ("ok", "failed", "skipped")
QUOTA_KINDS = tuple(kind.value for kind in QuotaKind)

# A percentile says something only with a few samples beyond it: 5 of 100, 10 of 1,000.
P95_MIN_SAMPLES = 100
P99_MIN_SAMPLES = 1000

Kind = Literal["text", "integer", "number", "boolean", "time"]
Bound = Literal["percent", "positive", "not_negative", "one_or_more", "not_empty"]

_ARROW: Mapping[str, Any] = {
    "text": pa.string(),
    "integer": pa.int32(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "time": pa.timestamp("us", tz="UTC"),
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name with its unit, what it holds, and what a value may be.

    Args:
        name: column name; `_pct` is percent, `_ms` milliseconds, `_mib` mebibytes.
        kind: `text`, `integer` (int32), `number` (float64), `boolean` or `time` (UTC, microseconds).
        about: what it says, in one line.
        nullable: whether it may be unknown.
        bound: the range of a known value.
        choices: the words allowed, for `text`.
    """

    name: str
    kind: Kind
    about: str
    nullable: bool = False
    bound: Bound | None = None
    choices: Sequence[str] = ()

    @property
    def arrow_type(self) -> Any:
        """The pyarrow data type."""
        return _ARROW[self.kind]


COLUMNS: tuple[Column, ...] = (
    Column("network", "text", "name of the network", bound="not_empty"),
    Column("graph_hash", "text", "SHA-256 of its canonical operator graph", True, "not_empty"),
    Column("device", "text", "model of the device", bound="not_empty"),
    Column("device_uuid", "text", "which one of that model", True, "not_empty"),
    Column("runtime", "text", "what ran the network: pytorch-eager, ort-cuda, ...", bound="not_empty"),
    Column("precision", "text", "fp32, fp16, ...", bound="not_empty"),
    Column("batch", "integer", "requests executed together", bound="one_or_more"),
    Column("sm_pct", "number", "share of the streaming multiprocessors asked for, %", bound="percent"),
    Column("sm_count", "integer", "streaming multiprocessors really got", True, "one_or_more"),
    Column("quota_pct", "number", "time allowed per window / window, %", bound="percent"),
    Column("quota_kind", "text", "what the quota limits", choices=QUOTA_KINDS),
    Column("window_ms", "number", "length of the quota's window", True, "positive"),
    Column("granularity_ms", "number", "smallest time the quota can hold back", True, "not_negative"),
    Column("idle_ms", "number", "pause between one batch and the next", True, "not_negative"),
    Column("latency_ms", "number", "mean wall time of one batch; null unless status is ok", True, "positive"),
    Column("median_ms", "number", "median wall time of one batch", True, "positive"),
    Column("median_low_ms", "number", "lower end of the median's confidence interval", True, "positive"),
    Column("median_high_ms", "number", "upper end of the median's confidence interval", True, "positive"),
    Column("p95_ms", "number", "95th percentile; null under 100 samples", True, "positive"),
    Column("p99_ms", "number", "99th percentile; null under 1,000 samples", True, "positive"),
    Column("mad_ms", "number", "median absolute deviation from the median", True, "not_negative"),
    Column("device_ms", "number", "device time of one batch, from device events", True, "positive"),
    Column("launch_ms", "number", "host time until everything is launched", True, "not_negative"),
    Column("peak_memory_mib", "number", "peak device memory", True, "not_negative"),
    Column("n_samples", "integer", "batches timed", True, "one_or_more"),
    Column("converged", "boolean", "whether the stopping rule was met", True),
    Column("derived", "boolean", "computed from other points, not measured"),
    Column("status", "text", "what became of the point", choices=STATUSES),
    Column("reason", "text", "why it failed or was skipped; null when ok", True, "not_empty"),
    Column("campaign_id", "text", "the profiler's run, or the import, it is from", bound="not_empty"),
    Column("anchor", "boolean", "a repetition that watches for drift, not a point of the grid"),
    Column(
        "software",
        "text",
        "versions, origin, and how it was measured: anchor_drift_pct, rejected_blocks, ...; a JSON object",
        True,
    ),
    Column("started_at", "time", "when the first batch started", True),
)
BY_NAME: Mapping[str, Column] = {column.name: column for column in COLUMNS}

# What makes a point: two rows that agree in all of these are duplicates. Anchors are repeated on
# purpose, so for them the start is part of the point.
POINT_KEY = (
    "campaign_id", "device", "device_uuid", "runtime", "precision", "network", "batch", "sm_pct",
    "quota_pct", "quota_kind", "window_ms", "granularity_ms", "idle_ms", "derived", "anchor",
)  # fmt: skip

ARROW_SCHEMA = pa.schema(
    [pa.field(c.name, c.arrow_type, nullable=c.nullable) for c in COLUMNS],
    metadata={VERSION_KEY: str(FORMAT_VERSION).encode()},
)

_JSON_TYPE: Mapping[str, str] = {
    "text": "string",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "time": "string",
}
_JSON_BOUND: Mapping[str, Mapping[str, int]] = {
    "percent": {"exclusiveMinimum": 0, "maximum": 100},
    "positive": {"exclusiveMinimum": 0},
    "not_negative": {"minimum": 0},
    "one_or_more": {"minimum": 1},
    "not_empty": {"minLength": 1},
}


def row_json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of one row, as committed in `rapp/schemas/profile_table.json`."""
    properties: dict[str, Any] = {}
    for column in COLUMNS:
        kind = _JSON_TYPE[column.kind]
        entry: dict[str, Any] = {
            "description": column.about,
            "type": [kind, "null"] if column.nullable else kind,
        }
        if column.kind == "time":
            entry["format"] = "date-time"
        if column.choices:
            entry["enum"] = list(column.choices)
        entry.update(_JSON_BOUND[column.bound] if column.bound else {})
        properties[column.name] = entry
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A row of a RaPP profile table, format version {FORMAT_VERSION}",
        "description": "The parquet metadata key rapp.profile_table.version holds the format version.",
        "type": "object",
        "properties": properties,
        "required": [column.name for column in COLUMNS],
        "additionalProperties": False,
    }
