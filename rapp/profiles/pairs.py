"""`PairTable`: how much two networks on one device slow each other down, as measured side by side.

    table = PairTable.read("pairs.csv")
    table.lookup("resnet50", "vgg16")        # 1.12: resnet50 takes 1.12 times as long beside vgg16

Format version 1, as CSV (its first line names format and version) or parquet (its metadata do). A row says
what one of the two suffered; a pair that was measured has two. `rapp/schemas/pair_table.json` is the JSON
Schema of a row.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import median

from rapp.errors import ProfileError
from rapp.profiles.pair_files import read_rows, write_rows
from rapp.profiles.pair_row import PairRow, fault

__all__ = ["PairRow", "PairTable"]


class PairTable:
    """Measured pairs, checked and immutable.

    Args:
        rows: in any order; a pair may have been measured several times.
        source: the file that messages name.

    Raises:
        ProfileError: a row that cannot be; names it and says why.
    """

    def __init__(self, rows: Iterable[PairRow], source: str | Path = "pair table") -> None:
        self.rows, self.source = tuple(rows), str(source)
        for number, row in enumerate(self.rows):
            reason = fault(row)
            if reason is not None:
                where = f"row {number} ({row.network} beside {row.other})"
                raise ProfileError(source, reason, where=where)

    @classmethod
    def read(cls, path: str | Path) -> PairTable:
        """Read and check a file, `.csv` or `.parquet`.

        Raises:
            ConfigError: a name that ends otherwise.
            ProfileError: no such file, no pair table, another version, or rows that are not valid.
        """
        return cls(read_rows(path), path)

    def write(self, path: str | Path) -> None:
        """Write to a file, `.csv` or `.parquet`, which appears whole or not at all.

        Raises:
            ConfigError: a name that ends otherwise.
            RappError: it cannot be written.
        """
        write_rows(path, self.rows)

    @classmethod
    def concat(cls, tables: Iterable[PairTable]) -> PairTable:
        """The rows of all tables, in order."""
        listed = list(tables)
        return cls([row for one in listed for row in one.rows], " + ".join(one.source for one in listed))

    def lookup(self, network: str, other: str, *, device: str | None = None) -> float | None:
        """How many times longer `network` takes beside `other`: the median of all rows; None: there is none.

        Args:
            device: count this model of device alone; None: all.
        """
        found = [
            row.slowdown
            for row in self.rows
            if (row.network, row.other) == (network, other) and device in (None, row.device)
        ]
        return median(found) if found else None

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.rows)

    def __eq__(self, other: object) -> bool:
        """Whether the rows are the same in the same order."""
        return isinstance(other, PairTable) and self.rows == other.rows

    __hash__ = None  # type: ignore[assignment]
