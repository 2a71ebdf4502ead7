"""What a training step sees: several graphs as one batch, and all points as flat tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rapp.graph.features import COSTS, WIDTH, GraphFeatures
from rapp.inference.law import SHARPNESS
from rapp.inference.posterior import Curves
from rapp.knots import IndexArray, Knots
from rapp.model.encoder import Encoder, Variant
from rapp.training.dataset import TrainingSet
from rapp.types import FloatArray


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


BLANK = GraphFeatures(
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
            features = [BLANK] * len(features)
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


class Rows:
    """All points of all networks as flat tensors, with the fitted curves at them."""

    def __init__(self, data: TrainingSet, fits: Mapping[str, Curves]) -> None:
        knots, small = data.knots, trained_knots(data.knots)
        network, b, s, q, share, latency, gpu_time, device, host = ([] for _ in range(9))
        for i, name in enumerate(data.names):
            p, fit = data.points[name], fits[name]
            hq = np.where(p.gpu_time, len(knots.quota_pct) - 1, p.quota)
            network.append(np.full(len(p), i))
            b.append(position(small.batch, knots.batch[p.batch]))
            s.append(position(small.sm_pct, knots.sm_pct[p.sm]))
            q.append(position(small.quota_pct, knots.quota_pct[hq]))
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


def position(axis: FloatArray, values: FloatArray) -> IndexArray:
    """For each value the index of the nearest on `axis`."""
    return np.asarray(np.abs(np.log(values)[:, None] - np.log(axis)[None]).argmin(axis=1), dtype=np.int64)
