"""What `rapp train` does with its options, and what it refuses; `rapp ui`."""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from train_parts import MODELS, Given, Rapp, given, losses, rows_of, unexported

from rapp.profiles import ProfileTable

__all__ = ["given", "unexported"]


def test_without_tracking_nothing_of_it_is_left(
    given: Given, rapp: Rapp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unexported: None
) -> None:
    monkeypatch.chdir(tmp_path)
    rapp(
        "train", *given.options, "--out", "run", "--steps", 1, "--members", 1, "--tracking", "none"
    ).printed()
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_a_budget_lowers_the_steps_and_a_resumed_run_keeps_them(
    given: Given, rapp: Rapp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unexported: None
) -> None:
    command = [
        "train", *given.options, "--out", tmp_path, "--members", 1, "--tracking", "none", "--steps", 24,
        "--budget-minutes", 0.1,
    ]  # fmt: skip
    first = rapp(*command).printed()
    # Half a minute is kept for what comes after the encoders, so that 0.1 min leave the fewest there are.
    assert "--budget-minutes 0.1: 20 steps an encoder, not 24" in first
    assert json.loads((tmp_path / "run.json").read_text())["steps"] == 20
    assert len(losses(tmp_path)) == 20
    monkeypatch.setattr("rapp.cli.train._affordable", lambda *_: 23)  # the machine is faster today
    rapp(*command).printed()
    assert len(losses(tmp_path)) == 20


def test_an_ample_budget_changes_nothing(given: Given, rapp: Rapp, tmp_path: Path, unexported: None) -> None:
    options = ["--out", tmp_path, "--members", 1, "--tracking", "none", "--steps", 2]
    assert "--budget" not in rapp("train", *given.options, *options, "--budget-minutes", 60).printed()
    assert len(losses(tmp_path)) == 2


def test_what_cannot_be_trained_is_one_line(given: Given, rapp: Rapp, tmp_path: Path) -> None:
    def told(*options: object, profiles: Path = given.profiles, graphs: Path = given.graphs) -> str:
        shared = ["--profiles", profiles, "--graphs", graphs, "--out", tmp_path / "run", "--tracking", "none"]
        line: str = rapp("train", *shared, *options).line()
        assert not (tmp_path / "run" / "artifact").exists()
        return line

    assert told("--holdout", "vgg11,vgg12") == (
        "--holdout names vgg12, which the profiles do not hold (near: vgg11)"
    )
    assert "no measured rows to train on" in told("--holdout", ",".join(MODELS))
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(given.graphs / "alexnet.onnx", few)
    assert f"{few}/resnet18.onnx: there is no graph for the network resnet18" in told(graphs=few)
    (few / "resnet18.onnx").write_text("no graph")
    assert f"{few}/resnet18.onnx" in told(graphs=few)
    mixed = tmp_path / "mixed.parquet"
    rows = rows_of("alexnet") + rows_of("vgg11", device="another")
    ProfileTable.from_rows(rows).write(mixed)
    assert "mix several values of device (another, made up): train on one" in told(profiles=mixed)
    assert "no such file" in told(profiles=tmp_path / "absent.parquet")
    assert "neither an artifact nor a run" in told("--init", tmp_path)
    assert str(tmp_path / "absent.json") in told("--split", tmp_path / "absent.json")


def test_a_folder_that_is_in_use_or_of_another_training_is_one_line(
    given: Given, rapp: Rapp, tmp_path: Path, unexported: None
) -> None:
    command = [
        "train", *given.options, "--out", tmp_path, "--steps", 1, "--members", 1, "--tracking", "none"
    ]  # fmt: skip
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert rapp(*command).line().startswith(f"{tmp_path}: another process is training there")
    assert rapp(*command).code == 0
    assert "holds a run with another seed" in rapp(*command, "--seed", 1).line()
    assert "holds a run with another networks" in rapp(*command, "--holdout", "vgg11").line()


def test_a_missing_extra_is_named(given: Given, rapp: Rapp, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    line = rapp("train", *given.options, "--out", "never").line()
    assert line == "torch is not installed: pip install 'rapp[train]'"
    assert not (given.folder / "never").exists()


def test_ui_opens_the_store_of_the_trainings(
    given: Given, rapp: Rapp, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess

    asked: list[list[str]] = []

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    printed = rapp("ui", "--port", 5123).printed()
    assert "http://127.0.0.1:5123 shows sqlite:///mlflow.db" in printed
    (command,) = asked
    assert command[1:] == [
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        "sqlite:///mlflow.db",
        "--port",
        "5123",
    ]
