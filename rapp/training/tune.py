"""Search of hyperparameters with Optuna: pruned, in a store that several machines can share, resumable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from rapp.errors import ConfigError
from rapp.training.dataset import TrainingSet
from rapp.training.encoder_fit import EncoderSettings, fit_encoder, priors
from rapp.training.held_out import device_mape
from rapp.training.pipeline import fitted_curves

FOLDS = 3


def tune(
    data: TrainingSet,
    trials: int,
    seed: int,
    storage: str,
    study_name: str = "rapp",
    steps: int = 150,
    on_trial: Callable[[Any, Any], None] | None = None,
) -> Any:
    """Search for the settings with the least error of device time on networks left out.

    Each trial trains on three folds of the networks in turn and reports the mean error so far, so that
    a trial that is worse than the median of the others at the same fold is given up (Optuna's median pruner).

    Args:
        trials: how many the study shall hold in all; those of an earlier call count.
        storage: Optuna's URL, such as sqlite:///study.db.

    Returns:
        the Optuna study.

    Raises:
        ConfigError: fewer than 3 networks.
    """
    import optuna

    if len(data.names) < FOLDS:
        raise ConfigError(
            f"tuning leaves networks out: it needs {FOLDS} or more, the profiles hold {len(data.names)}"
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    curves = fitted_curves(data)
    order = np.random.default_rng(seed).permutation(len(data.names))
    folds = [[data.names[i] for i in order[k::FOLDS]] for k in range(FOLDS)]

    def objective(trial: Any) -> float:
        settings = replace(
            EncoderSettings(steps=steps),
            learning_rate=trial.suggest_float("learning_rate", 1e-3, 2e-2, log=True),
            weight_decay=trial.suggest_float("weight_decay", 1e-4, 1e-1, log=True),
            hidden=trial.suggest_categorical("hidden", [32, 48, 64]),
            layers=trial.suggest_int("layers", 0, 3),
            beta=trial.suggest_float("beta", 0.02, 0.2, log=True),
        )
        errors: list[float] = []
        for k, left_out in enumerate(folds):
            seen = data.only([name for name in data.names if name not in left_out])
            encoder = fit_encoder(seen, curves, settings, seed + k)
            answers = priors([encoder], data, left_out, settings)
            found = [device_mape(answers[name], data.points[name]) for name in left_out]
            errors += [value for value in found if value is not None]
            trial.report(float(np.mean(errors)) if errors else 0.0, k)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(np.mean(errors)) if errors else 0.0

    study = optuna.create_study(
        storage=storage, study_name=study_name, load_if_exists=True, direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=seed), pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
    )  # fmt: skip
    ended = [t for t in study.trials if t.state.is_finished()]
    study.optimize(
        objective, n_trials=max(trials - len(ended), 0), callbacks=[on_trial] if on_trial else None
    )
    return study
