from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapp.errors import ConfigError, ProfileError, RappError
from rapp.profiles import ProfileTable


@given(data=st.data())
def test_what_is_written_is_read_back(tmp_path_factory, valid_rows, data):
    rows = data.draw(valid_rows)
    table = ProfileTable.from_rows(rows)
    file = tmp_path_factory.mktemp("round") / "t.parquet"
    table.write(file)
    back = ProfileTable.read(file)
    assert back == table
    assert back.rows_hash() == table.rows_hash()
    for got, put in zip(back.arrow.to_pylist(), rows, strict=True):
        assert {name: got[name] for name in put} == put
        assert all(got[name] is None for name in set(got) - set(put))


@given(data=st.data())
@settings(max_examples=50)
def test_rows_hash_ignores_order_and_encoding(tmp_path_factory, valid_rows, data):
    table = ProfileTable.from_rows(data.draw(valid_rows))
    order = data.draw(st.permutations(range(len(table))))
    shuffled = table.arrow.take(pa.array(order, pa.int64()))
    assert ProfileTable(shuffled).rows_hash() == table.rows_hash()

    file = tmp_path_factory.mktemp("encoding") / "t.parquet"
    pq.write_table(shuffled, file, compression="gzip", use_dictionary=False, row_group_size=2, version="1.0",
                   coerce_timestamps="us")  # fmt: skip
    assert ProfileTable.read(file).rows_hash() == table.rows_hash()


CHANGES = {
    "network": "other", "graph_hash": "abc", "device": "other", "device_uuid": "u", "runtime": "ort-cuda",
    "precision": "fp16", "batch": 3, "sm_pct": 33.3, "sm_count": 40, "quota_pct": 33.3,
    "quota_kind": "gpu_time", "window_ms": 20.0, "granularity_ms": 0.0, "idle_ms": 0.0,
    "latency_ms": np.nextafter(10.0, 11), "median_ms": 9.0, "median_low_ms": 9.0, "median_high_ms": 9.0,
    "p95_ms": 12.0, "mad_ms": 0.0, "device_ms": 8.0, "launch_ms": 0.0, "peak_memory_mib": 0.0,
    "n_samples": 181, "converged": False, "derived": True, "campaign_id": "c2", "anchor": True,
    "software": "{}",
}  # fmt: skip


@pytest.mark.parametrize("column", CHANGES)
def test_rows_hash_sees_every_value(row, column):
    """Also null against 0, false and the empty object, which a careless encoding would confuse."""
    rows = [row(batch=batch) for batch in (1, 2)]
    before = ProfileTable.from_rows(rows).rows_hash()
    rows[1][column] = CHANGES[column]
    assert ProfileTable.from_rows(rows).rows_hash() != before


def test_rows_hash_does_not_run_texts_together(row):
    one = [row(device="ab", runtime="x"), row(device="c", runtime="x", batch=2)]
    two = [row(device="a", runtime="x"), row(device="bc", runtime="x", batch=2)]
    assert ProfileTable.from_rows(one).rows_hash() != ProfileTable.from_rows(two).rows_hash()


def test_rows_hash_is_pinned(row):
    """Predictor cards hold this hash: another canonical form needs another format version."""
    rows = [row(software='{"torch": "2"}', graph_hash="ü", idle_ms=5.0), row(batch=2, idle_ms=5.0)]
    assert (
        ProfileTable.from_rows(rows).rows_hash()
        == "030b537bb5236ccafe65e917990665b89acf6ca36bf8a8412445a7b8fa7bdc22"
    )


def test_columns_as_arrays(row):
    table = ProfileTable.from_rows(
        [
            row(sm_count=40, median_ms=9.0),
            row(batch=2, converged=True, status="failed", latency_ms=None, reason="oom"),
        ]
    )
    assert table.column("batch").dtype == np.int64
    assert table.column("batch").tolist() == [1, 2]
    assert table.column("sm_count").dtype == np.float64
    np.testing.assert_array_equal(table.column("sm_count"), [40, np.nan])
    np.testing.assert_array_equal(table.column("latency_ms"), [10, np.nan])
    assert table.column("anchor").dtype == np.bool_
    assert table.column("converged").tolist() == [None, True]
    assert table.column("reason").tolist() == [None, "oom"]
    assert np.isnat(table.column("started_at")).all()
    with pytest.raises(ConfigError, match="no column 'latency'"):
        table.column("latency")


def test_filter_where_ok_networks(grid_rows, row):
    rows = grid_rows()
    rows[3] |= {"status": "skipped", "latency_ms": None, "reason": "out of memory"}
    table = ProfileTable.from_rows(rows)
    assert table.networks() == ["resnet18", "vgg11"]
    assert len(table) == 32
    assert len(table.ok()) == 31
    some = table.filter(network="vgg11", batch=[1, 8], sm_pct={25.0, 50.0}, quota_pct=np.array([100.0]))
    assert {(r["network"], r["sm_pct"], r["quota_pct"]) for r in some.arrow.to_pylist()} == {
        ("vgg11", 25.0, 100.0),
        ("vgg11", 50.0, 100.0),
    }
    assert len(some) == 4
    assert len(table.filter(network="nothing")) == 0
    assert len(table.filter(graph_hash=None)) == 32
    mask = np.arange(32) % 3 == 0
    np.testing.assert_array_equal(table.where(mask).column("latency_ms"), table.column("latency_ms")[mask])
    with pytest.raises(ConfigError, match="shape"):
        table.where(np.ones(31, dtype=bool))
    with pytest.raises(ConfigError, match="no column 'net'"):
        table.filter(net="vgg11")
    for wrong in ("one", "1", 1.5):
        with pytest.raises(ConfigError, match="batch cannot be "):
            table.filter(batch=wrong)


