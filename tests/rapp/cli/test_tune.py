"""`rapp tune` as a user runs it: resumed, interrupted, refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from train_parts import Given, Rapp, given, rows_of

from rapp.profiles import ProfileTable

__all__ = ["given"]


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
