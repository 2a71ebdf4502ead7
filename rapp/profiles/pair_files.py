"""Pair tables as files, CSV or parquet."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from rapp.errors import ConfigError, ProfileError
from rapp.fileio import atomic_path
from rapp.profiles.pair_row import COLUMNS, FORMAT_VERSION, Kind, PairRow

CSV_HEAD = f"# RaPP pair table, version {FORMAT_VERSION}"
VERSION_KEY = b"rapp.pair_table.version"


def read_rows(path: str | Path) -> list[PairRow]:
    """The rows of a file, their values of the right type but unchecked.

    Raises:
        ConfigError: a name that does not end in `.csv` or `.parquet`.
        ProfileError: no such file, no pair table, another version, or a value of another type.
    """
    read = _read_parquet if _is_parquet(path) else _read_csv
    if not Path(path).is_file():
        raise ProfileError(path, "no such file")
    return list(read(path))


def write_rows(path: str | Path, rows: Sequence[PairRow]) -> None:
    """Write a file, which appears whole or not at all.

    Raises:
        ConfigError: a name that does not end in `.csv` or `.parquet`.
        RappError: it cannot be written.
    """
    write = _write_parquet if _is_parquet(path) else _write_csv
    with atomic_path(path) as temporary:
        write(temporary, rows)


def _is_parquet(path: str | Path) -> bool:
    suffix = Path(path).suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise ConfigError(f"{path}: a pair table is a file .csv or .parquet")
    return suffix == ".parquet"


def _check_names(names: Sequence[str], path: str | Path) -> None:
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise ProfileError(path, f"without the column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    extra = list(names)
    for name in COLUMNS:
        extra.remove(name)
    if extra:
        raise ProfileError(path, f"column{'s' * (len(extra) > 1)} unknown or twice: {', '.join(extra)}")


def _read_csv(path: str | Path) -> Iterator[PairRow]:
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            head = file.readline().strip()
            if head != CSV_HEAD:
                raise ProfileError(path, f"its first line must be '{CSV_HEAD}', but is {head[:80]!r}")
            lines = csv.reader(file, strict=True)
            names = next(lines, [])
            _check_names(names, path)
            for number, texts in enumerate(lines):
                where = f"row {number}"
                if len(texts) != len(names):
                    raise ProfileError(path, f"has {len(texts)} fields, not {len(names)}", where=where)
                yield PairRow(
                    **{n: _value(n, text, path, where) for n, text in zip(names, texts, strict=True)}
                )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ProfileError(path, f"cannot be read: {error}") from error


def _value(name: str, text: str, path: str | Path, where: str) -> Any:
    if not text:
        return None
    parse, rule = _PARSERS[COLUMNS[name].kind]
    try:
        return parse(text)
    except (ValueError, KeyError) as error:
        raise ProfileError(path, f"{name} is {text!r}: it must be {rule}", where=where) from error


_PARSERS: Mapping[Kind, tuple[Any, str]] = {
    "text": (str, "a text"),
    "percent": (float, "a number"),
    "positive": (float, "a number"),
    "whole": (int, "a whole number"),
    "boolean": ({"true": True, "false": False}.__getitem__, "true or false"),
    "time": (datetime.fromisoformat, "a time as in ISO 8601"),
}


def _write_csv(path: Path, rows: Iterable[PairRow]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(CSV_HEAD + "\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow([_text(getattr(row, name)) for name in COLUMNS])


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _arrow_schema() -> Any:
    import pyarrow as pa

    types = {
        "text": pa.string(),
        "percent": pa.float64(),
        "positive": pa.float64(),
        "whole": pa.int32(),
        "boolean": pa.bool_(),
        "time": pa.timestamp("us", tz="UTC"),
    }
    listed = [
        pa.field(name, types[column.kind], nullable=column.nullable) for name, column in COLUMNS.items()
    ]
    return pa.schema(listed, metadata={VERSION_KEY: str(FORMAT_VERSION).encode()})


def _read_parquet(path: str | Path) -> Iterator[PairRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
    except (pa.ArrowException, OSError) as error:
        raise ProfileError(path, f"no parquet file, or damaged: {' '.join(str(error).split())}") from error
    found = (table.schema.metadata or {}).get(VERSION_KEY)
    if found != str(FORMAT_VERSION).encode():
        said = "no version" if found is None else f"version {found.decode(errors='replace')!r}"
        raise ProfileError(path, f"is no pair table of version {FORMAT_VERSION}: its metadata name {said}")
    _check_names(table.schema.names, path)
    for field in _arrow_schema():
        kind = table.schema.field(field.name).type
        if kind != field.type:
            raise ProfileError(path, f"column {field.name} has type {kind}, but it must be {field.type}")
    for values in table.to_pylist():
        yield PairRow(**values)


def _write_parquet(path: Path, rows: Iterable[PairRow]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=_arrow_schema())
    pq.write_table(table, path, write_page_checksum=True)
