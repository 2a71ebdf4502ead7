"""Checkpoints that are on disk whole or not at all; weights only, nothing is unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rapp.errors import ArtifactError
from rapp.fileio import atomic_path


def save_checkpoint(path: Path, model: Any, optimizer: Any, schedule: Any, step: int) -> None:
    """Write weights, the optimizer's and the schedule's state, and the number of steps done."""
    state = {
        "model": model.state_dict(), "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(), "step": step, "random": torch.get_rng_state(),
    }  # fmt: skip
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path, model: Any, optimizer: Any, schedule: Any) -> int:
    """Restore what `save_checkpoint` wrote; returns the steps done, 0 where there is no file.

    Raises:
        ArtifactError: the file is damaged or of another model.
    """
    if not path.exists():
        return 0
    try:
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"])
        return int(state["step"])
    except (RuntimeError, KeyError, ValueError, EOFError, OSError) as error:
        raise ArtifactError(
            path, f"the checkpoint cannot be used ({type(error).__name__}): delete it to start anew"
        ) from error
