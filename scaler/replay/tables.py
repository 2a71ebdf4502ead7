"""Tables of records: what the event loop reads and writes, `table[i].field`, and their columns as arrays.

Compiled code takes numpy's record arrays. In Python these answer some twenty times slower than an array does,
so without numba a table of few lines takes their place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaler.replay.compiling import COMPILED

Table = Any
"""A `numpy.recarray` or a `PlainTable`: what its fields are is known to its dtype alone."""


def table(of: np.dtype[Any], rows: int, values: Mapping[str, ArrayLike] | None = None) -> Table:
    """A table of zeros, but for the columns in `values`."""
    data = np.zeros(rows, dtype=of)
    for name, column in (values or {}).items():
        data[name] = column
    return data.view(np.recarray) if COMPILED else PlainTable(data)


def column(of: Table, name: str) -> NDArray[Any]:
    """A field of all records as an array, a view."""
    data = of.data if isinstance(of, PlainTable) else of
    return np.asarray(data[name])


class PlainTable:
    """Records whose fields are attributes, for Python alone.

    Args:
        data: (N,) structured array; changed through the records.
    """

    def __init__(self, data: NDArray[Any]) -> None:
        self.data = data
        fields = {name: _field(data[name]) for name in data.dtype.names or ()}
        self._record = type("Record", (_Record,), {"__slots__": (), **fields})

    def __getitem__(self, at: int) -> Any:
        """The record at a place: what is set in it is set in `data`."""
        return self._record(at)

    def __len__(self) -> int:
        """The number of records."""
        return len(self.data)


class _Record:
    __slots__ = ("at",)

    def __init__(self, at: int) -> None:
        self.at = at


def _field(values: NDArray[Any]) -> property:
    item = values.item

    def read(record: _Record) -> Any:
        return item(record.at)

    def write(record: _Record, value: Any) -> None:
        values[record.at] = value

    return property(read, write)
