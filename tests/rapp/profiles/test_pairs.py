"""Pair tables: what they hold, in both kinds of file, and what is refused."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta, timezone
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapp.errors import ConfigError, ProfileError
from rapp.profiles.pair_files import CSV_HEAD, VERSION_KEY
from rapp.profiles.pair_row import COLUMNS, row_json_schema
from rapp.profiles.pairs import PairRow, PairTable

ROW = PairRow(
    device="NVIDIA V100-16GB", device_uuid="GPU-1", runtime="ort-cuda", network="resnet50", other="vgg16",
    sm_pct=50.0, other_sm_pct=50.0, batch=1, other_batch=8, alone_ms=10.0, together_ms=12.0, slowdown=1.2,
    slowdown_low=1.1, slowdown_high=1.3, n_samples=20, converged=True,
    started_at=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
)  # fmt: skip

_text = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=9).filter(str.strip)
_ms = st.floats(1e-3, 1e6, allow_subnormal=False)
_percent = st.floats(0.5, 100)


@st.composite
def pair_rows(draw: st.DrawFn) -> PairRow:
    alone_ms, together_ms = draw(_ms), draw(_ms)
    slowdown = together_ms / alone_ms
    known = draw(st.booleans())
    times = st.datetimes(datetime(1990, 1, 1), timezones=st.just(timezone(timedelta(hours=2))))
    return PairRow(
        device=draw(_text),
        device_uuid=draw(st.none() | _text),
        runtime=draw(_text),
        network=draw(_text),
        other=draw(_text),
        sm_pct=draw(_percent),
        other_sm_pct=draw(_percent),
        batch=draw(st.integers(1, 1000)),
        other_batch=draw(st.integers(1, 1000)),
        alone_ms=alone_ms,
        together_ms=together_ms,
        slowdown=slowdown,
        slowdown_low=0.9 * slowdown if known else None,
        slowdown_high=1.2 * slowdown if known else None,
        n_samples=draw(st.integers(1, 10_000)),
        converged=draw(st.booleans()),
        started_at=draw(st.none() | times),
    )


@settings(deadline=None, max_examples=40)
@given(rows=st.lists(pair_rows(), max_size=4), suffix=st.sampled_from((".csv", ".parquet")))
def test_what_is_written_is_read(rows: list[PairRow], suffix: str, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("pairs") / f"pairs{suffix}"
    table = PairTable(rows)
    table.write(path)
    assert PairTable.read(path) == table


def test_lookup_is_the_median_of_what_one_suffered_from_the_other() -> None:
    values = (1.1, 1.2, 1.6)
    rows = [replace(ROW, slowdown=s, together_ms=10 * s, slowdown_high=1.7) for s in values]
    rows += [replace(ROW, network="vgg16", other="resnet50")]
    rows += [replace(ROW, device="A100", slowdown=3.0, together_ms=30.0, slowdown_high=3.0)]
    table = PairTable(rows)
    assert table.lookup("resnet50", "vgg16", device="NVIDIA V100-16GB") == 1.2
    assert table.lookup("resnet50", "vgg16") == pytest.approx(1.4)
    assert table.lookup("vgg16", "resnet50") == 1.2
    assert table.lookup("resnet50", "alexnet") is None
    assert table.lookup("resnet50", "vgg16", device="T4") is None


def test_tables_are_joined_in_order() -> None:
    first, second = PairTable([ROW], "a.csv"), PairTable([replace(ROW, batch=2)], "b.csv")
    joined = PairTable.concat([first, second])
    assert joined.rows == (*first.rows, *second.rows)
    assert (joined.source, len(joined)) == ("a.csv + b.csv", 2)
    assert joined != first


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"slowdown": -1.0}, "slowdown is -1.0: it must be a finite number above 0"),
        ({"alone_ms": float("nan")}, "alone_ms is nan"),
        ({"together_ms": float("inf")}, "together_ms is inf"),
        ({"sm_pct": 101.0}, "sm_pct is 101.0: it must lie in"),
        ({"other_sm_pct": 0.0}, "other_sm_pct is 0.0"),
        ({"batch": 0}, "batch is 0: it must be 1 or more"),
        ({"n_samples": 0}, "n_samples is 0"),
        ({"network": " "}, "network is ' ': it must not be blank"),
        ({"device": None}, "device is empty"),
        ({"slowdown": 1.5, "slowdown_high": 1.6}, "slowdown is 1.5, but together_ms / alone_ms is 1.2"),
        ({"slowdown_low": None}, "both be known, or neither"),
        ({"slowdown_high": 1.15}, "slowdown is 1.2: it must lie between 1.1 and 1.15"),
        ({"started_at": datetime(2026, 1, 1)}, "must have a time zone"),
    ],
)
def test_a_row_that_cannot_be_is_named(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ProfileError) as caught:
        PairTable([ROW, replace(ROW, **changes)], "pairs.csv")
    assert str(caught.value).startswith("pairs.csv: row 1 (")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def lines(**texts: str) -> str:
    """A CSV file with one row."""
    values = {name: "" if value is None else str(value) for name, value in asdict(ROW).items()}
    values |= {"converged": "true", "started_at": "2026-01-01T00:00:00+00:00"} | texts
    return f"{CSV_HEAD}\n{','.join(values)}\n{','.join(values.values())}\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "its first line must be '# RaPP pair table, version 1', but is ''"),
        (lines().replace("version 1", "version 2"), "its first line must be"),
        (CSV_HEAD, "without the columns device, device_uuid"),
        (lines().replace("slowdown_low", "low"), "without the column slowdown_low"),
        (lines().replace("started_at", "started_at,extra"), "column unknown or twice: extra"),
        (lines().replace("started_at", "started_at,batch"), "column unknown or twice: batch"),
        (lines() + "a,b\n", "row 1: has 2 fields, not 17"),
        (lines(batch="1.5"), "row 0: batch is '1.5': it must be a whole number"),
        (lines(slowdown="fast"), "row 0: slowdown is 'fast': it must be a number"),
        (lines(converged="yes"), "converged is 'yes': it must be true or false"),
        (lines(started_at="yesterday"), "started_at is 'yesterday': it must be a time"),
        (lines(network=""), "network is empty"),
        (lines(network='"resnet50'), "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_is_refused_in_one_line(content: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(content)
    with pytest.raises(ProfileError) as caught:
        PairTable.read(path)
    assert str(caught.value).startswith(str(path))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parquet_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    PairTable([ROW]).write(path)
    right = pq.read_table(path)
    wrong = {
        "no parquet file": None,
        "name no version": right.replace_schema_metadata({}),
        "name version '2'": right.replace_schema_metadata({VERSION_KEY: b"2"}),
        "without the column batch": right.drop_columns(["batch"]),
        "column batch has type string": right.set_column(7, "batch", pa.array(["1"])),
    }
    for reason, table in wrong.items():
        if table is None:
            path.write_bytes(b"PAR1 no more")
        else:
            pq.write_table(table, path)
        with pytest.raises(ProfileError, match=reason):
            PairTable.read(path)


def test_other_names_and_absent_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no such file"):
        PairTable.read(tmp_path / "absent.csv")
    with pytest.raises(ConfigError, match=r"is a file \.csv or \.parquet"):
        PairTable.read(tmp_path / "pairs.json")
    with pytest.raises(ConfigError, match=r"is a file \.csv or \.parquet"):
        PairTable([ROW]).write(tmp_path / "pairs")


def test_the_committed_schema_is_that_of_the_columns() -> None:
    text = resources.files("rapp").joinpath("schemas/pair_table.json").read_text()
    assert json.loads(text) == row_json_schema(), "write row_json_schema() to rapp/schemas/pair_table.json"
    assert list(COLUMNS) == list(asdict(ROW))


def test_a_spreadsheet_can_read_it_behind_the_first_line(tmp_path: Path) -> None:
    PairTable([ROW]).write(tmp_path / "pairs.csv")
    with (tmp_path / "pairs.csv").open(newline="") as file:
        assert next(file).startswith("#")
        (row,) = csv.DictReader(file)
    assert (row["device"], row["slowdown"], row["converged"]) == ("NVIDIA V100-16GB", "1.2", "true")
