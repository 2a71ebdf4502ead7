"""`rapp train`, `rapp export` and `rapp tune` as a user runs them, on four small networks."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rapp.profiles import ProfileTable
from rapp.testing import ClosedFormModel
from rapp.types import QuotaKind, ResourceConfig, ResourceGrid

ZOO = Path(__file__).resolve().parents[3] / "datasets" / "graphs"
GRID = ResourceGrid([10, 40, 70, 100], [20, 60, 100], [1, 4])
MODELS = {
    "alexnet": ClosedFormModel("alexnet", 0.6, 2.0),
    "resnet18": ClosedFormModel("resnet18", 2.0, 5.0),
    "squeezenet1_1": ClosedFormModel("squeezenet1_1", 0.5, 4.0),
    "vgg11": ClosedFormModel("vgg11", 6.0, 2.5),
}
Rapp = Callable[..., Any]


def rows_of(name: str, **changes: object) -> list[dict[str, Any]]:
    rng = np.random.default_rng(len(name))
    fixed = {
        "network": name, "device": "made up", "runtime": "pytorch-eager", "precision": "fp32",
        "quota_kind": "launch_gate", "derived": False, "status": "ok", "campaign_id": "c1", "anchor": False,
    }  # fmt: skip
    return [
        fixed
        | {"sm_pct": c.sm_pct, "quota_pct": c.quota_pct, "batch": c.batch}
        | {"latency_ms": MODELS[name].latency(c).mean_ms * float(np.exp(0.02 * rng.standard_normal()))}
        | changes
        for c in GRID
    ]


@dataclass(frozen=True)
class Given:
    """Files in a folder of their own, which is the current one. `options`: of every training."""

    folder: Path
    profiles: Path
    graphs: Path

    @property
    def options(self) -> list[object]:
        return ["--profiles", self.profiles, "--graphs", self.graphs, "--threads", 1]

    @property
    def store(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Given]:
    folder = tmp_path_factory.mktemp("train")
    made = Given(folder, folder / "profiles.parquet", folder / "graphs")
    made.graphs.mkdir()
    for name in MODELS:
        shutil.copy(ZOO / f"{name}.onnx", made.graphs)
    ProfileTable.from_rows([row for name in MODELS for row in rows_of(name)]).write(made.profiles)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # MLflow puts artifacts of a local store into the current folder
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield made


@pytest.fixture(scope="module")
def trained(given: Given) -> tuple[Path, str, str]:
    """A run with the local MLflow store that is the default, its stdout and its stderr."""
    from rapp.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    arguments = [*given.options, "--out", "run", "--steps", 20, "--members", 1, "--holdout", "squeezenet1_1"]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv("COLUMNS", "80")
        patch.setattr(sys, "argv", ["rapp", "train", *map(str, arguments), "--license", "CC0-1.0"])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code, err.getvalue()
    return given.folder / "run", out.getvalue(), err.getvalue()


@pytest.fixture
def unexported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the export to ONNX, which takes seconds."""
    monkeypatch.setattr("rapp.training.run.export_model", lambda *_, **__: None)


def losses(run: Path) -> list[tuple[str, int, float]]:
    with (run / "history.csv").open(newline="") as file:
        return [(line["stage"], int(line["step"]), float(line["loss"])) for line in csv.DictReader(file)]


