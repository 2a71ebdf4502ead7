"""The file format of a campaign's journal: a header, then one line an outcome, each with its CRC-32.

A last line that was cut off is no damage, since what was in flight when a process is killed ends so. Damage
anywhere else is an error: what stood there cannot be known.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from profiler.outcome import Outcome, Status
from profiler.plan import Point
from profiler.specification import Specification
from rapp.errors import DataError, RappError

FORMAT = "rapp.campaign.journal"
VERSION = 1

_BEGINNING = f'{{"format":"{FORMAT}"'.encode()


class JournalError(DataError):
    """A journal that is damaged, of another version, or no journal."""


@dataclass(slots=True)
class Record:
    """What a journal holds.

    Args:
        campaign_id: of the header. specification: of the header.
        outcomes: the last of each point, in the order in which the points ended first.
        length: bytes of its whole lines; what follows was cut off.
    """

    campaign_id: str
    specification: Specification
    outcomes: dict[Point, Outcome] = field(default_factory=dict)
    length: int = 0


def read_journal(path: str | Path) -> Record | None:
    """What the journal at `path` holds; None if there is none, or one whose header was cut off.

    Raises:
        JournalError: it is damaged, of another version, or no journal.
        RappError: it cannot be read.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RappError(f"{path}: cannot be read: {error.strerror or error}") from error
    return parse_journal(content, path)


def header_line(campaign_id: str, started_at: datetime, specification: Specification) -> bytes:
    """The first line of a journal."""
    return _line(
        {
            "format": FORMAT,
            "version": VERSION,
            "campaign_id": campaign_id,
            "started_at": started_at.isoformat(),
            "specification": specification,
        }
    )


def outcome_line(outcome: Outcome) -> bytes:
    """The line of an outcome."""
    return _line({"outcome": outcome.to_json()})


def parse_journal(content: bytes, path: str | Path) -> Record | None:
    """The record of a journal's content; what follows its last whole line is left out."""
    *lines, rest = content.split(b"\n")
    if content[: len(_BEGINNING)] != _BEGINNING[: len(content)]:
        raise _not_a_journal(path)
    record: Record | None = None
    for number, line in enumerate(lines, 1):
        try:
            entry = _entry(line)
            if record is None:
                record = _header(entry, path)
            else:
                _add(record, Outcome.from_json(entry["outcome"]), path, number)
        except JournalError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RappError) as error:
            if number == len(lines) and not rest and record is not None:
                break  # power was lost while it was written
            raise JournalError(
                path,
                "is damaged, and what stood there is lost: restore the file, or move it and its table away"
                f" and measure anew ({error})",
                where=f"line {number}",
            ) from error
        record.length += len(line) + 1
    return record


def _header(entry: Mapping[str, Any], path: str | Path) -> Record:
    if entry.get("format") != FORMAT:
        raise _not_a_journal(path)
    if entry.get("version") != VERSION:
        raise JournalError(
            path,
            f"has format version {entry.get('version')}, but this rapp reads version {VERSION} alone:"
            " go on with the rapp that began it, or give another --out",
        )
    return Record(entry["campaign_id"], entry["specification"])


def _not_a_journal(path: str | Path) -> JournalError:
    return JournalError(path, "is no journal of a campaign: give another --out, or move the file away")


def _add(record: Record, outcome: Outcome, path: str | Path, number: int) -> None:
    before = record.outcomes.get(outcome.point)
    if before is not None and before.status == Status.OK:
        raise JournalError(path, f"measures {outcome.point} a second time", where=f"line {number}")
    record.outcomes[outcome.point] = outcome


def _line(entry: Mapping[str, Any]) -> bytes:
    text = json.dumps(entry, allow_nan=False, separators=(",", ":"))
    return f'{text[:-1]},"crc32":"{zlib.crc32(text.encode()):08x}"}}\n'.encode()


def _entry(line: bytes) -> dict[str, Any]:
    """The inverse of `_line`.

    Raises:
        ValueError: it is no such line, or was changed.
    """
    text, mark, check = line.decode().rpartition(',"crc32":"')
    text += "}"
    if not mark or check != f'{zlib.crc32(text.encode()):08x}"}}':
        raise ValueError("its check sum is wrong")
    entry = json.loads(text)
    if not isinstance(entry, dict):
        raise ValueError("it is no JSON object")
    return entry
