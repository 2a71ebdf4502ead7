"""Request traces as files: CSV of rates or of arrivals, JSON of workloads.

    t_s,rps[,function]      the rate from this row to the next of the same function; the last row lasts as
                            long as the one before it
    t_s[,function]          one arrival a row; the trace covers the whole seconds from the first to the last
    {"interval_s": 1, "rps": [8, 8, ...]}, or an object of such workloads by name

Without the column `function` the load is that of every function.
"""

from __future__ import annotations

import csv
import difflib
import json
import math
import warnings
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapp.types import FloatArray
from scaler.arrivals import ArrivalTimes, RateSteps
from scaler.errors import TraceError

COLUMNS = ("t_s", "rps", "function")
Load = RateSteps | ArrivalTimes


def read_load(path: str | Path) -> dict[str | None, Load]:
    """The load of each function in a trace; the key None stands for every function.

    Args:
        path: `*.csv`, `*.json`, or `*.json#name` for one workload of several.

    Raises:
        TraceError: unreadable, another format, no row, an unknown column, a value that is no number, negative
            or not finite, rows that are not in the order of time, a workload that is not there.
    """
    file, _, workload = str(path).partition(".json#")
    if workload:
        return {None: _workload(Path(f"{file}.json"), workload)}
    suffix = Path(path).suffix.lower()
    if suffix == ".json":
        return {None: _workload(Path(path), None)}
    if suffix != ".csv":
        raise TraceError(path, "is neither .csv nor .json")
    return _csv(Path(path))


class _Rows:
    """Rows of one function: their lines, times and, of a rate, values."""

    def __init__(self) -> None:
        self.line, self.t_s, self.rps = array("q"), array("d"), array("d")


def _csv(file: Path) -> dict[str | None, Load]:
    plain = _read_at_once(file)
    if plain is not None:
        return {None: plain}
    with _opened(file) as stream:
        reader = csv.reader(stream, strict=True)
        try:
            names = [name.strip() for name in next(reader, [])]
            _check_columns(file, names)
            rows = _collect(file, names, reader)
        except csv.Error as error:
            raise TraceError(file, f"is not valid CSV: {error}", where=f"line {reader.line_num}") from error
        except UnicodeDecodeError as error:
            raise TraceError(file, "is not text in UTF-8") from error
    if not rows:
        raise TraceError(file, "holds no row")
    for own in rows.values():
        _check(file, own)
    return {name: _load(np.array(own.t_s), np.array(own.rps)) for name, own in rows.items()}


def _read_at_once(file: Path) -> Load | None:
    """The load of a file of numbers in which all is well, in a fifth of the time; else None.

    What is wrong, and in which line, is for the reading row by row to say.
    """
    with _opened(file) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy warns of a file without rows
        try:
            names = [name.strip() for name in stream.readline().split(",")]
            if names not in (["t_s"], ["t_s", "rps"]):
                return None
            values = np.loadtxt(stream, delimiter=",", comments=None, ndmin=2)
        except ValueError:
            return None
    if not values.size or values.shape[1] != len(names):
        return None
    t_s, rps = values[:, 0], values[:, 1:].ravel()
    well = bool(np.isfinite(values).all() and values.min() >= 0)
    return _load(t_s, rps) if well and not _falls(t_s, rps).any() and len(rps) != 1 else None


def _load(t_s: FloatArray, rps: FloatArray) -> Load:
    """From the columns of one function, of which `rps` is empty for a trace of arrivals."""
    if not len(rps):
        return ArrivalTimes(t_s, math.floor(t_s[0]), math.floor(t_s[-1]) + 1.0)
    # A last row of rps 0 that marks the end adds a rest as long as the step before it, which costs nothing.
    return RateSteps(np.append(t_s, 2 * t_s[-1] - t_s[-2]), rps)


def _falls(t_s: FloatArray, rps: FloatArray) -> NDArray[np.bool_]:
    """Where a row does not come after the one before it, (N - 1,); arrivals may share a moment."""
    return np.asarray(np.diff(t_s) <= 0 if len(rps) else np.diff(t_s) < 0)


def _opened(file: Path) -> Any:
    try:
        return file.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise TraceError(file, f"cannot be read: {error.strerror}") from error


