"""Measured points of one network from a CSV or JSON file, or a profile table."""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rapp.errors import ConfigError, DataError, ProfileError
from rapp.types import MeasuredPoint, QuotaKind, ResourceConfig

if TYPE_CHECKING:
    from rapp.card import Card

NEEDED = ("sm_pct", "quota_pct", "batch", "latency_ms")
COLUMNS = (*NEEDED, "quota_kind")
MOST_BYTES = 10_000_000
"""A file of points by hand is small: a larger one is something else."""


def read_points(path: str | Path, quota_kind: QuotaKind) -> tuple[MeasuredPoint, ...]:
    """Read measured points from `*.csv` or `*.json`.

    A CSV file has a line of column names: sm_pct, quota_pct, batch, latency_ms, and quota_kind if wanted. A
    JSON file is a list of objects with these keys, or `{"points": [...]}`.

    Args:
        path: the file.
        quota_kind: of points that do not say it.

    Raises:
        DataError: unreadable, another format, or a point that is none; names the file and the line or entry.
    """
    file = Path(path)
    rows = _csv(file) if file.suffix.lower() == ".csv" else _json(file)
    points: list[MeasuredPoint] = []
    first: dict[tuple[ResourceConfig, QuotaKind], str] = {}
    for place, row in rows:
        point = _point(file, place, row, quota_kind)
        key = point.config, point.quota_kind
        if key in first:
            raise DataError(
                file, f"the same configuration as {first[key]}: give the mean of repetitions", where=place
            )
        first[key] = place
        points.append(point)
    if not points:
        raise DataError(file, "holds no point")
    return tuple(points)


def table_points(
    path: str | Path, card: Card, graph_hash: str, name: str, network: str | None = None
) -> tuple[MeasuredPoint, ...]:
    """The measured points of one network in a profile table, on the artifact's device, runtime and precision.

    The network is the one named; without a name that with the graph's hash, or if no row has it, that with
    the name of the graph's file. Repetitions of a configuration are one point, their mean.

    Raises:
        ProfileError: no valid table, no such network in it, or other settings than the artifact's.
    """
    from rapp.evaluation.points import merged
    from rapp.evaluation.source import answerable, near, table_hash
    from rapp.profiles.table import ProfileTable

    rows = answerable(ProfileTable.read(path), card)
    known = rows.networks()
    if network is None:
        by_hash = [one for one in known if table_hash(rows, one) == graph_hash]
        network = by_hash[0] if by_hash else name
        if network in known and not by_hash and table_hash(rows, network) is not None:
            raise ProfileError(
                path,
                f"its {network} is another network than the file's: the graph hashes differ;"
                " --network overrules that",
            )
    if network not in known:
        raise ProfileError(path, f"no network {network!r}{near(network, known)}: --network names another")
    return merged(rows.points(network))


def _csv(file: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    reader = csv.reader(_text(file).splitlines(), strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        _check_names(file, names, "line 1")
        for cells in reader:
            place = f"line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(names):
                raise DataError(file, f"{len(cells)} values for {len(names)} columns", where=place)
            yield place, dict(zip(names, (cell.strip() for cell in cells), strict=True))
    except csv.Error as error:
        raise DataError(file, f"is not valid CSV: {error}", where=f"line {reader.line_num}") from error


def _json(file: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    if file.suffix.lower() != ".json":
        raise DataError(file, "is neither .csv, .json nor .parquet")
    try:
        content = json.loads(_text(file))
    except (ValueError, RecursionError) as error:
        raise DataError(file, f"is not valid JSON: {error}") from error
    entries = content.get("points") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise DataError(file, 'is no list of points, nor {"points": [...]}')
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DataError(file, "is no object", where=f"entry {number}")
        _check_names(file, list(entry), f"entry {number}")
        yield f"entry {number}", {name: value for name, value in entry.items() if value is not None}


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > MOST_BYTES:
            raise DataError(file, f"is larger than {MOST_BYTES // 1_000_000} MB: give a profile table")
        return file.read_text("utf-8-sig")
    except OSError as error:
        raise DataError(file, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(file, "is not text in UTF-8") from error


def _check_names(file: Path, names: Sequence[str], place: str) -> None:
    for name in names:
        if name not in COLUMNS:
            close = difflib.get_close_matches(name, COLUMNS, n=1)
            hint = f" (near: {close[0]})" if close else f"; known are {', '.join(COLUMNS)}"
            raise DataError(file, f"unknown column {name!r}{hint}", where=place)
        if names.count(name) > 1:
            raise DataError(file, f"column {name} twice", where=place)
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise DataError(file, f"lacks {', '.join(missing)}", where=place)


def _point(file: Path, place: str, row: Mapping[str, object], default: QuotaKind) -> MeasuredPoint:
    numbers = {name: _number(file, place, name, row.get(name)) for name in NEEDED}
    kind = row.get("quota_kind") or default
    if kind not in tuple(QuotaKind):
        raise DataError(file, f"quota_kind is {kind!r}: it is one of {', '.join(QuotaKind)}", where=place)
    try:
        batch = numbers["batch"]
        config = ResourceConfig(
            numbers["sm_pct"],
            numbers["quota_pct"],
            int(batch) if batch == batch // 1 else batch,  # type: ignore[arg-type]
        )
        return MeasuredPoint(config, numbers["latency_ms"], QuotaKind(str(kind)))
    except ConfigError as error:
        raise DataError(file, str(error), where=place) from error


def _number(file: Path, place: str, name: str, value: object) -> float:
    if value is None or value == "":
        raise DataError(file, f"{name} is empty", where=place)
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        return float(value)
    except (ValueError, OverflowError):
        raise DataError(file, f"{name} is {value!r}, not a number", where=place) from None
