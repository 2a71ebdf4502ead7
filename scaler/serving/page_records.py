"""Records that controllers left, as the page shows them: who controls, what was decided, what is expected.

A record is any JSON object, so nothing of it is taken for granted but `decision`, which was checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scaler.serving.page_history import Outlook

SILENT_AFTER = 3.0
"""Times the period of its records after which a controller counts as silent."""
EVERY_S = 5.0
"""Period of a controller that does not tell (`scaler.live.recorder`)."""
FORGOTTEN_S = 600.0
"""A controller that ended or fell silent so long ago is not shown any more."""
MOST_CONTROLLERS = 8
MOST_CHANGES = 200
"""Changes of one decision that are shown."""
_MOST_CHARACTERS = 200

Record = Mapping[str, Any]

_STATES = {
    "applied": "leads, makes its changes",
    "failed": "leads, could not make its changes",
    "advice": "gives advice, changes nothing",
    "standby": "stands by, another leads",
}
_LEADING = ("applied", "failed")


def controllers(records: Sequence[Record], now_s: float) -> list[dict[str, Any]]:
    """Those that were heard of lately, the leader first.

    Args:
        records: the oldest first. now_s: CLOCK_MONOTONIC, s.
    """
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        name = _text(record.get("controller")) or "a controller"
        # What is not said again stays.
        one = found.setdefault(name, {"name": name, "policy": "", "mode": ""})
        for key in ("policy", "mode"):
            one[key] = _text(record.get(key)) or one[key]
        one["every_s"] = _number(record.get("every_s")) or one.get("every_s", EVERY_S)
        event = record.get("event")
        # As the words of `scaler.live.tick.Happening`.
        one["mode"] = {"leads": "applied", "lost the lease": "standby"}.get(str(event), one["mode"])
        one["stopped"] = event == "stopped"
        one["seen_s"] = record["recorded_s"]
    shown = [_judged(one, now_s) for one in found.values() if now_s - one["seen_s"] < FORGOTTEN_S]
    return sorted(shown, key=lambda one: (one["rank"], -one["seen_s"]))[:MOST_CONTROLLERS]


def _judged(one: dict[str, Any], now_s: float) -> dict[str, Any]:
    ago_s = now_s - one["seen_s"]
    if one["stopped"]:
        state, kind, rank = "has ended; instances stay as they are", "ended", 3
    elif ago_s > SILENT_AFTER * one["every_s"]:
        state, kind, rank = "is silent; instances stay as they are", "silent", 2
    else:
        mode = one["mode"]
        state, kind = _STATES.get(mode, "runs"), "leads" if mode in _LEADING else mode or "runs"
        rank = 0 if mode in _LEADING else 1
    kept = {key: one[key] for key in ("name", "policy", "mode", "seen_s")}
    return {**kept, "state": state, "kind": kind, "rank": rank}


def outlooks(records: Sequence[Record], now_s: float) -> dict[str, Outlook]:
    """What the leader, or else one that gives advice, expects of each function; nothing old."""
    found: tuple[int, Record] | None = None
    for record in reversed(records):
        every_s = _number(record.get("every_s")) or EVERY_S
        if now_s - record["recorded_s"] > SILENT_AFTER * every_s:
            break
        if "decision" not in record:
            continue
        rank = _rank(record)
        if found is None or rank < found[0]:
            found = rank, record
        if rank == 0:
            break
    if found is None:
        return {}
    return {
        str(name): Outlook(one["upper_rps"], one["capacity_rps"])
        for name, one in (found[1]["decision"].get("outlook") or {}).items()
        if math.isfinite(one["upper_rps"]) and math.isfinite(one["capacity_rps"])
    }


def _rank(record: Record) -> int:
    mode = record.get("mode")
    return 0 if mode in _LEADING else 1 if mode == "advice" else 2


def decisions(records: Iterable[Record], since_s: float) -> list[dict[str, Any]]:
    """Records left after a time, with their changes in words; those without any, and of standbys, are left
    out, as they say nothing that a person could act on."""
    shown = []
    for record in records:
        if record["recorded_s"] <= since_s or record.get("mode") == "standby":
            continue
        decision = record.get("decision") or {}
        refused = _refused(record.get("refused"))
        changes = [_change(one, refused.get(one["id"])) for one in decision.get("actions") or ()]
        changes += [_change(one, f"dropped: {why}") for one, why in decision.get("dropped") or ()]
        event = _text(record.get("event"))
        if not changes and event in ("", "decision"):
            continue
        shown.append({
            "number": record["number"],
            "at_s": record["recorded_s"],
            "event": event,
            "detail": _text(record.get("detail")),
            "mode": _text(record.get("mode")),
            "controller": _text(record.get("controller")),
            "changes": changes[:MOST_CHANGES],
            "more": max(len(changes) - MOST_CHANGES, 0),
        })  # fmt: skip
    return shown


def _change(action: Mapping[str, Any], why_not: str | None) -> dict[str, Any]:
    config = action.get("config") or action
    sizes = []
    if "sm_pct" in config:
        sizes.append(f"SM {config['sm_pct']:g} %")
    if "quota_pct" in config:
        sizes += [f"quota {config['quota_pct']:.4g} %", f"batch {config['batch']}"]
    return {
        "kind": action["kind"],
        "id": action["id"],
        "function": action["function"],
        "to": ", ".join(sizes),
        "reason": action["reason"],
        "why_not": why_not,
    }


def _refused(given: Any) -> dict[str, str]:
    listed = given if isinstance(given, list) else []
    return {
        _text(one.get("id")): f"refused: {_text(one.get('why'))}" for one in listed if isinstance(one, dict)
    }


def _text(value: Any) -> str:
    return value[:_MOST_CHARACTERS] if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) and value > 0 else None
