"""Search of hyperparameters with Optuna: pruned, in a store that several machines can share, resumable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from rapp.errors import ConfigError
from rapp.inference.posterior import Curves, Prior
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
        trials: how many the study shall hold in all; those that ended in an earlier call count, unless
            they were interrupted.
        seed: of the folds and, with the number of trials in the study, of the sampler: a call that goes
            on does not draw again what an earlier one drew.
        storage: Optuna's URL, such as sqlite:///study.db.

    Returns:
        the Optuna study.

    Raises:
        ConfigError: fewer than 3 networks, none with points that show device time, a store that cannot be
            used, or a study whose trials cannot be compared: other rows, seed or steps.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    if len(data.names) < FOLDS:
        raise ConfigError(
            f"tuning leaves networks out: it needs {FOLDS} or more, the profiles hold {len(data.names)}"
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    curves = fitted_curves(data)
    if all(device_mape(_prior(curves[name]), data.points[name]) is None for name in data.names):
        raise ConfigError(
            "tuning goes by the error of device time, and in no point of the profiles does the device decide:"
            " they need larger batches or smaller SM partitions"
        )
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
            if errors:
                trial.report(float(np.mean(errors)), k)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(np.mean(errors))

    try:
        study = optuna.create_study(
            storage=storage, study_name=study_name, load_if_exists=True, direction="minimize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
        )  # fmt: skip
    except (SQLAlchemyError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"Optuna cannot use the store: {reason} (--storage names another)") from error
    _claim(study, {"rows_hash": data.rows_hash, "seed": seed, "steps": steps})
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    left = max(trials - len(study.get_trials(states=states)), 0)
    # Other machines may fill the study meanwhile.
    enough = optuna.study.MaxTrialsCallback(trials, states)
    study.optimize(objective, n_trials=left, callbacks=[enough, *([on_trial] if on_trial else [])])
    return study


def _prior(curves: Curves) -> Prior:
    return Prior(curves.log_device, curves.log_host[0, 0])


def _claim(study: Any, settings: dict[str, Any]) -> None:
    """Note in the study what its errors depend on beside the trial, or check that it is the same."""
    found = study.user_attrs
    different = [key for key in settings if found.get(key, settings[key]) != settings[key]]
    if different:
        raise ConfigError(
            f"the study {study.study_name} holds trials with another {', '.join(different)}:"
            " name another --study"
        )
    for key, value in settings.items():
        study.set_user_attr(key, value)
