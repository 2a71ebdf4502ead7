"""The stages of a training, in order: curves of each network, encoders, structure, interval factors."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from rapp.errors import ArtifactError
from rapp.fileio import atomic_path
from rapp.inference.learn import fit_network, learn_structure
from rapp.inference.posterior import Curves, Observations, Prior
from rapp.inference.structure import Structure
from rapp.knots import Knots
from rapp.model.encoder import Encoder
from rapp.training.dataset import TrainingSet
from rapp.training.encoder_fit import EncoderSettings, fit_encoder, priors
from rapp.training.intervals import interval_factors

MEMBERS = 4
# Counts up when `fit_network` gives other curves for the same points, so that none from before is reused.
FIT_VERSION = 2

Report = Callable[[str, int, int, float], None]
"""Called with the stage, steps done, steps in all, and the loss (NaN where there is none)."""


@dataclass(frozen=True)
class TrainedModel:
    """What a training learned.

    Args:
        encoders: the members; each was trained without one part of the networks (a single one on all).
        fits: curves of each network from its own points.
        unseen: the prior of each network by the member that had not seen it (a single one has).
        interval_factors: by number of points.
    """

    data: TrainingSet
    settings: EncoderSettings
    seed: int
    encoders: tuple[Encoder, ...]
    fits: Mapping[str, Curves]
    unseen: Mapping[str, Prior]
    structure: Structure
    interval_factors: Mapping[int, float] = field(default_factory=dict)


def train_model(
    data: TrainingSet,
    settings: EncoderSettings,
    seed: int,
    *,
    members: int = MEMBERS,
    state: Path | None = None,
    fit_cache: Path | None = None,
    start: Mapping[str, torch.Tensor] | None = None,
    known_factor: bool = True,
    report: Report | None = None,
) -> TrainedModel:
    """Train on all networks of `data`.

    Args:
        members: encoders of the ensemble; with fewer networks than that, one a network. A single one has
            seen all networks: then the structure and the interval factors say too little of unseen ones.
        state: folder for checkpoints; a killed training goes on from it.
        fit_cache: folder for fitted curves, which depend on a network's own points alone.
        start: weights to begin with (fine-tuning to a new device).
        known_factor: find the interval factor of known networks too, which takes a second a network.
    """
    tell = report or (lambda *_: None)
    fits = fitted_curves(data, fit_cache, tell)
    parts = _parts(data.names, members, seed)
    encoders: list[Encoder] = []
    unseen: dict[str, Prior] = {}
    for k, left_out in enumerate(parts):
        seen = [name for name in data.names if name not in left_out] or list(data.names)
        checkpoint = state / f"encoder-{k}.pt" if state else None
        encoder = fit_encoder(
            data.only(seen), fits, settings, seed * 100 + k, checkpoint, start,
            partial(_told, tell, f"encoder {k + 1} of {len(parts)}", settings.steps),
        )  # fmt: skip
        encoders.append(encoder)
        unseen |= priors([encoder], data, left_out, settings)
    structure = learn_structure(fits, unseen, data.knots)
    tell("interval factors", 0, 1, float("nan"))
    factors = interval_factors(data, fits, unseen, parts, structure, seed, known_factor)
    tell("interval factors", 1, 1, float("nan"))
    return TrainedModel(data, settings, seed, tuple(encoders), fits, unseen, structure, factors)


def _told(tell: Report, stage: str, steps: int, step: int, loss: float) -> None:
    tell(stage, step, steps, loss)


def fitted_curves(
    data: TrainingSet, cache: Path | None = None, tell: Report = lambda *_: None
) -> dict[str, Curves]:
    """Curves of each network from its own points."""
    fits = {}
    for i, name in enumerate(data.names):
        fits[name] = _fitted(data.points[name], data.knots, cache)
        tell("curves of each network", i + 1, len(data.names), float("nan"))
    return fits


def _parts(names: tuple[str, ...], members: int, seed: int) -> list[list[str]]:
    """Disjoint parts of the networks, one for each member to leave out."""
    order = np.random.default_rng(seed).permutation(len(names))
    count = min(members, len(names))
    return [sorted(names[i] for i in order[k::count]) for k in range(count)]


def _fitted(points: Observations, knots: Knots, cache: Path | None) -> Curves:
    """Curves from all points of one network, from `cache` if they were fitted before."""
    if cache is None:
        return fit_network(points, knots)
    key = hashlib.sha256(repr((FIT_VERSION, knots.to_dict())).encode())
    for array in (points.batch, points.sm, points.quota, points.log_latency, points.gpu_time):
        key.update(np.ascontiguousarray(array).tobytes())
    if points.gpu_time.any():
        # Only the law of gpu_time reads the quota itself and the credit.
        key.update(points.quota_share.tobytes() + repr(float(points.credit)).encode())
    path = cache / f"{key.hexdigest()[:32]}.npz"
    if path.exists():
        try:
            with np.load(path, allow_pickle=False) as stored:
                return Curves(stored["log_device"], stored["log_host"], stored["deviation"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ArtifactError(path, "holds no fitted curves: delete it, it will be made again") from error
    curves = fit_network(points, knots)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, log_device=curves.log_device, log_host=curves.log_host, deviation=curves.deviation)
    return curves
