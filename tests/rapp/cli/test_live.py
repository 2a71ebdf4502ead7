"""`rapp live`: the whole of it on tiny networks, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="needs the extra serve")

from scaler.serving.testing import random_network

Run = Callable[..., Any]

FUNCTIONS = """
version: 1
functions:
  - {name: one, network: one.onnx, slo_ms: 400, slo_quantile: 0.9, max_batch: 2}
  - {name: two, network: two.onnx, slo_ms: 400, slo_quantile: 0.9, max_batch: 2}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of a test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


TRACE = "t_s,rps,function\n0,8,one\n2,3,one\n4,3,one\n0,3,two\n2,8,two\n4,8,two\n"


def test_it_measures_serves_loads_scales_and_compares(rapp: Run, folder: Path) -> None:
    random_network(folder / "one.onnx", size=24, layers=3)
    random_network(folder / "two.onnx", size=16, layers=2, seed=1)
    (folder / "functions.yaml").write_text(FUNCTIONS)
    (folder / "trace.csv").write_text(TRACE)
    ended = rapp("live", "functions.yaml", "--trace", "trace.csv", "--policy", "hybrid", "--out", "o")
    assert ended.code == 0, ended.err
    assert "foretold cost off by" in ended.out
    (found,) = json.loads((folder / "o" / "live.json").read_text())
    assert found["requests"] > 20
    assert found["errors"] == {}
    assert found["refused"] == 0
    assert 0 < found["live"]["gpu_seconds"] <= 12
    assert 0 < found["foretold"]["gpu_seconds"] <= 12
    rows = (folder / "o" / "requests-hybrid.csv").read_text().splitlines()
    assert len(rows) == found["requests"] + 1
    # The measured cold start is what the controller and the replay were told.
    served = json.loads((folder / "o" / "functions.yaml").read_text())["functions"]
    assert all(0 < one["cold_start_s"] != 5.0 for one in served)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--policy", "hybird"), "no policy 'hybird'"),
        (("names.yaml",), "function one: live serving needs an ONNX file, not a name"),
        (("missing.yaml",), "missing.yaml"),
        (("--out", "file/x"), "--out file/x: Not a directory"),
        (("--trace", "missing.csv"), "missing.csv"),
        (("--trace", "others.csv"), "others.csv: unknown function 'another'"),
        (("--profiles", "missing.parquet"), "missing.parquet"),
    ],
)
def test_what_cannot_be_tried_is_one_line(
    rapp: Run, folder: Path, arguments: tuple[str, ...], says: str
) -> None:
    (folder / "names.yaml").write_text(
        "version: 1\nfunctions: [{name: one, network: resnet50, slo_ms: 100}]\n"
    )
    (folder / "file").write_text("")
    (folder / "others.csv").write_text("t_s,rps,function\n0,8,another\n2,3,another\n")
    assert says in rapp("live", *arguments).line()