def _check_columns(file: Path, names: list[str]) -> None:
    if not any(names):
        raise TraceError(file, "is empty")
    for name in names:
        if name not in COLUMNS:
            close = difflib.get_close_matches(name, COLUMNS, n=1)
            hint = f" (near: {close[0]})" if close else f"; known are {', '.join(COLUMNS)}"
            raise TraceError(file, f"unknown column {name!r}{hint}", where="line 1")
        if names.count(name) > 1:
            raise TraceError(file, f"column {name} twice", where="line 1")
    if "t_s" not in names:
        raise TraceError(file, "lacks the column t_s", where="line 1")


def _collect(file: Path, names: list[str], reader: Any) -> dict[str | None, _Rows]:
    at_t = names.index("t_s")
    at_rps = names.index("rps") if "rps" in names else None
    at_function = names.index("function") if "function" in names else None
    rows: dict[str | None, _Rows] = {}
    for cells in reader:
        if not any(cells):
            continue
        if len(cells) != len(names):
            raise TraceError(
                file, f"{len(cells)} values for {len(names)} columns", where=f"line {reader.line_num}"
            )
        function = None if at_function is None else cells[at_function].strip()
        if function == "":
            raise TraceError(file, "function is empty", where=f"line {reader.line_num}")
        own = rows.get(function)
        if own is None:
            own = rows[function] = _Rows()
        try:
            own.t_s.append(float(cells[at_t]))
            if at_rps is not None:
                own.rps.append(float(cells[at_rps]))
        except ValueError as error:
            raise TraceError(file, str(error), where=f"line {reader.line_num}") from None
        own.line.append(reader.line_num)
    return rows


def _check(file: Path, rows: _Rows) -> None:
    """See that the rows of one function make a load."""
    t_s, rps = np.array(rows.t_s), np.array(rows.rps)
    for name, values in (("t_s", t_s), ("rps", rps)):
        bad = ~(np.isfinite(values) & (values >= 0))
        if bad.any():
            place = int(np.argmax(bad))
            raise TraceError(
                file, f"{name} is {values[place]:g}: it must be 0 or more", where=f"line {rows.line[place]}"
            )
    falls = _falls(t_s, rps)
    if falls.any():
        place = int(np.argmax(falls)) + 1
        raise TraceError(
            file,
            f"t_s {t_s[place]:.15g} does not come after {t_s[place - 1]:.15g}: sort the rows by time",
            where=f"line {rows.line[place]}",
        )
    if len(rps) == 1:
        raise TraceError(
            file, "a single row has no length: add one of rps 0 where it ends", where=f"line {rows.line[0]}"
        )


def _workload(file: Path, name: str | None) -> RateSteps:
    with _opened(file) as stream:
        try:
            content = json.load(stream)
        except (ValueError, RecursionError) as error:
            raise TraceError(file, f"is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise TraceError(file, "is no workload: an object with interval_s and rps, or one of such objects")
    if "rps" in content:
        if name is not None:
            raise TraceError(file, f"is one workload without a name: leave out #{name}")
        return _from_workload(file, content, "")
    if name is None and len(content) == 1:
        name = next(iter(content))
    if name is None or name not in content:
        known = ", ".join(content) or "none"
        asked = "holds several workloads" if name is None else f"has no workload {name!r}"
        raise TraceError(file, f"{asked}: name one as {file.name}#NAME; it has {known}")
    return _from_workload(file, content[name], name)


def _from_workload(file: Path, content: Any, name: str) -> RateSteps:
    where = name or None
    if not (isinstance(content, Mapping) and isinstance(content.get("rps"), list)):
        raise TraceError(file, "lacks rps, a list of rates", where=where)
    interval_s = content.get("interval_s")
    if not (isinstance(interval_s, int | float) and _positive(interval_s)):
        raise TraceError(file, f"interval_s is {interval_s!r}: it must be a positive number", where=where)
    rates = list(_rates(file, content["rps"], where))
    if not rates:
        raise TraceError(file, "rps is empty", where=where)
    return RateSteps(np.arange(len(rates) + 1, dtype=np.float64) * interval_s, np.array(rates))


def _rates(file: Path, listed: list[Any], where: str | None) -> Iterator[float]:
    for index, value in enumerate(listed):
        if not (_positive(value) or (value == 0 and not isinstance(value, bool))):
            raise TraceError(file, f"rps[{index}] is {value!r}: it must be a number, 0 or more", where=where)
        yield float(value)


def _positive(value: object) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    )
