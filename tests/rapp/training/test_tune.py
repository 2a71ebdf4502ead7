"""The search of hyperparameters; tests/rapp/cli/test_tune.py sees how it resumes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
import torch

from rapp.errors import ConfigError
from rapp.training import tune as module
from rapp.training.dataset import TrainingSet
from rapp.training.tune import tune

MEMORY: Any = None  # Optuna's storage in memory


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_an_encoder_is_judged_by_networks_it_has_not_seen(
    gated: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, seen = module.fit_encoder, []

    def watched(data: TrainingSet, *arguments: Any) -> Any:
        seen.append(set(data.names))
        return fit(data, *arguments)

    priors, judged = module.priors, []

    def asked(encoders: Any, data: TrainingSet, names: list[str], settings: Any) -> Any:
        judged.append(set(names))
        return priors(encoders, data, names, settings)

    monkeypatch.setattr(module, "fit_encoder", watched)
    monkeypatch.setattr(module, "priors", asked)
    study = tune(gated, 1, 0, MEMORY, steps=2)
    assert len(seen) == 3
    assert all(
        one.isdisjoint(other) and one | other == set(gated.names)
        for one, other in zip(seen, judged, strict=True)
    )
    assert sorted(name for names in judged for name in names) == list(gated.names)
    assert 0 < study.best_value < 1000


def test_better_settings_have_the_smaller_error(gated: TrainingSet) -> None:
    """Two steps teach less than forty: the error that is minimised must say so."""
    errors = [tune(gated, 1, 0, MEMORY, steps=steps).best_value for steps in (1, 40)]
    assert errors[1] < errors[0]


def test_trials_of_other_machines_count(gated: TrainingSet) -> None:
    def other_machine(study: Any, trial: Any) -> None:
        study.add_trial(
            optuna.trial.create_trial(value=50.0, params=trial.params, distributions=trial.distributions)
        )

    study = tune(gated, 3, 0, MEMORY, steps=1, on_trial=other_machine)
    # Own, other, own: the last is noticed when its turn is over.
    assert len(study.trials) <= 4


def test_profiles_in_which_the_device_never_decides_cannot_be_tuned_by(gated: TrainingSet) -> None:
    flat = {
        name: replace(points, log_latency=np.full(len(points), 1.0)) for name, points in gated.points.items()
    }
    with pytest.raises(ConfigError, match="in no point of the profiles does the device decide"):
        tune(replace(gated, points=flat), 1, 0, MEMORY, steps=1)
