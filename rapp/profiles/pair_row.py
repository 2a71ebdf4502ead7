"""One row of a pair table: its columns, and what they may hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

FORMAT_VERSION = 1

ROUNDING = 0.01
"""What `slowdown` may be off from `together_ms / alone_ms`: tables are written with few digits."""


@dataclass(frozen=True, slots=True)
class PairRow:
    """What `network` suffered from `other`.

    Args:
        device: model of the device.
        device_uuid: which one of that model; None: unknown.
        runtime: what ran both: `ort-cuda`, `ort-cpu`, ...
        network: the one that was timed. other: the one beside it.
        sm_pct, other_sm_pct: their SM partitions, %.
        batch, other_batch: their batches.
        alone_ms: median wall time of a batch while the other is loaded and idle, ms.
        together_ms: the same while the other runs batch after batch, ms.
        slowdown: together_ms / alone_ms.
        slowdown_low, slowdown_high: where it lies with 90 % at least; None: too few samples to say.
        n_samples: batches timed together.
        converged: whether all the medians that it is from met the stop rule.
        started_at: when the first batch was timed, with a time zone; None: unknown.
    """

    device: str
    device_uuid: str | None
    runtime: str
    network: str
    other: str
    sm_pct: float
    other_sm_pct: float
    batch: int
    other_batch: int
    alone_ms: float
    together_ms: float
    slowdown: float
    slowdown_low: float | None
    slowdown_high: float | None
    n_samples: int
    converged: bool
    started_at: datetime | None


Kind = Literal["text", "percent", "positive", "whole", "boolean", "time"]


@dataclass(frozen=True, slots=True)
class PairColumn:
    """What a column holds, and whether a value may be unknown."""

    kind: Kind
    nullable: bool = False


COLUMNS: Mapping[str, PairColumn] = {
    "device": PairColumn("text"),
    "device_uuid": PairColumn("text", nullable=True),
    "runtime": PairColumn("text"),
    "network": PairColumn("text"),
    "other": PairColumn("text"),
    "sm_pct": PairColumn("percent"),
    "other_sm_pct": PairColumn("percent"),
    "batch": PairColumn("whole"),
    "other_batch": PairColumn("whole"),
    "alone_ms": PairColumn("positive"),
    "together_ms": PairColumn("positive"),
    "slowdown": PairColumn("positive"),
    "slowdown_low": PairColumn("positive", nullable=True),
    "slowdown_high": PairColumn("positive", nullable=True),
    "n_samples": PairColumn("whole"),
    "converged": PairColumn("boolean"),
    "started_at": PairColumn("time", nullable=True),
}

_RULES: Mapping[Kind, tuple[Callable[[Any], bool], str]] = {
    "text": (lambda value: bool(value.strip()), "not be blank"),
    "percent": (lambda value: 0 < value <= 100, "lie in (0, 100]"),
    "positive": (lambda value: 0 < value < math.inf, "be a finite number above 0"),
    "whole": (lambda value: 1 <= value < 2**31, "be 1 or more"),
    "boolean": (lambda value: isinstance(value, bool), "be true or false"),
    "time": (lambda value: value.tzinfo is not None, "have a time zone"),
}


def fault(row: PairRow) -> str | None:
    """The first thing wrong with a row, in words; None: nothing is."""
    for name, column in COLUMNS.items():
        value = getattr(row, name)
        if value is None:
            if not column.nullable:
                return f"{name} is empty, but it must be known"
            continue
        holds, rule = _RULES[column.kind]
        if not holds(value):
            return f"{name} is {value!r}: it must {rule}"
    expected = row.together_ms / row.alone_ms
    if not abs(row.slowdown - expected) <= ROUNDING * expected:
        return f"slowdown is {row.slowdown:g}, but together_ms / alone_ms is {expected:g}"
    low, high = row.slowdown_low, row.slowdown_high
    if (low is None) != (high is None):
        return "slowdown_low and slowdown_high must both be known, or neither"
    slack = ROUNDING * row.slowdown
    if low is not None and high is not None and not low - slack <= row.slowdown <= high + slack:
        return f"slowdown is {row.slowdown:g}: it must lie between {low:g} and {high:g}"
    return None


def row_json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of one row, as committed in `rapp/schemas/pair_table.json`."""
    kinds: Mapping[Kind, dict[str, Any]] = {
        "text": {"type": "string", "minLength": 1},
        "percent": {"type": "number", "exclusiveMinimum": 0, "maximum": 100},
        "positive": {"type": "number", "exclusiveMinimum": 0},
        "whole": {"type": "integer", "minimum": 1},
        "boolean": {"type": "boolean"},
        "time": {"type": "string", "format": "date-time"},
    }
    properties = {}
    for name, column in COLUMNS.items():
        entry = dict(kinds[column.kind])
        if column.nullable:
            entry["type"] = [entry["type"], "null"]
        properties[name] = entry
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A row of a RaPP pair table, format version {FORMAT_VERSION}",
        "type": "object",
        "properties": properties,
        "required": list(COLUMNS),
        "additionalProperties": False,
    }
