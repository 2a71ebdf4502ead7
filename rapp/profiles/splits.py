"""`Split`: which rows of a profile table to learn from, to stop by, and to test on.

A committed split file names networks, or gives a rule, never row numbers: it selects the same points of a
table whatever the order of its rows.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from rapp.errors import ConfigError, ProfileError
from rapp.profiles.split_file import (
    SPLIT_VERSION,
    ColumnsFold,
    FamilySplit,
    HashFold,
    NetworkFold,
    NetworkSplit,
    RowSplit,
    SplitFile,
)
from rapp.profiles.table import ProfileTable

Mask = NDArray[np.bool_]
Fold = NetworkFold | HashFold | ColumnsFold

_log = logging.getLogger(__name__)
_adapter: TypeAdapter[Any] = TypeAdapter(SplitFile)


class SplitError(ProfileError):
    """A split file that is not valid, or does not fit the table at hand."""


class Split:
    """A split read from a file.

    Args:
        content: the checked content of the file.
        source: the file, for messages.
    """

    def __init__(self, content: NetworkSplit | FamilySplit | RowSplit, source: str | Path) -> None:
        self._content = content
        self.source = str(source)

    @classmethod
    def load(cls, path: str | Path) -> Split:
        """Read and check a split file.

        Raises:
            SplitError: no such file, no JSON, another version, or folds that are not valid.
        """
        try:
            raw = json.loads(Path(path).read_bytes())
        except OSError as error:
            raise SplitError(path, f"cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise SplitError(path, f"is not valid JSON: {error}") from error
        return cls.from_dict(raw, path)

    @classmethod
    def from_dict(cls, raw: object, source: str | Path = "split") -> Split:
        """A split from the content of a file.

        Raises:
            SplitError: another version, or folds that are not valid.
        """
        version = raw.get("version") if isinstance(raw, dict) else None
        if isinstance(version, int) and version > SPLIT_VERSION:
            raise SplitError(
                source, f"split format version {version}; this rapp reads {SPLIT_VERSION}: upgrade it"
            )
        try:
            return cls(_adapter.validate_python(raw), source)
        except ValidationError as error:
            first = error.errors()[0]
            # The tag of a union (`kind`, `rule`) is no place in the file.
            tags = ("network", "family", "rows", "hash", "columns")
            place = ".".join(str(part) for part in first["loc"] if part not in tags)
            reason = first["msg"].removeprefix("Value error, ")
            raise SplitError(source, reason, where=place or None) from error

    @property
    def name(self) -> str:
        """What the split is called: `unseen-network`."""
        return self._content.name

    @property
    def kind(self) -> str:
        """`network`, `family` or `rows`."""
        return self._content.kind

    @property
    def folds(self) -> tuple[Fold, ...]:
        """The folds as they stand in the file."""
        return tuple(self._content.folds)

    @property
    def families(self) -> dict[str, list[str]]:
        """Family -> its networks; empty unless the kind is `family`."""
        return dict(self._content.families) if isinstance(self._content, FamilySplit) else {}

    def networks(self) -> list[str]:
        """The networks that the split names, sorted; none if it splits by a rule."""
        first = self.folds[0]
        if not isinstance(first, NetworkFold):
            return []
        return sorted([*first.train, *first.validation, *first.test])

    def absent(self, table: ProfileTable) -> list[str]:
        """The networks that the split names and the table does not have: `select` leaves them out."""
        return sorted(set(self.networks()) - set(table.networks()))

    def select(self, table: ProfileTable, fold: int = 0) -> tuple[Mask, Mask, Mask]:
        """The rows to learn from, to stop by, and to test on: (train, validation, test).

        Each mask is boolean of shape (R,); every row is in exactly one. Rows of every status take part:
        take `table.ok()` first. Networks absent from the table are left out, and logged.

        Raises:
            ConfigError: no such fold.
            SplitError: the table has a network that the split does not name, or no row to learn from or
                to test on.
        """
        if not 0 <= fold < len(self.folds):
            raise ConfigError(f"{self.source}: no fold {fold}; it has 0 to {len(self.folds) - 1}")
        chosen = self.folds[fold]
        if isinstance(chosen, NetworkFold):
            masks = self._by_network(table, chosen)
        elif isinstance(chosen, HashFold):
            masks = _by_hash(table, chosen)
        else:
            held = np.isin(table.column(chosen.column), chosen.test)
            masks = ~held, np.zeros_like(held), held
        for side, mask in (("to learn from", masks[0]), ("to test on", masks[2])):
            if not mask.any():
                raise SplitError(self.source, f"fold {fold} leaves no row {side} in {table.source}")
        return masks

    def _by_network(self, table: ProfileTable, fold: NetworkFold) -> tuple[Mask, Mask, Mask]:
        unknown = sorted(set(table.networks()) - set(self.networks()))
        if unknown:
            names = ", ".join(unknown)
            raise SplitError(self.source, f"does not name {names} of {table.source}: filter the table")
        absent = self.absent(table)
        if absent:
            _log.info("%s: %d of its networks are not in %s: %s", self.source, len(absent), table.source,
                      ", ".join(absent))  # fmt: skip
        networks = table.column("network")
        place = dict.fromkeys(fold.train, 0) | dict.fromkeys(fold.validation, 1) | dict.fromkeys(fold.test, 2)
        side = np.array([place[name] for name in networks.tolist()], dtype=np.int8)
        return side == 0, side == 1, side == 2


def point_share(seed: int, network: str, batch: int, sm_pct: float, quota_pct: float) -> float:
    """A point's place in [0, 1), uniform over points: what decides its side under the rule `hash`.

    The first 8 bytes, big-endian, of SHA-256 of `seed|network|batch|sm_pct|quota_pct` in UTF-8, over 2^64;
    percentages as `%.6g`. Below `train` a point is for training, below `train + validation` for validation,
    else for test. Device, campaign and quota kind do not count, so that repetitions of a point stay together.
    """
    text = f"{seed}|{network}|{batch}|{sm_pct:.6g}|{quota_pct:.6g}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2.0**64


def _by_hash(table: ProfileTable, fold: HashFold) -> tuple[Mask, Mask, Mask]:
    columns = (table.column(name).tolist() for name in ("network", "batch", "sm_pct", "quota_pct"))
    share = np.array([point_share(fold.seed, *point) for point in zip(*columns, strict=True)], dtype=float)
    train = share < fold.fractions.train
    test = share >= fold.fractions.train + fold.fractions.validation
    return train, ~train & ~test, test
