"""`ProfileTable`: profile points as a checked, immutable table; parquet in and out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rapp.errors import ConfigError, ProfileError
from rapp.fileio import atomic_path
from rapp.profiles.check import checked
from rapp.profiles.digest import table_digest
from rapp.profiles.schema import ARROW_SCHEMA, BY_NAME
from rapp.types import FloatArray

IntArray = NDArray[np.int64]
TextArray = NDArray[np.object_]

_NOT_OF_TYPE = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError)

# Rows that differ in one of these do not belong to one curve of a network.
_ONE_CURVE = ("device", "runtime", "precision")


@dataclass(frozen=True, slots=True)
class Points:
    """The measured points of one network, as arrays of shape (P,).

    Args:
        sm_pct: SM partition, %.
        quota_pct: time quota, %.
        batch: requests executed together.
        latency_ms: mean wall time of one batch, ms, > 0.
        quota_kind: what the quota limits, a `rapp.types.QuotaKind` value as text.
    """

    sm_pct: FloatArray
    quota_pct: FloatArray
    batch: IntArray
    latency_ms: FloatArray
    quota_kind: TextArray

    def __len__(self) -> int:
        return len(self.latency_ms)


class ProfileTable:
    """Profile points of networks on devices: one row each, in the columns of `rapp.profiles.schema`.

    A table is valid from the moment it exists and does not change: `filter`, `where`, `ok` and
    `concat` make new ones. `source` is the file or folder that messages name.

    Raises:
        ProfileError: the pyarrow table is not a valid profile table.
    """

    def __init__(self, table: Any, source: str | Path = "profile table") -> None:
        self._table = checked(table, source)
        self.source = str(source)

    @classmethod
    def _trusted(cls, table: Any, source: str) -> ProfileTable:
        """Rows of a table that was checked already."""
        made = cls.__new__(cls)
        made._table, made.source = table, source
        return made

    @classmethod
    def from_rows(
        cls, rows: Iterable[Mapping[str, object]], source: str | Path = "profile table"
    ) -> ProfileTable:
        """A table from rows as mappings; a column left out is null.

        Raises:
            ProfileError: an unknown column, a value of another type, or rows that are not valid.
        """
        listed = list(rows)
        for number, row in enumerate(listed):
            unknown = [name for name in row if name not in BY_NAME]
            if unknown:
                raise ProfileError(source, f"unknown column {', '.join(unknown)}", where=f"row {number}")
        arrays = []
        for field in ARROW_SCHEMA:
            try:
                arrays.append(_array(field.name, [row.get(field.name) for row in listed]))
            except _NOT_OF_TYPE as error:
                raise ProfileError(source, f"column {field.name} must be {field.type}: {error}") from error
        table = pa.table(arrays, names=ARROW_SCHEMA.names)
        return cls(table.replace_schema_metadata(ARROW_SCHEMA.metadata), source)

    @classmethod
    def read(cls, path: str | Path) -> ProfileTable:
        """Read and check a parquet file.

        Raises:
            ProfileError: no such file, no parquet, truncated or damaged, another format version, or
                rows that are not valid; one line that names file, row and reason.
        """
        file = Path(path)
        try:
            if not file.is_file():
                raise ProfileError(path, _why_no_file(file))
            table = pq.ParquetFile(file, page_checksum_verification=True).read()
        except (pa.ArrowException, OSError) as error:
            raise ProfileError(path, _why_unreadable(file, error)) from error
        return cls(table, path)

    def write(self, path: str | Path) -> None:
        """Write to a parquet file, which appears whole or not at all; an existing one is replaced.

        Raises:
            RappError: the folder cannot be written, or the disk is full.
        """
        with atomic_path(path) as temporary:
            pq.write_table(self._table, temporary, compression="zstd", write_page_checksum=True)

    @classmethod
    def concat(cls, tables: Sequence[ProfileTable]) -> ProfileTable:
        """The rows of all tables, in order.

        Raises:
            ConfigError: no table.
            ProfileError: a point that two of the tables hold.
        """
        if not tables:
            raise ConfigError("concat needs at least one table")
        names = dict.fromkeys(table.source for table in tables)
        return cls(pa.concat_tables([table.arrow for table in tables]), " + ".join(names))

    @property
    def arrow(self) -> Any:
        """The pyarrow Table; the order of its columns is that of the schema."""
        return self._table

    def __len__(self) -> int:
        """The number of rows, R."""
        return int(self._table.num_rows)

    def __eq__(self, other: object) -> bool:
        """Whether the rows are the same in the same order; `rows_hash` does not look at the order."""
        return isinstance(other, ProfileTable) and bool(self._table.equals(other._table))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"ProfileTable({self.source}: {len(self):,} rows, {len(self.networks())} networks)"

    def networks(self) -> list[str]:
        """The names of its networks, sorted."""
        return sorted(pc.unique(self._table.column("network")).to_pylist())

    def column(self, name: str) -> NDArray[Any]:
        """One column as a numpy array of shape (R,).

        Numbers are float64 with NaN for null. Integers are int64, or float64 where some are null.
        Texts, and booleans that may be null, are objects with None for null; other booleans are bool.
        Times are datetime64[us], UTC, with NaT for null.

        Raises:
            ConfigError: no such column.
        """
        _known(name)
        values, kind = self._table.column(name), BY_NAME[name].kind
        array: NDArray[Any] = values.to_numpy()
        if kind == "number":
            return array.astype(np.float64)
        if kind == "integer":
            return array.astype(np.float64 if values.null_count else np.int64)
        if kind == "boolean" and not BY_NAME[name].nullable:
            return array.astype(bool)
        return array.astype("datetime64[us]" if kind == "time" else object)

    def where(self, mask: NDArray[np.bool_]) -> ProfileTable:
        """The rows where `mask`, boolean of shape (R,), is true.

        Raises:
            ConfigError: a mask of another shape.
        """
        mask = np.asarray(mask, dtype=bool)
        if mask.shape != (len(self),):
            raise ConfigError(f"the mask has shape {mask.shape}, but the table has {len(self)} rows")
        return self._trusted(self._table.filter(pa.array(mask)), self.source)

    def filter(self, **columns: object) -> ProfileTable:
        """The rows whose columns have the given value, or one of the given values.

            table.filter(network=["resnet50", "vgg16"], batch=1, quota_kind="launch_gate")

        Raises:
            ConfigError: no such column, or a value that its type cannot hold.
        """
        mask = pa.array(np.ones(len(self), dtype=bool))
        for name, wanted in columns.items():
            _known(name)
            values = [wanted] if isinstance(wanted, str) or not isinstance(wanted, Iterable) else list(wanted)
            try:
                allowed = _array(name, values)
            except _NOT_OF_TYPE as error:
                raise ConfigError(f"filter: {name} cannot be {wanted!r}") from error
            mask = pc.and_(mask, pc.is_in(self._table.column(name), value_set=allowed))
        return self._trusted(self._table.filter(mask), self.source)

    def ok(self) -> ProfileTable:
        """The rows that were measured: status `ok`."""
        return self.filter(status="ok")

    def points(self, network: str, *, derived: bool = False) -> Points:
        """The measured points of one network, for a learner: rows with status `ok` that are no anchors.

        Args:
            network: its name.
            derived: also the points that were computed from others.

        Raises:
            ConfigError: the table has no such network, or has it on more than one device, runtime or
                precision: `filter` first.
        """
        rows = self.filter(network=network, status="ok", anchor=False)
        if not derived:
            rows = rows.filter(derived=False)
        if len(rows) == 0:
            raise ConfigError(f"{self.source}: no measured point of the network {network!r}")
        for name in _ONE_CURVE:
            different = sorted(pc.unique(rows.arrow.column(name)).to_pylist())
            if len(different) > 1:
                raise ConfigError(
                    f"{self.source}: {network} has points of more than one {name}"
                    f" ({', '.join(different)}): choose one with filter({name}=...)"
                )
        names = ("sm_pct", "quota_pct", "batch", "latency_ms", "quota_kind")
        return Points(*(rows.column(name) for name in names))

    def rows_hash(self) -> str:
        """SHA-256 of the content, 64 hexadecimal digits: the same for any order of rows and any encoding."""
        return table_digest(self._table)


def _known(name: str) -> None:
    if name not in BY_NAME:
        raise ConfigError(f"a profile table has no column {name!r}; it has {', '.join(BY_NAME)}")


def _array(name: str, values: list[object]) -> Any:
    """A pyarrow array of the column's type."""
    kind = BY_NAME[name].arrow_type
    if pa.types.is_integer(kind):
        # At once, pyarrow would make 1 of 1.5; the cast refuses it.
        return pa.array(values, pa.float64()).cast(kind)
    return pa.array(values, kind)


def _why_no_file(file: Path) -> str:
    if file.is_dir():
        return "is a folder, not a file"
    return "is no regular file" if file.exists() else "no such file"


def _why_unreadable(file: Path, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "no permission to read it"
    try:
        with file.open("rb") as stream:
            head = stream.read(4)
    except OSError as failure:
        return f"cannot be read: {failure.strerror}"
    if not head:
        return "is empty, not a Parquet file"
    if head != b"PAR1":
        return "is not a Parquet file"
    detail = " ".join(str(error).split())
    return f"is a truncated or damaged Parquet file ({detail[:120]})"
