"""Profile tables: what was measured, read and written as parquet, imported, and split for training.

    from rapp.profiles import ProfileTable, Split

    table = ProfileTable.read("v100.parquet").ok()
    split = Split.load("datasets/splits/unseen-network.json")
    train, validation, test = split.select(table, fold=0)
    table.where(train).points("resnet50").latency_ms

Needs pyarrow; never pandas, never torch.
"""

from __future__ import annotations

from rapp.profiles.has_gpu import import_has_gpu, read_operator_sums
from rapp.profiles.pairs import PairRow, PairTable
from rapp.profiles.splits import Split, SplitError
from rapp.profiles.table import Points, ProfileTable

__all__ = [
    "PairRow",
    "PairTable",
    "Points",
    "ProfileTable",
    "Split",
    "SplitError",
    "import_has_gpu",
    "read_operator_sums",
]
