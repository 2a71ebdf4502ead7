"""`rapp calibrate` as a user runs it: what to measure, and what came out."""

from __future__ import annotations

import json

import pytest

from rapp.types import ResourceGrid

HEAD = "sm_pct,quota_pct,batch,latency_ms\n"


def calibrate(rapp, artifact, graphs, points, tmp_path, *options):
    out = tmp_path / "cal.json"
    return rapp("calibrate", artifact, graphs / "alpha.onnx", "--points", points, "--out", out, *options)


def test_the_list_is_a_csv_to_fill_in_which_then_calibrates(rapp, artifact, graphs, tmp_path):
    ended = rapp("calibrate", artifact, "--list", 2)
    assert ended.code == 0
    assert ended.out.splitlines() == [
        "sm_pct,quota_pct,batch,quota_kind,latency_ms", "100,100,1,launch_gate,", "100,10,1,launch_gate,",
    ]  # fmt: skip
    points = tmp_path / "points.csv"
    points.write_text(ended.out)
    line = calibrate(rapp, artifact, graphs, points, tmp_path).line()
    assert line == f"{points}: line 2: latency_ms is empty"
    assert not (tmp_path / "cal.json").exists()

    # The closed form says 8 and 80 ms; this machine is twice as slow.
    head, first, second = ended.out.splitlines()
    points.write_text(f"{head}\n{first}16\n{second}160\n")
    out = calibrate(rapp, artifact, graphs, points, tmp_path).printed()
    assert "alpha: 2 measured points" in out
    assert "mean error at these points: 50.0% before, 0.0% after" in out
    options = ("--calibration", tmp_path / "cal.json", "--sm", "50", "--quota", "50", "--json")
    content = json.loads(rapp("predict", artifact, graphs / "alpha.onnx", *options).out)
    assert content["estimates"][0]["mean_ms"] == pytest.approx(32)


@pytest.mark.parametrize(
    "content",
    [
        [{"sm_pct": 100, "quota_pct": 100, "batch": 1, "latency_ms": 16}],
        {"points": [{"sm_pct": 100, "quota_pct": 100, "batch": 1, "latency_ms": "16", "quota_kind": None}]},
    ],
)
def test_points_as_json(rapp, artifact, graphs, tmp_path, content):
    points = tmp_path / "points.json"
    points.write_text(json.dumps(content))
    assert "1 measured point\n" in calibrate(rapp, artifact, graphs, points, tmp_path).printed()


def test_csv_from_a_spreadsheet(rapp, artifact, graphs, tmp_path):
    points = tmp_path / "points.csv"
    points.write_bytes(b"\xef\xbb\xbf" + HEAD.encode().replace(b"\n", b"\r\n") + b"100, 100 ,1, 16\r\n\r\n")
    assert "1 measured point\n" in calibrate(rapp, artifact, graphs, points, tmp_path).printed()