def test_points_are_the_measured_ones_of_one_curve(row):
    rows = [
        row(batch=2, sm_pct=30.0, quota_pct=40.0, latency_ms=7.0),
        row(batch=4, status="failed", latency_ms=None, reason="oom"),
        row(batch=4, anchor=True),
        row(batch=8, derived=True, latency_ms=8.0),
        row(network="other"),
    ]
    table = ProfileTable.from_rows(rows)
    points = table.points("net")
    assert len(points) == 1
    assert (points.sm_pct[0], points.quota_pct[0], points.batch[0], points.latency_ms[0]) == (30, 40, 2, 7)
    assert points.quota_kind.tolist() == ["launch_gate"]
    assert table.points("net", derived=True).latency_ms.tolist() == [7.0, 8.0]
    with pytest.raises(ConfigError, match="no measured point of the network 'nets'"):
        table.points("nets")


@pytest.mark.parametrize("column", ["device", "runtime", "precision"])
def test_points_of_two_curves_are_refused(row, column):
    table = ProfileTable.from_rows([row(), row(**{column: "another"})])
    with pytest.raises(ConfigError, match=f"more than one {column} .*another"):
        table.points("net")
    assert len(table.filter(**{column: "another"}).points("net")) == 1


def test_concat(row):
    one, two = (ProfileTable.from_rows([row(batch=batch)], f"{batch}.parquet") for batch in (1, 2))
    both = ProfileTable.concat([one, two])
    assert both.column("batch").tolist() == [1, 2]
    with pytest.raises(ProfileError, match=r"1.parquet: row 1 .*same point as row 0"):
        ProfileTable.concat([one, one])
    with pytest.raises(ConfigError):
        ProfileTable.concat([])


def test_an_empty_table_is_a_table(tmp_path):
    ProfileTable.from_rows([]).write(tmp_path / "t.parquet")
    table = ProfileTable.read(tmp_path / "t.parquet")
    assert len(table) == 0
    assert table.networks() == []
    assert len(table.rows_hash()) == 64


def test_files_that_cannot_be_read(tmp_path, grid_rows):
    good = tmp_path / "good.parquet"
    ProfileTable.from_rows(grid_rows()).write(good)
    content = good.read_bytes()

    def reason(name: str, data: bytes | None) -> str:
        file = tmp_path / name
        if data is not None:
            file.write_bytes(data)
        with pytest.raises(ProfileError) as error:
            ProfileTable.read(file)
        assert str(file) in str(error.value)
        assert "\n" not in str(error.value)
        return error.value.reason

    assert reason("none.parquet", None) == "no such file"
    assert reason("empty.parquet", b"") == "is empty, not a Parquet file"
    assert reason("text.parquet", b"network,batch\n") == "is not a Parquet file"
    for length in (4, 100, len(content) // 2, len(content) - 1):
        assert "truncated or damaged" in reason("cut.parquet", content[:length])
    with pytest.raises(ProfileError, match="is a folder"):
        ProfileTable.read(tmp_path)


def test_damage_anywhere_is_found_or_harmless(tmp_path, grid_rows):
    """A flipped byte gives an error of ours, or the same rows (padding, statistics): never other values."""
    file = tmp_path / "t.parquet"
    table = ProfileTable.from_rows(grid_rows())
    table.write(file)
    content = file.read_bytes()
    for place in np.random.default_rng(0).choice(len(content), 300, replace=False):
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        file.write_bytes(damaged)
        with contextlib.suppress(ProfileError):
            assert ProfileTable.read(file).rows_hash() == table.rows_hash(), place


WRITE_AND_DIE = """
import os, signal, sys
import pyarrow.parquet as pq
from rapp.profiles import ProfileTable
table = ProfileTable.read(sys.argv[1])
if sys.argv[3] == "half":
    def write(table, where, **options):
        where.write_bytes(b"PAR1 half")
        os.kill(os.getpid(), signal.SIGKILL)
    pq.write_table = write
else:
    os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
table.write(sys.argv[2])
"""


@pytest.mark.parametrize("moment", ["half", "before it is renamed"])
@pytest.mark.parametrize("existing", [False, True])
def test_killed_while_writing_leaves_no_half_file(tmp_path, grid_rows, moment, existing):
    source, target = tmp_path / "source.parquet", tmp_path / "target.parquet"
    ProfileTable.from_rows(grid_rows()).write(source)
    old = ProfileTable.from_rows(grid_rows()[:3])
    if existing:
        old.write(target)
    ended = subprocess.run([sys.executable, "-c", WRITE_AND_DIE, source, target, moment], check=False)
    assert ended.returncode == -signal.SIGKILL
    if existing:
        assert ProfileTable.read(target) == old
    else:
        assert not target.exists()


def test_a_folder_that_cannot_be_written(tmp_path, grid_rows):
    table = ProfileTable.from_rows(grid_rows())
    (tmp_path / "file").write_text("")
    with pytest.raises(RappError, match="cannot be written"):
        table.write(tmp_path / "file" / "t.parquet")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes to a read-only folder")
def test_a_read_only_folder(tmp_path: Path, grid_rows):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(RappError, match="cannot be written"):
        ProfileTable.from_rows(grid_rows()).write(folder / "t.parquet")
