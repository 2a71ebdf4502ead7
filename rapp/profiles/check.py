"""What a valid profile table is: the first thing wrong with one, in a line that names the row.

Everything is checked column by column with pyarrow's kernels: 45,000 rows take some 50 ms.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rapp.errors import ProfileError
from rapp.profiles.schema import (
    ARROW_SCHEMA,
    BY_NAME,
    COLUMNS,
    FORMAT_VERSION,
    P95_MIN_SAMPLES,
    P99_MIN_SAMPLES,
    POINT_KEY,
    VERSION_KEY,
    Column,
)

_BOUND_RULE = {
    "percent": "it must lie in (0, 100]",
    "positive": "it must be above 0",
    "not_negative": "it must not be negative",
    "one_or_more": "it must be 1 or more",
    "not_empty": "it must not be empty",
}


def checked(table: Any, path: str | Path) -> Any:
    """The pyarrow `table` with its columns in the order of the schema, once it has been found valid.

    Args:
        table: a pyarrow Table with the metadata of the format.
        path: the file it is from, for the message.

    Raises:
        ProfileError: another format version, a column missing, unknown or of another type, or a value
            that is not allowed; names file, row and point, and how many more rows have the same fault.
    """
    _check_version(table, path)
    table = _check_columns(table, path)
    for wrong, reason in _faults(table):
        rows = np.flatnonzero(wrong)
        if rows.size:
            first = int(rows[0])
            more = f" (and {rows.size - 1:,} more rows like it)" if rows.size > 1 else ""
            where = f"row {first} ({describe_point(table, first)})"
            value = reason(first) if callable(reason) else reason
            raise ProfileError(path, value + more, where=where)
    return table


def describe_point(table: Any, row: int) -> str:
    """The point of a row for a person: `resnet50, batch 8, SM 50 %, quota 30 %, launch_gate`."""
    network, batch, sm, quota, kind = (
        table.column(name)[row].as_py() for name in ("network", "batch", "sm_pct", "quota_pct", "quota_kind")
    )
    name = network if network and network.isprintable() else repr(network)
    return f"{name}, batch {batch}, SM {_number(sm)} %, quota {_number(quota)} %, {kind}"


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:g}"


def _check_version(table: Any, path: str | Path) -> None:
    found = (table.schema.metadata or {}).get(VERSION_KEY)
    key = VERSION_KEY.decode()
    if found is None:
        raise ProfileError(path, f"no profile table: its metadata has no {key}; ProfileTable.write adds it")
    if found != str(FORMAT_VERSION).encode():
        text = found.decode(errors="replace")
        newer = text.isdigit() and int(text) > FORMAT_VERSION
        advice = "; upgrade rapp to read it" if newer else ""
        raise ProfileError(
            path, f"format version {text!r}, but this rapp reads version {FORMAT_VERSION} alone{advice}"
        )


def _check_columns(table: Any, path: str | Path) -> Any:
    names = table.schema.names
    missing = [column.name for column in COLUMNS if column.name not in names]
    if missing:
        raise ProfileError(path, f"without the column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise ProfileError(path, f"unknown column{'s' * (len(unknown) > 1)} {', '.join(unknown)}")
    if len(names) != len(COLUMNS):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ProfileError(path, f"has the column {', '.join(twice)} more than once")
    for column in COLUMNS:
        found = table.schema.field(column.name).type
        if found != column.arrow_type:
            raise ProfileError(
                path, f"column {column.name} has type {found}, but it must be {column.arrow_type}"
            )
    table = table.select([column.name for column in COLUMNS])
    try:
        table.validate(full=True)
    except pa.ArrowInvalid as error:
        raise ProfileError(path, f"is damaged: {error}") from error
    # Another writer may call every field nullable; whether a value is null is checked row by row.
    return pa.table(table.columns, names=table.schema.names).replace_schema_metadata(ARROW_SCHEMA.metadata)


def _faults(table: Any) -> Iterator[tuple[Any, Any]]:
    """(which rows are wrong, shape (R,), boolean; the reason as text or as a function of the row)."""
    for column in COLUMNS:
        values = table.column(column.name)
        if not column.nullable:
            yield _mask(pc.is_null(values)), f"{column.name} is null, but it must be known"
        if column.kind == "number":
            finite = pc.fill_null(pc.is_finite(values), True)
            yield _mask(pc.invert(finite)), _said(column, values, "it must be a finite number")
        if column.bound:
            yield _mask(_out_of_bound(column, values)), _said(column, values, _BOUND_RULE[column.bound])
        if column.choices:
            allowed = pc.is_in(values, value_set=pa.array(column.choices))
            rule = f"it must be one of {', '.join(column.choices)}"
            yield _mask(pc.and_(pc.invert(allowed), pc.is_valid(values))), _said(column, values, rule)
    yield from _status_faults(table)
    yield from _sample_faults(table)
    yield _not_json(table.column("software")), "software must be a JSON object"
    yield _duplicates(table)


def _said(column: Column, values: Any, rule: str) -> Any:
    return lambda row: f"{column.name} is {values[row].as_py()!r}: {rule}"


def _mask(wrong: Any) -> Any:
    return pc.fill_null(wrong, False).to_numpy(zero_copy_only=False)


def _out_of_bound(column: Column, values: Any) -> Any:
    match column.bound:
        case "percent":
            return pc.or_(pc.less_equal(values, 0), pc.greater(values, 100))
        case "positive":
            return pc.less_equal(values, 0)
        case "not_negative":
            return pc.less(values, 0)
        case "one_or_more":
            return pc.less(values, 1)
        case _:
            return pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(values)), 0)


def _status_faults(table: Any) -> Iterator[tuple[Any, str]]:
    is_ok = pc.equal(table.column("status"), "ok")
    has_latency = pc.is_valid(table.column("latency_ms"))
    has_reason = pc.is_valid(table.column("reason"))
    yield _mask(pc.and_(is_ok, pc.invert(has_latency))), "status is ok, but latency_ms is null"
    yield _mask(pc.and_(pc.invert(is_ok), has_latency)), "status is not ok, but there is a latency_ms"
    yield _mask(pc.and_(pc.invert(is_ok), pc.invert(has_reason))), "status is not ok, but reason is null"
    yield _mask(pc.and_(is_ok, has_reason)), "status is ok, but there is a reason for a failure"


def _sample_faults(table: Any) -> Iterator[tuple[Any, str]]:
    samples = pc.fill_null(table.column("n_samples"), 0)
    for name, least in (("p95_ms", P95_MIN_SAMPLES), ("p99_ms", P99_MIN_SAMPLES)):
        too_few = pc.and_(pc.is_valid(table.column(name)), pc.less(samples, least))
        yield _mask(too_few), f"{name} must be null under {least:,} samples"
    low, middle, high = (table.column(name) for name in ("median_low_ms", "median_ms", "median_high_ms"))
    yield _mask(pc.greater(low, middle)), "median_low_ms is above median_ms"
    yield _mask(pc.less(high, middle)), "median_high_ms is below median_ms"
    yield _mask(pc.greater(low, high)), "median_low_ms is above median_high_ms"


def _not_json(software: Any) -> Any:
    """The rows whose `software` is no JSON object; each distinct text is parsed once."""
    codes = pc.dictionary_encode(software).combine_chunks()
    if isinstance(codes, pa.ChunkedArray):  # pyarrow < 18 keeps a chunked array
        codes = codes.chunk(0) if codes.num_chunks else pa.array([], pa.string()).dictionary_encode()
    bad = [text for text in codes.dictionary.to_pylist() if text is not None and not _is_object(text)]
    return _mask(pc.is_in(software, value_set=pa.array(bad, pa.string())))


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _duplicates(table: Any) -> tuple[Any, Any]:
    """The later rows of each group of equal points."""
    start = pc.if_else(table.column("anchor"), table.column("started_at"), None)
    keyed = table.select(list(POINT_KEY)).append_column("start", start)
    keyed = keyed.append_column("row", pa.array(np.arange(table.num_rows)))
    first = keyed.group_by([*POINT_KEY, "start"]).aggregate([("row", "min"), ("row", "count")])
    repeated = first.filter(pc.greater(first.column("row_count"), 1))
    wrong = np.zeros(table.num_rows, dtype=bool)
    if repeated.num_rows == 0:
        return wrong, ""
    # Few groups by now: find their members by the key as Python values.
    keys = [*POINT_KEY, "start"]
    firsts = {tuple(row[k] for k in keys): row["row_min"] for row in repeated.to_pylist()}
    earlier: dict[int, int] = {}
    for row, values in enumerate(zip(*(keyed.column(k).to_pylist() for k in keys), strict=True)):
        head = firsts.get(values)
        if head is not None and head != row:
            wrong[row], earlier[row] = True, head
    return wrong, lambda row: f"the same point as row {earlier[row]}"
