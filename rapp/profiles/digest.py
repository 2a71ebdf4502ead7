"""The identity of a profile table's content: what was measured, not how it is stored."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rapp.profiles.schema import COLUMNS, POINT_KEY


def table_digest(table: Any) -> str:
    """SHA-256 over the rows of a checked pyarrow table in the order of their points.

    Points are unique in a checked table (for anchors together with `started_at`), so that order does not
    depend on the order of the rows. Each column adds its name, its type, which values are null, and the
    values: little-endian numbers, 0 in place of null, -0 as 0; texts as UTF-8 behind their lengths.
    """
    keys = [(name, "ascending") for name in (*POINT_KEY, "started_at")]
    ordered = table.take(pc.sort_indices(table, sort_keys=keys))
    digest = hashlib.sha256(f"{table.num_rows} rows".encode())
    for column in COLUMNS:
        values = ordered.column(column.name)
        digest.update(f"\n{column.name}:{column.kind}\n".encode())
        digest.update(np.packbits(_numpy(pc.is_null(values))).tobytes())
        if column.kind == "text":
            filled = pc.fill_null(values, "")
            digest.update(_numpy(pc.binary_length(filled)).astype("<i4").tobytes())
            digest.update("".join(filled.to_pylist()).encode())
        elif column.kind == "number":
            digest.update((_numpy(pc.fill_null(values, 0.0)).astype("<f8") + 0.0).tobytes())
        else:
            whole = pc.cast(values, pa.int64())
            digest.update(_numpy(pc.fill_null(whole, 0)).astype("<i8").tobytes())
    return digest.hexdigest()


def _numpy(values: Any) -> Any:
    return values.to_numpy()
