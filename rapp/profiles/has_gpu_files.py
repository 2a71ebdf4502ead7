"""One JSON file of the public V100 profiles, checked entry by entry."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

from rapp.errors import ProfileError


def read_latency_file(file: Path, network: str, sm_pct: float) -> Iterator[tuple[int, float, float]]:
    """The points of `<network>_<sm>.json` as (batch, quota in %, mean latency in ms), in its order.

    Args:
        file: `{"model_name", "profiling_result": [{"batch", "sm", "quota", "latency"}, ...]}`.
        network: the name that the file's name says, which `model_name` must be.
        sm_pct: the SM partition that the file's name says, %, which every `sm` must be.

    Raises:
        ProfileError: what is wrong, with the number of the entry and its point.
    """
    content = _object(file)
    _check_name(file, content, network)
    entries = content.get("profiling_result")
    if not isinstance(entries, list) or not entries:
        raise ProfileError(file, "profiling_result must be a list with at least one entry")
    seen: dict[tuple[float, float], int] = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ProfileError(file, "is not an object", where=f"entry {number}")
        point = ", ".join(f"{key} {entry[key]!r}" for key in ("batch", "sm", "quota") if key in entry)
        where = f"entry {number} ({point})"
        batch, sm, quota, latency_ms = (
            _number(file, entry, key, where) for key in ("batch", "sm", "quota", "latency")
        )
        if batch < 1 or batch != int(batch):
            raise ProfileError(file, "batch must be a whole number, 1 or more", where=where)
        if not 0 < quota <= 100:
            raise ProfileError(file, "quota must lie in (0, 100]", where=where)
        if sm != sm_pct:
            raise ProfileError(file, f"sm must be {sm_pct:g}, as in the file's name", where=where)
        if latency_ms <= 0:
            raise ProfileError(file, f"latency is {latency_ms:g} ms: it must be above 0", where=where)
        first = seen.setdefault((batch, quota), number)
        if first != number:
            raise ProfileError(file, f"the same point as entry {first}", where=where)
        yield int(batch), quota, latency_ms


def read_operator_file(file: Path, network: str, sm_pct: float) -> float:
    """The sum of the operators' times of `<network>_1_<sm>.json`, ms: its key `latency`.

    Raises:
        ProfileError: what is wrong.
    """
    content = _object(file)
    _check_name(file, content, network)
    for key, expected in (("sm_partition", sm_pct), ("batch_size", 1)):
        found = _number(file, content, key, None)
        if found != expected:
            raise ProfileError(file, f"{key} is {found:g}, but the file's name says {expected:g}")
    total_ms = _number(file, content, "latency", None)
    if total_ms <= 0:
        raise ProfileError(file, f"latency is {total_ms:g} ms: it must be above 0")
    return total_ms


def _object(file: Path) -> dict[str, object]:
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise ProfileError(file, f"cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise ProfileError(file, "is not valid JSON: nested too deep") from error
    except UnicodeDecodeError as error:
        raise ProfileError(file, f"is not valid JSON: {error.reason} at byte {error.start}") from error
    except ValueError as error:
        raise ProfileError(file, f"is not valid JSON, or truncated: {error}") from error
    if not isinstance(content, dict):
        raise ProfileError(file, "must be a JSON object")
    return content


def _check_name(file: Path, content: dict[str, object], network: str) -> None:
    if "model_name" not in content:
        raise ProfileError(file, "has no model_name")
    if content["model_name"] != network:
        raise ProfileError(
            file, f"model_name is {content['model_name']!r}, but the file's name says {network!r}"
        )


def _number(file: Path, entry: dict[str, object], key: str, where: str | None) -> float:
    if key not in entry:
        raise ProfileError(file, f"has no {key}", where=where)
    value = entry[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ProfileError(file, f"{key} is {value!r}: it must be a number", where=where)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ProfileError(file, f"{key} is {number}: it must be finite", where=where)
    return number