def test_points_of_a_profile_table(rapp, artifact, graphs, table, tmp_path):
    points = tmp_path / "table.parquet"
    table({"alpha": 1.5, "beta": 9.0}, ResourceGrid([50, 100], [20, 100], [1])).write(points)
    out = calibrate(rapp, artifact, graphs, points, tmp_path).printed()
    assert "alpha: 4 measured points" in out
    assert "33.3% before, 0.0% after" in out
    line = calibrate(rapp, artifact, graphs, points, tmp_path, "--network", "betta").line()
    assert line == f"{points}: no network 'betta' (near: beta): --network names another"
    other = tmp_path / "other.parquet"
    table({"beta": 1.0}).write(other)
    assert "no network 'alpha'" in calibrate(rapp, artifact, graphs, other, tmp_path).line()
    table({"alpha": 1.0}, device="T4").write(other)
    assert "its device is T4" in calibrate(rapp, artifact, graphs, other, tmp_path).line()
    table({"alpha": 1.0}, graph_hash="ab" * 32).write(other)
    assert "the graph hashes differ" in calibrate(rapp, artifact, graphs, other, tmp_path).line()
    assert calibrate(rapp, artifact, graphs, other, tmp_path, "--network", "alpha").code == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: lacks sm_pct, quota_pct, batch, latency_ms"),
        (HEAD, "holds no point"),
        ("sm_pct,quota_pct,batch\n", "line 1: lacks latency_ms"),
        ("sm_pct,quota_pct,batch,latency\n", "line 1: unknown column 'latency' (near: latency_ms)"),
        (HEAD.replace("batch", "sm_pct"), "line 1: column sm_pct twice"),
        (HEAD + "100,100,1,5\n100,100\n", "line 3: 2 values for 4 columns"),
        (HEAD + "100,100,1,fast\n", "line 2: latency_ms is 'fast', not a number"),
        (HEAD + "100,100,1,nan\n", "line 2: latency_ms is nan: it must be a positive number"),
        (HEAD + "100,100,1,0\n", "line 2: latency_ms is 0: it must be a positive number"),
        (HEAD + "100,150,1,5\n", "line 2: quota_pct is 150: it must lie in (0, 100]"),
        (HEAD + "100,100,1.5,5\n", "line 2: batch is 1.5: it must be a whole number, 1 or more"),
        (HEAD + "100,100,inf,5\n", "line 2: batch is inf: it must be a whole number, 1 or more"),
        (HEAD + "100,100,nan,5\n", "line 2: batch is nan: it must be a whole number, 1 or more"),
        (HEAD + "100,100,1,5\n100,100,1,6\n",
         "line 3: the same configuration as line 2: give the mean of repetitions"),
        (HEAD.strip() + ",quota_kind\n100,100,1,5,gpu\n",
         "line 2: quota_kind is 'gpu': it is one of gpu_time, launch_gate"),
        (HEAD + '100,100,1,"5\n', "line 2: is not valid CSV: unexpected end of data"),
    ],
)  # fmt: skip
def test_bad_points_name_file_and_line(rapp, artifact, graphs, tmp_path, text, message):
    points = tmp_path / "points.csv"
    points.write_text(text)
    assert calibrate(rapp, artifact, graphs, points, tmp_path).line() == f"{points}: {message}"
    assert not (tmp_path / "cal.json").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("points.json", b"{", "is not valid JSON"),
        ("points.json", b"3", 'is no list of points, nor {"points": [...]}'),
        ("points.json", b"[3]", "entry 0: is no object"),
        ("points.json", b'[{"sm_pct": 5}]', "entry 0: lacks quota_pct, batch, latency_ms"),
        ("points.json", b'[{"sm_pct": true, "quota_pct": 5, "batch": 1, "latency_ms": 1}]',
         "entry 0: sm_pct is True, not a number"),
        ("points.txt", b"5", "is neither .csv, .json nor .parquet"),
        ("points.csv", b"\xff\xfe\x00", "is not text in UTF-8"),
        ("points.parquet", b"PAR", "is not a Parquet file"),
    ],
)  # fmt: skip
def test_files_that_hold_no_points(rapp, artifact, graphs, tmp_path, name, content, message):
    points = tmp_path / name
    points.write_bytes(content)
    assert calibrate(rapp, artifact, graphs, points, tmp_path).line().startswith(f"{points}: {message}")


def test_what_does_not_go_together(rapp, artifact, graphs, tmp_path):
    assert "--list to see what to measure" in rapp("calibrate", artifact).line()
    assert "neither --points nor --out" in rapp("calibrate", artifact, "--list", 1, "--out", "x").line()
    assert "lists 5 points, not 9" in rapp("calibrate", artifact, "--list", 9).line()
    points = tmp_path / "points.csv"
    line = calibrate(rapp, artifact, graphs, points, tmp_path, "--network", "alpha").line()
    assert "--network chooses from a profile table" in line
    assert calibrate(rapp, artifact, graphs, points, tmp_path).line() == (
        f"{points}: cannot be read: No such file or directory"
    )
