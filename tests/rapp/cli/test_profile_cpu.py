"""`rapp profile` on this machine's CPU: the grid, and two networks side by side."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "fakes"))

from gpu_fixtures import small_network

from rapp.graph import OperatorGraph
from rapp.profiles import ProfileTable
from rapp.profiles.pairs import PairTable
from rapp.runtime.cores import usable_cores

__all__ = ["small_network"]

Run = Callable[..., Any]
QUICK = ("--max-seconds", "0.5", "--max-samples", "20")


def test_this_machine_is_measured(rapp: Run, small_network: Path, tmp_path: Path) -> None:
    out = tmp_path / "cpu.parquet"
    axes = ("--sm", "0.5,100", "--quota", "30,100", "--batch", "1,3", "--window-ms", "5")
    done = rapp("profile", small_network, "--device", "cpu", "--out", out, *axes, *QUICK)
    assert done.code == 0, done.err
    assert f"--graphs {small_network.parent} --out run" in done.out
    table = ProfileTable.read(out)
    measured = table.filter(status="ok")
    assert len(measured) == 4 + 2, "a single partition has no middle anchor"
    assert set(measured.column("graph_hash")) == {OperatorGraph.from_onnx(small_network).graph_hash}
    assert set(measured.column("window_ms")) == {5.0}
    assert (measured.column("sm_count") >= 1).all()
    assert (measured.column("latency_ms") > 0).all()
    for row in measured.filter(anchor=False).arrow.to_pylist():
        assert json.loads(row["software"])["outputs_compared"] is True
    skipped = table.filter(status="skipped")
    assert set(skipped.column("sm_pct")) == {0.5}
    assert all("not a whole number of cores" in reason for reason in skipped.column("reason"))


@pytest.mark.skipif(len(usable_cores()) != 2, reason="halves of the cores must be whole")
def test_two_networks_are_measured_side_by_side(rapp: Run, small_network: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(small_network.read_bytes())
    out = tmp_path / "pairs.csv"
    options = ("--device", "cpu", "--batch", "2", "--out", out, "--max-seconds", "0.2", "--max-samples", "20")
    for count in (2, 4):
        done = rapp("profile", small_network, "--pair", other, *options)
        assert done.code == 0, done.err
        assert f"pairs.csv: 2 rows more, {count} in all" in done.out
    found = PairTable.read(out)
    assert [(row.network, row.other) for row in found.rows[:2]] == [
        ("network", "other"),
        ("other", "network"),
    ]
    assert {(row.sm_pct, row.batch) for row in found.rows} == {(50.0, 2)}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "--pair is measured beside one network: give one ONNX file, not 0"),
        (("net.onnx", "--sm", "10,20,30"), "--sm with --pair is one SM partition for both, or one for each"),
        (("net.onnx", "--out", "pairs.txt"), "the name of a pair table ends in .csv or .parquet"),
        (
            ("net.onnx", "--adaptive", "--predictor", "x"),
            "--pair measures two networks on one device: leave --adaptive out",
        ),
        (("nothing.onnx",), "nothing.onnx: No such file"),
        (("net.onnx", "--device", "gpu"), "there is no such device"),
    ],
)
def test_a_pair_that_cannot_be_is_one_line(
    rapp: Run, small_network: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(small_network.parent)
    small_network.rename("net.onnx")
    defaults = {"--device": "cpu", "--out": "pairs.csv"}
    given = [*arguments, *(part for pair in defaults.items() if pair[0] not in arguments for part in pair)]
    assert told in rapp("profile", "--pair", "net.onnx", *given).line()
