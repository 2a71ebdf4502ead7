"""Errors say what to do on one line, and arrive whole from a worker process."""

from __future__ import annotations

import pickle

import pytest

from rapp.errors import ConfigError, DataError, GraphError, MissingExtraError, ProfileError, RappError
from rapp.profiles.splits import SplitError


def test_a_data_error_names_file_place_and_reason() -> None:
    assert (
        str(ProfileError("a.parquet", "no such column", where="row 3")) == "a.parquet: row 3: no such column"
    )
    assert str(ProfileError("a.parquet", "empty")) == "a.parquet: empty"


def test_a_missing_extra_names_every_way_to_install_it() -> None:
    error = MissingExtraError("ONNX Runtime", "cpu", "gpu")
    assert str(error) == "ONNX Runtime is not installed: pip install 'rapp[cpu]' or pip install 'rapp[gpu]'"


@pytest.mark.parametrize(
    "error",
    [
        RappError("one line"),
        ConfigError("one line"),
        DataError("file", "reason"),
        GraphError("file", "reason", where="node 3"),
        SplitError("file", "reason"),
        MissingExtraError("ONNX Runtime", "cpu", "gpu"),
    ],
)
def test_errors_survive_pickling(error: RappError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
