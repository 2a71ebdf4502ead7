"""What the replay device takes from a profile table: one setting, and the answer at each place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rapp.errors import ConfigError, ProfileError
from rapp.types import QuotaKind

if TYPE_CHECKING:
    from rapp.profiles import ProfileTable

SETTING = (
    "device", "device_uuid", "runtime", "precision", "quota_kind", "window_ms", "granularity_ms", "idle_ms",
)  # fmt: skip
"""Columns that all rows of a device agree in."""

CHOICES = (*SETTING, "campaign_id")
"""Columns by which rows can be chosen."""

Place = tuple[float, int, float]
"""SM partition, %; batch; quota, %."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One row of the table: times in ms, memory in MiB; None: the table does not tell."""

    latency_ms: float
    device_ms: float | None
    launch_ms: float | None
    sm_count: int | None
    peak_memory_mib: float | None


@dataclass(frozen=True, slots=True)
class Answers:
    """Rows of one setting.

    Args:
        setting: the common values, by column.
        places: by network, what it answers at each place.
        hashes: by network, the hash of its graph; None: the table does not tell.
    """

    setting: Mapping[str, Any]
    places: Mapping[str, Mapping[Place, Answer]]
    hashes: Mapping[str, str | None]


def read_answers(table: ProfileTable, where: Mapping[str, str]) -> Answers:
    """The answers of the rows with status ok that are no anchors; a measured row goes before a derived one.

    Args:
        where: text of a value by column, of those in `CHOICES`.

    Raises:
        ConfigError: a value that its column cannot hold.
        ProfileError: no row is left, or they are of several settings, or one point is there twice.
    """
    rows = table.filter(status="ok", anchor=False)
    for name, text in where.items():
        rows = rows.filter(**{name: _value(name, text)})
    if not len(rows):
        told = " with " + ", ".join(f"{name} {text}" for name, text in where.items()) if where else ""
        raise ProfileError(table.source, f"has no measured point{told} to replay")
    setting = {name: _common(rows, name) for name in SETTING}
    setting["quota_kind"] = QuotaKind(setting["quota_kind"])
    if setting["idle_ms"] is None:
        raise ProfileError(
            table.source, "does not tell idle_ms, the pause between batches: it cannot be replayed"
        )
    places: dict[str, dict[Place, Answer]] = {}
    derived: set[tuple[str, Place]] = set()
    for row in sorted(rows.arrow.to_pylist(), key=lambda row: bool(row["derived"])):
        name, place = row["network"], (row["sm_pct"], row["batch"], row["quota_pct"])
        own = places.setdefault(name, {})
        if place not in own:
            own[place] = Answer(*(row[column] for column in Answer.__dataclass_fields__))
            if row["derived"]:
                derived.add((name, place))
        elif not row["derived"] or (name, place) in derived:
            where_ = f"{name}, SM {place[0]:g} %, batch {place[1]}, quota {place[2]:g} %"
            raise ProfileError(
                table.source, f"{where_} is there more than once: choose one campaign with ?campaign_id="
            )
    return Answers(setting, places, _hashes(rows))


def _value(name: str, text: str) -> object:
    if not name.endswith("_ms"):
        return text
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"replay: {name}={text!r} is no number") from error


def _common(rows: ProfileTable, name: str) -> Any:
    found = rows.arrow.column(name).unique().to_pylist()
    if len(found) > 1:
        told = ", ".join("unknown" if value is None else str(value) for value in found[:4])
        raise ProfileError(rows.source, f"has rows of more than one {name} ({told}): choose with ?{name}=")
    return found[0]


def _hashes(rows: ProfileTable) -> dict[str, str | None]:
    hashes: dict[str, str | None] = {}
    for row in (
        rows.arrow.select(["network", "graph_hash"])
        .group_by(["network", "graph_hash"])
        .aggregate([])
        .to_pylist()
    ):
        name, graph_hash = row["network"], row["graph_hash"]
        if hashes.get(name) not in (None, graph_hash) and graph_hash is not None:
            raise ProfileError(rows.source, f"the rows of {name} have different graph hashes")
        hashes[name] = graph_hash or hashes.get(name)
    return hashes
