"""Checkpoints that are on disk whole or not at all; weights only, nothing is unpickled."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rapp.errors import ArtifactError
from rapp.fileio import atomic_path

# What a truncated, overwritten or foreign file makes of torch.load and load_state_dict.
_UNUSABLE = (
    RuntimeError, KeyError, IndexError, ValueError, TypeError, AttributeError, EOFError, OSError,
    pickle.UnpicklingError, zipfile.BadZipFile,
)  # fmt: skip


def save_checkpoint(path: Path, model: Any, optimizer: Any, schedule: Any, step: int) -> None:
    """Write weights, the optimizer's and the schedule's state, the random state, the number of steps done."""
    state = {
        "model": model.state_dict(), "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(), "step": step, "random": torch.get_rng_state(),
    }  # fmt: skip
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path, model: Any, optimizer: Any, schedule: Any) -> int:
    """Restore what `save_checkpoint` wrote; returns the steps done, 0 where there is no file.

    Raises:
        ArtifactError: the file is damaged, of another model, or of a training of another length.
    """
    if not path.exists():
        return 0
    try:
        state = torch.load(path, weights_only=True)
        planned = int(state["schedule"]["total_steps"])
        if planned == schedule.total_steps:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
            torch.set_rng_state(state["random"])
            return int(state["step"])
    except _UNUSABLE as error:
        raise _unusable(path, error, "delete it to start anew") from error
    raise ArtifactError(
        path, f"is of a training of {planned} steps, not {schedule.total_steps}: delete it to start anew"
    )


def finished_weights(path: Path) -> Mapping[str, torch.Tensor]:
    """The weights in the checkpoint of an encoder that has done all its steps.

    Raises:
        ArtifactError: the file is damaged, or its training has not finished.
    """
    try:
        state = torch.load(path, weights_only=True)
        done, planned = int(state["step"]), int(state["schedule"]["total_steps"])
        weights: Mapping[str, torch.Tensor] = dict(state["model"])
    except _UNUSABLE as error:
        raise _unusable(path, error, "train that run again") from error
    if done < planned:
        raise ArtifactError(path, f"has done {done} of {planned} steps: let that run finish first")
    return weights


def _unusable(path: Path, error: Exception, action: str) -> ArtifactError:
    return ArtifactError(path, f"the checkpoint cannot be used ({type(error).__name__}): {action}")
