"""The commands as a user runs them: another process, its exit code, its two outputs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rapp.profiles import ProfileTable, import_has_gpu

LATENCY = "data/graph_features_all_models"
MAIN = "import sys; sys.argv[0] = 'rapp'; from rapp.cli.main import main; main()"


def _rapp(*arguments: object, before: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", before + MAIN, "profiles", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def _refused(ended: subprocess.CompletedProcess[str]) -> str:
    """The one line of an expected outcome."""
    assert ended.returncode == 2, ended.stderr
    assert ended.stdout == ""
    line, nothing = ended.stderr.split("\n", 1)
    assert nothing == "", ended.stderr
    return line


def _left_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_import_check_show(public_folder, tmp_path):
    out = tmp_path / "out" / "v100.parquet"
    ended = _rapp("import-has-gpu", public_folder, "--out", out)
    assert ended.returncode == 0, ended.stderr
    table = ProfileTable.read(out)
    assert table == import_has_gpu(public_folder)
    assert ended.stdout == f"{out}: 16 points of 2 networks; rows hash {table.rows_hash()}\n"
    assert ended.stderr.count("is incomplete: ") == 2
    assert _left_in(out.parent) == ["v100.parquet"]

    ended = _rapp("check", out)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"{out}: valid; 16 rows, 2 networks; rows hash {table.rows_hash()}\n"

    ended = _rapp("show", out)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "NVIDIA V100-16GB" in ended.stdout
    assert "resnet18" in ended.stdout

    content = json.loads(_rapp("show", out, "--json").stdout)
    assert content["rows"] == 16
    assert content["settings"][0]["grid"] == {"sm_pct": [50, 100], "quota_pct": [50, 100], "batch": [1, 8]}


def test_networks_are_chosen(public_folder, tmp_path):
    out = tmp_path / "one.parquet"
    assert _rapp("import-has-gpu", public_folder, "--out", out, "--networks", " resnet18,").returncode == 0
    assert ProfileTable.read(out).networks() == ["resnet18"]
    other = tmp_path / "other.parquet"
    line = _refused(_rapp("import-has-gpu", public_folder, "--out", other, "--networks", "resnet81"))
    assert line == "error: no network 'resnet81' (near: resnet18); there are 2, from alexnet to resnet18"
    assert not other.exists()


def test_an_existing_table_is_replaced_with_force_alone(public_folder, tmp_path):
    out = tmp_path / "v100.parquet"
    out.write_text("precious")
    line = _refused(_rapp("import-has-gpu", public_folder, "--out", out))
    assert line == f"error: {out} exists: give --force to replace it, or another --out"
    assert out.read_text() == "precious"
    line = _refused(_rapp("import-has-gpu", public_folder, "--out", tmp_path, "--force"))
    assert line == f"error: {tmp_path} is a folder: --out names the file to write"
    assert _rapp("import-has-gpu", public_folder, "--out", out, "--force").returncode == 0
    assert len(ProfileTable.read(out)) == 16


def test_bad_input_is_one_line_and_leaves_nothing(public_folder, tmp_path):
    file = public_folder / LATENCY / "alexnet_50.json"
    file.write_text(file.read_text().replace('"latency": ', '"latency": -', 1))
    folder = tmp_path / "out"
    folder.mkdir()
    line = _refused(_rapp("import-has-gpu", public_folder, "--out", folder / "v100.parquet"))
    assert line.startswith(f"error: {file}: entry 0 (batch 1, sm 50, quota 50): latency is -")
    assert _left_in(folder) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(public_folder, tmp_path):
    """A limit on the size of files stands in for the disk: the system refuses the write alike."""
    folder = tmp_path / "out"
    folder.mkdir()
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); "
    ended = _rapp("import-has-gpu", public_folder, "--out", folder / "v100.parquet", before=limit)
    lines = ended.stderr.splitlines()
    assert ended.returncode == 2, ended.stderr
    assert lines[-1].startswith(f"error: {folder / 'v100.parquet'}: cannot be written: ")
    assert "Traceback" not in ended.stderr
    assert _left_in(folder) == []


@pytest.mark.parametrize("command", ["check", "show"])
def test_files_that_are_no_table(tmp_path, command):
    assert _refused(_rapp(command, tmp_path / "none.parquet")).endswith("none.parquet: no such file")
    (tmp_path / "text.parquet").write_text("network,batch\n")
    assert _refused(_rapp(command, tmp_path / "text.parquet")).endswith("is not a Parquet file")


def test_the_help_of_rapp_does_not_load_pyarrow():
    program = "import sys; import rapp.cli.profiles; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_profiles_load_neither_pandas_nor_torch_nor_onnx():
    program = (
        "import sys, rapp.profiles; print({'pandas', 'torch', 'onnx', 'onnxruntime'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"
