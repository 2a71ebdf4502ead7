"""`rapp graph`, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from onnx import ModelProto, helper

from rapp.cli import main as cli


@pytest.fixture
def rapp(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(sys, "argv", ["rapp", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
            sys.exit(0)
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return call


Rapp = Callable[..., tuple[int, str, str]]


def test_summary(rapp: Rapp, zoo: Path) -> None:
    code, out, _ = rapp("graph", zoo / "resnet18.onnx", "--batch", "4", "--top", "2")
    assert code == 0
    assert "at batch 4: 7.26 G multiply-adds" in out
    assert "69 operators, 76 edges, 11.69 M parameters, opset 20" in out
    assert "N x 3 x 224 x 224 float32" in out
    line = next(line for line in out.splitlines() if line.split()[:1] == ["Conv"])
    assert line.split()[1:5] == ["20", "7.25", "G", "100.0%"]
    heaviest = out.partition("heaviest operators")[2]
    assert sum(line.split()[:1] == ["Conv"] for line in heaviest.splitlines()) == 2
    assert "layer4/0/conv2/Conv" in heaviest
    # The path of the file and the hash are one line each; the rest fits a terminal of 80 columns.
    assert all(len(line) <= 80 for line in out.splitlines()[1:])


def test_json(rapp: Rapp, zoo: Path) -> None:
    code, out, _ = rapp("graph", zoo / "squeezenet1_1.onnx", "--json", "--batch", "2")
    content = json.loads(out)
    assert code == 0
    assert content["batch"] == 2
    assert content["total"]["macs"] == sum(row["macs"] for row in content["by_type"])
    assert content["total"]["params"] == 1_235_496
    assert sum(row["count"] for row in content["by_type"]) == content["operators"] == 65
    assert len(content["heaviest"]) == 5
    assert content["inputs"] == [{"name": "input", "dtype": "float32", "shape": ["N", 3, 224, 224]}]


def test_open_dimension(rapp: Rapp, make_model: Callable[..., ModelProto], tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    model = make_model([helper.make_node("Relu", ["x"], ["y"])], {"x": ["N", "seq"]}, ["y"])
    path.write_bytes(model.SerializeToString())
    code, _, err = rapp("graph", path)
    assert (code, err.count("\n")) == (2, 1)
    assert "seq" in err
    code, out, _ = rapp("graph", path, "--dim", "seq=9")
    assert code == 0
    assert "N x 9 float32" in out
    assert rapp("graph", path, "--dim", "seq")[0] == 2


def test_one_batch_only(rapp: Rapp, make_model: Callable[..., ModelProto], tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    model = make_model([helper.make_node("ReduceMax", ["x"], ["y"])], {"x": [2, 3]}, ["y"])
    path.write_bytes(model.SerializeToString())
    code, out, _ = rapp("graph", path)
    assert code == 0
    assert "2 only: ReduceMax 'y'" in out
    code, _, err = rapp("graph", path, "--batch", "4")
    assert code == 2
    assert "it serves batch 2 only" in err


@pytest.mark.parametrize("content", [None, b"", b"text"])
def test_bad_files_are_one_line_and_code_2(rapp: Rapp, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "net.onnx"
    if content is not None:
        path.write_bytes(content)
    code, out, err = rapp("graph", path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {path}: ")


def test_importing_loads_no_onnx() -> None:
    code = "import rapp, rapp.graph, rapp.cli.main, sys; sys.exit('onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