def recorded(client: Any, name: str) -> Any:
    """The one MLflow run of that name."""
    experiment = client.get_experiment_by_name("rapp")
    (found,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
    return found


def test_a_training_ends_with_a_predictor_that_answers(trained: tuple[Path, str, str], given: Given) -> None:
    from rapp.predictor import Predictor

    run, _, _ = trained
    predictor = Predictor.load(run / "artifact")
    card = predictor.card
    assert [network.name for network in card.networks] == ["alexnet", "resnet18", "vgg11"]
    assert (card.device, card.license, card.rows, card.seed) == ("made up", "CC0-1.0", 72, 0)
    assert card.quota_kinds == [QuotaKind.LAUNCH_GATE]
    assert any("one encoder" in limit for limit in card.limits)
    assert any("no measurement of this device has checked them" in limit for limit in card.limits)
    known = predictor.network(given.graphs / "vgg11.onnx")
    assert known.known
    errors = [known.latency(c).mean_ms / MODELS["vgg11"].latency(c).mean_ms - 1 for c in GRID]
    assert np.abs(errors).mean() < 0.08
    # The network that was left out is answered from its graph: a number, better once it is measured.
    unseen = predictor.network(given.graphs / "squeezenet1_1.onnx")
    assert not unseen.known
    truth = MODELS["squeezenet1_1"].latency(ResourceConfig(70, 100, 1)).mean_ms
    answer = unseen.latency(ResourceConfig(70, 100, 1))
    assert 0 < answer.low_ms < answer.mean_ms < answer.high_ms
    assert 0.1 < answer.mean_ms / truth < 10


def test_what_it_prints_fits_a_terminal(trained: tuple[Path, str, str]) -> None:
    _, out, err = trained
    assert "Trained on 72 points of 3 networks" in out
    assert "run/artifact" in out
    shown = out + err
    assert "encoder 1 of 1" in shown
    assert "20/20" in shown
    assert "loss" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "INFO" not in shown
    assert "Warning" not in shown


def test_a_training_is_recorded_in_mlflow(trained: tuple[Path, str, str], given: Given) -> None:
    from mlflow.tracking import MlflowClient

    run, _, _ = trained
    assert (given.folder / "mlflow.db").is_file()
    client = MlflowClient(given.store)
    found = recorded(client, "run")
    assert found.info.status == "FINISHED"
    wanted = {"seed": "0", "steps": "20", "members": "1", "rows": "72", "license": "CC0-1.0", "hidden": "48"}
    assert wanted.items() <= found.data.params.items()
    curve = client.get_metric_history(found.info.run_id, "loss/encoder 1 of 1")
    assert [(m.step, m.value) for m in curve] == [
        (step, pytest.approx(loss, rel=1e-5)) for _, step, loss in losses(run)
    ]
    assert len(curve) == 20
    factors = json.loads((run / "artifact" / "card.json").read_text())["interval_factors"]
    for count, factor in factors.items():
        assert found.data.metrics[f"interval_factor/{count}"] == pytest.approx(factor)
    files = {item.path for item in client.list_artifacts(found.info.run_id, "artifact")}
    assert files == {f"artifact/{path.name}" for path in (run / "artifact").iterdir()}


def test_an_interrupted_training_is_killed_in_mlflow_and_can_be_resumed(
    trained: tuple[Path, str, str], given: Given, rapp: Rapp, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    from rapp.training import encoder_fit

    save = encoder_fit.save_checkpoint

    def interrupted(*arguments: Any) -> None:
        save(*arguments)
        raise KeyboardInterrupt

    command = ["train", *given.options, "--out", "stopped", "--steps", 30, "--members", 1]
    with monkeypatch.context() as patch:
        patch.setattr(encoder_fit, "save_checkpoint", interrupted)
        ended = rapp(*command)
    assert ended.code == 130
    assert ended.err.splitlines()[-1] == "interrupted"
    client = MlflowClient(given.store)
    found = recorded(client, "stopped")
    assert found.info.status == "KILLED"
    assert len(client.get_metric_history(found.info.run_id, "loss/encoder 1 of 1")) == 25
    assert "has not finished" in rapp("export", "stopped", "--out", "nowhere").line()
    monkeypatch.setattr("rapp.training.run.export_model", lambda *_, **__: None)
    assert rapp(*command, "--tracking", "none").code == 0
    assert [step for _, step, _ in losses(given.folder / "stopped")] == list(range(1, 31))


def test_a_training_that_fails_is_failed_in_mlflow(
    trained: tuple[Path, str, str], given: Given, rapp: Rapp
) -> None:
    from mlflow.tracking import MlflowClient

    rapp("train", *given.options, "--out", "refused", "--init", given.folder / "nowhere").line()
    assert recorded(MlflowClient(given.store), "refused").info.status == "FAILED"


def test_without_tracking_nothing_of_it_is_left(
    given: Given, rapp: Rapp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unexported: None
) -> None:
    monkeypatch.chdir(tmp_path)
    rapp(
        "train", *given.options, "--out", "run", "--steps", 1, "--members", 1, "--tracking", "none"
    ).printed()
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_fine_tuning_starts_from_the_other_run(
    trained: tuple[Path, str, str], given: Given, rapp: Rapp, tmp_path: Path, unexported: None
) -> None:
    """From a run, and from its artifact alone."""
    run, _, _ = trained
    options = [
        *given.options,
        "--steps",
        2,
        "--members",
        1,
        "--tracking",
        "none",
        "--holdout",
        "squeezenet1_1",
    ]
    for name, init in (("fresh", None), ("run", run), ("artifact", run / "artifact")):
        more = [] if init is None else ["--init", init]
        assert rapp("train", *options, "--out", tmp_path / name, *more).code == 0
    fresh, tuned, again = (losses(tmp_path / name)[0][2] for name in ("fresh", "run", "artifact"))
    assert tuned < 0.9 * fresh
    assert again == pytest.approx(tuned, rel=0.05)


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


def test_a_finished_run_is_exported_to_its_place(
    trained: tuple[Path, str, str], rapp: Rapp, tmp_path: Path
) -> None:
    from rapp.predictor import Predictor

    run, _, _ = trained
    out = tmp_path / "models" / "made-up"
    assert "Exported 3 networks of made up" in rapp("export", run, "--out", out).printed()
    assert {p.name: p.read_bytes() for p in out.iterdir() if p.suffix != ".json"} == {
        p.name: p.read_bytes() for p in (run / "artifact").iterdir() if p.suffix != ".json"
    }
    assert Predictor.load(out).card == Predictor.load(run / "artifact").card
    assert "no predictor artifact" in rapp("export", tmp_path, "--out", tmp_path / "x").line()
    (out / "encoder.onnx").write_bytes(b"damaged")
    assert "encoder.onnx: is damaged" in rapp("export", out, "--out", tmp_path / "x").line()
    assert not (tmp_path / "x").exists()


def test_tuning_resumes_and_draws_no_trial_twice(given: Given, rapp: Rapp, tmp_path: Path) -> None:
    import optuna

    storage = f"sqlite:///{tmp_path / 'tune.db'}"
    options = ["--profiles", given.profiles, "--graphs", given.graphs, "--storage", storage, "--steps", 2]
    first = rapp("tune", *options, "--trials", 2)
    assert first.code == 0, first.err
    assert "trial   1" in first.out
    assert "best: device time within" in first.out
    more = rapp("tune", *options, "--trials", 3)
    assert more.code == 0, more.err
    assert "trial   2" in more.out
    assert "trial   1" not in more.out
    study = optuna.load_study(study_name="rapp", storage=storage)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    rates = [trial.params["learning_rate"] for trial in study.trials]
    assert len(set(rates)) == 3
    # Three folds each: a trial is a mean over networks that its encoders had not seen.
    assert all(len(trial.intermediate_values) == 3 for trial in study.trials)
    assert "another seed" in rapp("tune", *options, "--trials", 4, "--seed", 1).line()
    assert len(optuna.load_study(study_name="rapp", storage=storage).trials) == 3


def test_an_interrupted_trial_is_tried_again(
    given: Given, rapp: Rapp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = f"sqlite:///{tmp_path / 'tune.db'}"
    options = ["--profiles", given.profiles, "--graphs", given.graphs, "--storage", storage, "--steps", 1]

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rapp.training.tune.fit_encoder", interrupted)
        assert rapp("tune", *options, "--trials", 1).code == 130
    ended = rapp("tune", *options, "--trials", 1)
    assert ended.code == 0
    assert "trial   1" in ended.out


def test_what_cannot_be_tuned_is_one_line(given: Given, rapp: Rapp, tmp_path: Path) -> None:
    few = tmp_path / "few.parquet"
    ProfileTable.from_rows(rows_of("alexnet") + rows_of("vgg11")).write(few)
    storage = ["--storage", f"sqlite:///{tmp_path / 'tune.db'}"]
    line = rapp("tune", "--profiles", few, "--graphs", given.graphs, *storage).line()
    assert "needs 3 or more, the profiles hold 2" in line
    (tmp_path / "damaged.db").write_text("this is no database")
    options = ["--profiles", given.profiles, "--graphs", given.graphs, "--trials", 1]
    for bad in ("nonsense://x", "words", f"sqlite:///{tmp_path / 'damaged.db'}"):
        assert "Optuna cannot use the store" in rapp("tune", *options, "--storage", bad).line()


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
