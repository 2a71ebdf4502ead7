"""What an evaluation reads: the rows of a table that an artifact can answer for, and their graph files."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rapp.errors import ConfigError, GraphError, ProfileError
from rapp.profiles.table import ProfileTable

if TYPE_CHECKING:
    from rapp.card import Card


def artifact_folder(path: str | Path) -> Path:
    """The artifact of a training run, which is its folder `artifact`; any other path is taken as it is."""
    inside = Path(path) / "artifact"
    return inside if inside.is_dir() else Path(path)


def answerable(table: ProfileTable, card: Card) -> ProfileTable:
    """The measured rows on the artifact's device, runtime, precision, quota kinds; no anchor, none derived.

    Raises:
        ProfileError: there is none; names the column in which the table and the artifact differ.
    """
    rows = table.filter(status="ok", anchor=False, derived=False)
    if not len(rows):
        raise ProfileError(table.source, "holds no measured point")
    settings = {
        "device": [card.device],
        "runtime": [card.runtime],
        "precision": [card.precision],
        "quota_kind": [str(kind) for kind in card.quota_kinds],
    }
    for name, wanted in settings.items():
        found = sorted(set(rows.column(name).tolist()))
        rows = rows.filter(**{name: wanted})
        if not len(rows):
            raise ProfileError(
                table.source,
                f"its {name} is {' or '.join(found)}, the artifact's is {' or '.join(wanted)}:"
                " give profiles that were measured as the artifact's were",
            )
    return rows


def chosen_networks(table: ProfileTable, names: Sequence[str] | None) -> list[str]:
    """The networks asked for, sorted, or all of the table.

    Raises:
        ConfigError: one that the table does not have, with the nearest names, or an empty list.
    """
    known = table.networks()
    if names is None:
        return known
    if not names:
        raise ConfigError("the list of networks is empty")
    for name in names:
        if name not in known:
            raise ConfigError(
                f"{table.source}: no network {name!r}{near(name, known)}; it has {len(known)},"
                f" from {known[0]} to {known[-1]}"
            )
    return sorted(set(names))


def graph_file(folder: str | Path, network: str) -> Path:
    """`<folder>/<network>.onnx`.

    Raises:
        GraphError: no such folder, or no such file in it, with the nearest names.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise GraphError(folder, "is a file, not a folder" if folder.exists() else "no such folder")
    file = folder / f"{network}.onnx"
    if not file.is_file():
        there = [path.name for path in folder.glob("*.onnx")]
        raise GraphError(file, f"no such file: the graph of {network} is needed{near(file.name, there)}")
    return file


def table_hash(rows: ProfileTable, network: str) -> str | None:
    """The graph hash of a network's rows; None if they have none.

    Raises:
        ProfileError: they have more than one.
    """
    hashes = {value for value in rows.filter(network=network).column("graph_hash") if value is not None}
    if len(hashes) > 1:
        raise ProfileError(rows.source, f"the rows of {network} have {len(hashes)} different graph hashes")
    return hashes.pop() if hashes else None


def near(name: str, known: Iterable[str]) -> str:
    """` (near: a, b)`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f" (near: {', '.join(close)})" if close else ""
