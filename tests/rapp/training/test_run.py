"""A training as a folder: killed, interrupted, resumed, claimed, refused."""

from __future__ import annotations

import csv
import json
import os
import pickle
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rapp.errors import ArtifactError, ConfigError, RappError
from rapp.training import run
from rapp.training.checkpoint import finished_weights
from rapp.training.dataset import TrainingSet
from rapp.training.encoder_fit import EncoderSettings
from rapp.training.run import RunSettings, initial_weights, recorded_steps, train_run

SETTINGS = RunSettings(EncoderSettings(steps=30, hidden=8, layers=1), seed=1, members=2)


@pytest.fixture(autouse=True)
def exported(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders that would have been exported to: the export is tested elsewhere, and takes seconds."""
    torch.set_num_threads(1)
    folders: list[Path] = []
    monkeypatch.setattr(run, "export_model", lambda _, folder, **__: folders.append(folder))
    return folders


@pytest.fixture
def data(gated: TrainingSet) -> TrainingSet:
    return gated.only(["alexnet", "resnet18", "vgg11"])


def weights(folder: Path) -> list[dict[str, torch.Tensor]]:
    return [dict(finished_weights(folder / "state" / f"encoder-{k}.pt")) for k in range(2)]


def same(one: Path, other: Path) -> bool:
    return all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(weights(one), weights(other), strict=True)
    )


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_training_that_is_killed_goes_on_to_the_same_weights(data: TrainingSet, tmp_path: Path) -> None:
    """Killed while curves are fitted, and at random moments within the first and the second encoder."""
    (tmp_path / "data.pickle").write_bytes(pickle.dumps(data))
    moments = [0, random.randint(26, 59), random.randint(70, 115)]
    command = [
        Path(__file__).with_name("kill_and_resume.py"),
        *(tmp_path / n for n in ("data.pickle", "a", "b")),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, *map(str, [*command, *moments])], capture_output=True, text=True, env=environment,
        timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, (moments, ended.stderr)
    assert same(tmp_path / "a", tmp_path / "b"), moments
    # It did go on: one that began anew each time would have written all steps of the first encoder each time.
    first = [int(line["step"]) for line in history(tmp_path / "a") if line["stage"] == "encoder 1 of 2"]
    assert first.count(1) == 1, moments
    assert first.count(60) == 1, moments
    wanted = {(line["stage"], line["step"]): line["loss"] for line in history(tmp_path / "b")}
    assert {(line["stage"], line["step"]): line["loss"] for line in history(tmp_path / "a")} == wanted
    leftovers = [path.name for path in (tmp_path / "b").rglob("*.part")]
    assert leftovers == []


def test_a_training_that_is_interrupted_goes_on_to_the_same_weights(
    data: TrainingSet, tmp_path: Path, exported: list[Path]
) -> None:
    def interrupt(stage: str, done: int, *_: object) -> None:
        if stage == "encoder 2 of 2" and done == 27:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(data, SETTINGS, tmp_path / "a", interrupt)
    assert exported == []
    with pytest.raises(ArtifactError, match="has done 25 of 30 steps"):
        finished_weights(tmp_path / "a" / "state" / "encoder-1.pt")
    told: list[tuple[str, int]] = []
    one = train_run(data, SETTINGS, tmp_path / "a", lambda stage, done, *_: told.append((stage, done)))
    assert [done for stage, done in told if stage.startswith("encoder")] == [26, 27, 28, 29, 30]
    other = train_run(data, SETTINGS, tmp_path / "b")
    assert exported == [tmp_path / "a" / "artifact", tmp_path / "b" / "artifact"]
    assert same(tmp_path / "a", tmp_path / "b")
    assert one.interval_factors == other.interval_factors
    assert (one.structure.device == other.structure.device).all()


def test_a_finished_training_is_not_done_again(
    data: TrainingSet, tmp_path: Path, exported: list[Path]
) -> None:
    train_run(data, SETTINGS, tmp_path)
    before = (tmp_path / "history.csv").read_text()
    assert before.splitlines()[0] == "stage,step,loss"
    assert len(before.splitlines()) == 1 + 2 * 30
    train_run(data, SETTINGS, tmp_path)
    assert (tmp_path / "history.csv").read_text() == before
    assert len(exported) == 2


def test_a_folder_in_which_another_process_trains_is_refused(data: TrainingSet, tmp_path: Path) -> None:
    # Locks of two open files exclude each other, within one process as between two.
    with run._locked(tmp_path), pytest.raises(RappError, match="another process is training") as caught:
        train_run(data, SETTINGS, tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run.json").exists()
    train_run(data, replace(SETTINGS, encoder=replace(SETTINGS.encoder, steps=1)), tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 2}, "seed"),
        ({"members": 1}, "members"),
        ({"encoder": EncoderSettings(steps=31, hidden=8, layers=1)}, "steps"),
        ({"encoder": EncoderSettings(steps=30, hidden=16, layers=1)}, "hidden"),
        ({"init": Path("elsewhere")}, "init"),
        ({"license_id": "MIT"}, "license"),
    ],
)
def test_another_training_in_the_folder_is_refused(
    data: TrainingSet, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    run._claim(tmp_path, SETTINGS, data)
    run._claim(tmp_path, SETTINGS, data)
    with pytest.raises(ConfigError, match=f"holds a run with another {told}: name another --out"):
        run._claim(tmp_path, replace(SETTINGS, **change), data)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rows_hash": "other"}, "rows_hash"),
        ({"names": ("alexnet", "vgg11")}, "networks"),
        ({"graph_hashes": {"alexnet": "1", "resnet18": "2", "vgg11": "3"}}, "graph_hashes"),
    ],
)
def test_other_data_in_the_folder_is_refused(
    data: TrainingSet, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    run._claim(tmp_path, SETTINGS, data)
    with pytest.raises(ConfigError, match=f"holds a run with another {told}"):
        run._claim(tmp_path, SETTINGS, replace(data, **change))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"some": "thing"}', "\x00"])
def test_a_folder_of_something_else_is_refused(data: TrainingSet, tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    for ask in (lambda: train_run(data, SETTINGS, tmp_path), lambda: recorded_steps(tmp_path)):
        with pytest.raises(ArtifactError, match=r"run\.json: is not"):
            ask()


def test_a_folder_that_cannot_be_made_is_one_line(data: TrainingSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RappError, match="cannot be written"):
        train_run(data, SETTINGS, tmp_path / "file")
    with pytest.raises(RappError, match="cannot be written"):
        train_run(data, SETTINGS, tmp_path / "file" / "below")


def test_what_is_recorded_of_a_run(data: TrainingSet, tmp_path: Path) -> None:
    assert recorded_steps(tmp_path) is None
    run._claim(tmp_path, SETTINGS, data)
    assert recorded_steps(tmp_path) == 30
    found = json.loads((tmp_path / "run.json").read_text())
    assert found["seed"] == 1
    assert found["learning_rate"] == EncoderSettings().learning_rate
    assert found["networks"] == ["alexnet", "resnet18", "vgg11"]


def test_what_fine_tuning_can_start_from(data: TrainingSet, tmp_path: Path) -> None:
    source = tmp_path / "source"
    with pytest.raises(ArtifactError, match="neither an artifact nor a run"):
        initial_weights(source)
    train_run(data, SETTINGS, source)
    found = initial_weights(source)
    assert all(torch.equal(found[name], value) for name, value in weights(source)[0].items())
    checkpoint = source / "state" / "encoder-0.pt"
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[:1000])
    tuned = replace(SETTINGS, init=source)
    with pytest.raises(ArtifactError, match=r"encoder-0\.pt: the checkpoint cannot be used"):
        train_run(data, tuned, tmp_path / "tuned")
    state = torch.load(source / "state" / "encoder-1.pt", weights_only=True)
    torch.save(state | {"step": 25}, checkpoint)
    with pytest.raises(ArtifactError, match="has done 25 of 30 steps: let that run finish"):
        train_run(data, tuned, tmp_path / "tuned")
    checkpoint.write_bytes(content)
    train_run(data, tuned, tmp_path / "tuned")
    fresh, after = history(source)[0], history(tmp_path / "tuned")[0]
    assert fresh["stage"] == after["stage"] == "encoder 1 of 2"
    assert float(after["loss"]) < 0.9 * float(fresh["loss"])
