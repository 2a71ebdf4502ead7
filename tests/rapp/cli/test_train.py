"""`rapp train` and `rapp export` as a user runs them: one training, its record, and what starts from it."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from train_parts import GRID, MODELS, Given, Rapp, given, losses, unexported

from rapp.types import QuotaKind, ResourceConfig

__all__ = ["given", "unexported"]


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
