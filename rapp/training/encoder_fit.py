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
from rapp.graph.features import COSTS, WIDTH, GraphFeatures
from rapp.inference.law import SHARPNESS
from rapp.inference.posterior import Curves, Prior
from rapp.knots import IndexArray, Knots
from rapp.model.encoder import Encoder, Variant
from rapp.training.checkpoint import load_checkpoint, save_checkpoint
from rapp.training.dataset import TrainingSet
from rapp.types import FloatArray


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


def trained_knots(knots: Knots) -> Knots:
    """The knots that training needs: the trained values alone."""
    quota = knots.quota_pct[knots.trained_quota()]
    quota = np.union1d(quota, [100.0])
    return Knots(
        knots.trained_batch,
        knots.trained_sm_pct,
        quota,
        *(getattr(knots, f"trained_{a}") for a in ("batch", "sm_pct", "quota_pct")),
    )


_BLANK = GraphFeatures(
    np.zeros((1, WIDTH), dtype=np.float32),
    np.full((1, len(COSTS)), 1e8, dtype=np.float32),
    np.zeros((2, 0), dtype=np.int64),
)


@dataclass
class GraphBatch:
    """Several graphs as one: operators (V, F), costs (V, 4), edges (2, E), graph (V,) and their count."""

    operators: Tensor
    costs: Tensor
    edges: Tensor
    graph: Tensor
    count: int

    @classmethod
    def of(cls, features: Sequence[GraphFeatures], variant: Variant = "rapp") -> GraphBatch:
        """Join `features`. Two ablations change them: `chain` replaces the DAG by the order of visit,
        `no-graph` every network by one and the same operator."""
        chain = variant == "chain"
        if variant == "no-graph":
            features = [_BLANK] * len(features)
        sizes = [len(f.operators) for f in features]
        starts = np.concatenate([[0], np.cumsum(sizes)])[:-1]
        edges = [
            (np.stack([np.arange(n - 1), np.arange(1, n)]) if chain else f.edges) + start
            for f, n, start in zip(features, sizes, starts, strict=True)
        ]
        return cls(
            torch.from_numpy(np.concatenate([f.operators for f in features])),
            torch.from_numpy(np.concatenate([f.costs for f in features])),
            torch.from_numpy(np.concatenate(edges, axis=1)),
            torch.from_numpy(np.repeat(np.arange(len(features)), sizes)),
            len(features),
        )

    def through(self, encoder: Encoder) -> tuple[Tensor, Tensor]:
        log_device, log_host = encoder(self.operators, self.costs, self.edges, self.graph, self.count)
        return log_device, log_host


class _Rows:
    """All points of all networks as flat tensors, with the fitted curves at them."""

    def __init__(self, data: TrainingSet, fits: Mapping[str, Curves]) -> None:
        knots, small = data.knots, trained_knots(data.knots)
        network, b, s, q, share, latency, gpu_time, device, host = ([] for _ in range(9))
        for i, name in enumerate(data.names):
            p, fit = data.points[name], fits[name]
            hq = np.where(p.gpu_time, len(knots.quota_pct) - 1, p.quota)
            network.append(np.full(len(p), i))
            b.append(_position(small.batch, knots.batch[p.batch]))
            s.append(_position(small.sm_pct, knots.sm_pct[p.sm]))
            q.append(_position(small.quota_pct, knots.quota_pct[hq]))
            share.append(p.quota_share)
            latency.append(p.log_latency)
            gpu_time.append(p.gpu_time)
            device.append(fit.log_device[p.batch, p.sm])
            host.append(fit.log_host[p.batch, p.sm, hq])
        self.network, self.b, self.s, self.q = (
            torch.from_numpy(np.concatenate(x)) for x in (network, b, s, q)
        )
        self.share, self.latency, self.device, self.host = (
            torch.from_numpy(np.concatenate(x)).float() for x in (share, latency, device, host)
        )
        self.gpu_time = torch.from_numpy(np.concatenate(gpu_time))
        self.credit = data.campaign.credit
        self.networks = len(data.names)
        self.by_device = self.device > self.host - 0.1

    def latency_of(self, device: Tensor, host: Tensor) -> Tensor:
        """The law of `rapp.inference.law`, with gradients."""
        pace = torch.logaddexp(SHARPNESS * device, SHARPNESS * host) / SHARPNESS
        if not self.gpu_time.any():
            return pace
        time = device.exp()
        owed = torch.maximum(time / self.share - self.credit, 1e-3 * time).log()
        return torch.where(
            self.gpu_time, torch.logaddexp(SHARPNESS * pace, SHARPNESS * owed) / SHARPNESS, pace
        )

    def mean_by_network(self, loss: Tensor, mask: Tensor) -> Tensor:
        """Mean over the masked rows of each network; a network with few such rows counts for less."""
        total = torch.zeros(self.networks).index_add(0, self.network, loss * mask)
        count = torch.zeros(self.networks).index_add(0, self.network, mask.float())
        return (total / (count + 20)).mean()


def _position(axis: FloatArray, values: FloatArray) -> IndexArray:
    """For each value the index of the nearest on `axis`."""
    return np.asarray(np.abs(np.log(values)[:, None] - np.log(axis)[None]).argmin(axis=1), dtype=np.int64)


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
    rows = _Rows(data, fits)
    if start is not None:
        _check_start(encoder, start)
        _adopt(encoder, start)
    if settings.variant != "mlp-head":
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


def _loss(encoder: Encoder, batch: GraphBatch, rows: _Rows, settings: EncoderSettings) -> Tensor:
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


def _set_scale(encoder: Encoder, batch: GraphBatch, rows: _Rows) -> None:
    """Start at this device's level: the median ratio of fitted to predicted device time."""
    with torch.no_grad():
        log_device, _ = batch.through(encoder)
        ratio = rows.device - log_device[rows.network, rows.b, rows.s]
        use = rows.by_device if rows.by_device.any() else torch.ones_like(rows.by_device)
        encoder.device_law.scale.add_(ratio[use].median())


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
                device = device[:, _position(small.batch, knots.batch)][
                    :, :, _position(small.sm_pct, knots.sm_pct)
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
