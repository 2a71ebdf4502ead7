"""Fitting one encoder: each half of the prior is trained against the fitted other half.

Latency shows the larger of device and host time only. So the predicted log D is put beside the host
curve that was fitted to the network's own points, and the predicted host curve beside its fitted
device time: each half is taught where it is what was measured, and is only held below the latency
where it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rapp.errors import ConfigError
from rapp.inference.posterior import Curves, Prior
from rapp.knots import Knots
from rapp.model.encoder import Encoder, Variant
from rapp.training.batch import GraphBatch, Rows, position, trained_knots
from rapp.training.checkpoint import load_checkpoint, save_checkpoint
from rapp.training.dataset import TrainingSet


@dataclass(frozen=True)
class EncoderSettings:
    """Hyperparameters of one encoder.

    Args:
        steps: full-batch steps. learning_rate: peak of the one-cycle schedule (Smith and Topin 2019).
        beta: where the Huber loss of a log error turns linear. unseen_weight: weight of rows that the
            device does not decide, in the device's loss.
    """

    steps: int = 200
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2
    hidden: int = 48
    layers: int = 2
    beta: float = 0.05
    unseen_weight: float = 0.3
    variant: Variant = "rapp"


Progress = Callable[[int, float], None]


def fit_encoder(
    data: TrainingSet,
    fits: Mapping[str, Curves],
    settings: EncoderSettings,
    seed: int,
    checkpoint: Path | None = None,
    start: Mapping[str, Tensor] | None = None,
    progress: Progress | None = None,
) -> Encoder:
    """Train an encoder on the networks of `data`; the same seed and thread count give the same weights.

    Args:
        checkpoint: file to resume from and to write to (whole or not at all).
        start: weights to begin with (fine-tuning).
        progress: called with the step and its loss.

    Raises:
        ArtifactError: the checkpoint cannot be used.
        ConfigError: `start` is of an encoder of another shape.
    """
    torch.manual_seed(seed)
    encoder = Encoder(trained_knots(data.knots), settings.hidden, settings.layers, settings.variant)
    batch = GraphBatch.of([data.features[name] for name in data.names], settings.variant)
    rows = Rows(data, fits)
    if start is not None:
        _check_start(encoder, start)
        _adopt(encoder, start)
    if settings.variant == "mlp-head":
        _set_mean_curves(encoder, rows)
    else:
        _set_scale(encoder, batch, rows)
    optimizer = torch.optim.AdamW(
        encoder.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, settings.steps, pct_start=0.15
    )
    first = load_checkpoint(checkpoint, encoder, optimizer, schedule) if checkpoint else 0
    for step in range(first, settings.steps):
        loss = _loss(encoder, batch, rows, settings)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if progress:
            progress(step + 1, loss.item())
        if checkpoint and ((step + 1) % 25 == 0 or step + 1 == settings.steps):
            save_checkpoint(checkpoint, encoder, optimizer, schedule, step + 1)
    return encoder.eval()


def _loss(encoder: Encoder, batch: GraphBatch, rows: Rows, settings: EncoderSettings) -> Tensor:
    log_device, log_host = batch.through(encoder)
    device = log_device[rows.network, rows.b, rows.s]
    host = log_host[rows.network, rows.q]
    of_device = F.smooth_l1_loss(
        rows.latency_of(device, rows.host), rows.latency, beta=settings.beta, reduction="none"
    )
    of_host = F.smooth_l1_loss(
        rows.latency_of(rows.device, host), rows.latency, beta=settings.beta, reduction="none"
    )
    return (
        rows.mean_by_network(of_device, rows.by_device)
        + settings.unseen_weight * rows.mean_by_network(of_device, ~rows.by_device)
        + of_host.mean()
    )


def _set_scale(encoder: Encoder, batch: GraphBatch, rows: Rows) -> None:
    """Start at this device's level: the median ratio of fitted to predicted device time."""
    with torch.no_grad():
        log_device, _ = batch.through(encoder)
        ratio = rows.device - log_device[rows.network, rows.b, rows.s]
        use = rows.by_device if rows.by_device.any() else torch.ones_like(rows.by_device)
        encoder.device_law.scale.add_(ratio[use].median())


def _set_mean_curves(encoder: Encoder, rows: Rows) -> None:
    """Start the plain head at the mean curves of the networks, as the law starts at the device's level."""
    b, s, _ = encoder.shape
    last = encoder.head[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.mul_(0.1)
        for part, knot, value in (
            (last.bias[: b * s], rows.b * s + rows.s, rows.device),
            (last.bias[b * s :], rows.q, rows.host),
        ):
            count = torch.zeros(len(part)).index_add(0, knot, torch.ones_like(value))
            total = torch.zeros(len(part)).index_add(0, knot, value)
            part.copy_(torch.where(count > 0, total / count.clamp(min=1.0), value.mean()))


def _adopt(encoder: Encoder, weights: Mapping[str, Tensor]) -> None:
    """Take over the weights of another training; axes and the host curve may be of other lengths."""
    own = encoder.state_dict()
    own.update({k: v for k, v in weights.items() if k in own and own[k].shape == v.shape and not _is_axis(k)})
    encoder.load_state_dict(own)


def _check_start(encoder: Encoder, weights: Mapping[str, Tensor]) -> None:
    """A start that leaves most weights as they are would be none, and nobody would notice."""
    own = encoder.state_dict()
    # These depend on the axes of the profiles, or are set anew.
    free = ("device_law.batch", "device_law.sm", "device_law.scale", "host_curve.read.2.")
    other = [
        name
        for name, value in own.items()
        if not name.startswith(free) and (name not in weights or weights[name].shape != value.shape)
    ]
    other += [name for name in weights if name.startswith("blocks.") and name not in own]
    if other:
        raise ConfigError(
            f"the encoder to start from is another one than these settings make ({other[0]} differs):"
            " start from one of the same width and number of layers"
        )


def _is_axis(name: str) -> bool:
    return name in ("device_law.batch", "device_law.sm")


def on_knots(encoder: Encoder, knots: Knots, settings: EncoderSettings) -> Encoder:
    """The same encoder, tabulating on all `knots`."""
    wide = Encoder(knots, settings.hidden, settings.layers, settings.variant)
    _adopt(wide, encoder.state_dict())
    return wide.eval()


def priors(
    encoders: Sequence[Encoder], data: TrainingSet, names: Sequence[str], settings: EncoderSettings
) -> dict[str, Prior]:
    """What the mean of `encoders` says of each network, on all knots of `data`."""
    if not names:
        return {}
    batch = GraphBatch.of([data.features[name] for name in names], settings.variant)
    knots, answers = data.knots, []
    with torch.no_grad():
        for encoder in encoders:
            if settings.variant == "mlp-head":
                device, host = batch.through(encoder)
                small = trained_knots(knots)
                device = device[:, position(small.batch, knots.batch)][
                    :, :, position(small.sm_pct, knots.sm_pct)
                ]
            else:
                device, host = batch.through(on_knots(encoder, knots, settings))
            answers.append((device.double().numpy(), host.double().numpy()))
    log_device = np.mean([a[0] for a in answers], axis=0)
    log_host = np.mean([a[1] for a in answers], axis=0)
    return {name: Prior(log_device[i], log_host[i]) for i, name in enumerate(names)}


def settings_dict(settings: EncoderSettings) -> dict[str, Any]:
    """Plain values for JSON and MLflow."""
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}
