"""RaPP's encoder: an operator graph in, the prior of its curves out.

Message passing over the true DAG gives each operator an embedding that knows its neighbours; a law
per operator turns it into device time, which is summed over the graph; a cost per operator, summed,
is the launch time T of the host, from which the host curve over the quota follows.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import MessagePassing

from rapp.graph.features import WIDTH
from rapp.knots import Knots
from rapp.model.operator_law import OperatorLaw, small_linear

Variant = Literal["rapp", "chain", "mlp-head", "no-messages", "no-graph"]


class Neighbours(MessagePassing):  # type: ignore[misc]
    """Mean over an operator's neighbours along the edges: (V, H), (2, E) -> (V, H); 0 where there is none."""

    def __init__(self, flow: str) -> None:
        super().__init__(aggr="sum", flow=flow)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        total: Tensor = self.propagate(edges, x=torch.cat([x, torch.ones_like(x[:, :1])], dim=1))
        return total[:, :-1] / total[:, -1:].clamp(min=1.0)

    def message(self, x_j: Tensor) -> Tensor:
        return x_j


class Block(nn.Module):
    """One round of messages: from producers, from consumers, from itself; residual."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.mix = nn.Linear(3 * hidden, hidden)
        self.producers = Neighbours("source_to_target")
        self.consumers = Neighbours("target_to_source")

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        seen = self.norm(x)
        around = torch.cat([seen, self.producers(x, edges), self.consumers(x, edges)], dim=1)
        mixed: Tensor = x + F.silu(self.mix(around))
        return mixed


class HostCurve(nn.Module):
    """Launch time T of the host, ms, to its curve over the quota: (G,) -> (G, Q) log ms, non-increasing."""

    def __init__(self, quotas: int) -> None:
        super().__init__()
        self.read = nn.Sequential(nn.Linear(1, 32), nn.SiLU(), nn.Linear(32, quotas))

    def forward(self, launch_ms: Tensor) -> Tensor:
        out = self.read(torch.log(launch_ms + 0.1)[:, None])
        rise = F.softplus(out[:, :-1] - 1)
        # A reversed cumulative sum as one product, which every runtime has.
        count = rise.shape[1]
        upper = torch.triu(torch.ones(count + 1, count, device=out.device))
        curve: Tensor = (out[:, -1] + torch.log(launch_ms + 0.1))[:, None] + rise @ upper.T
        return curve


class Encoder(nn.Module):
    """Operator graphs to priors.

    Shapes:
        operators (V, WIDTH), costs (V, 4), edges (2, E), graph (V,) the graph of each operator
        -> log_device (G, B, S), log_host (G, Q), log ms, on the knots.

    Args:
        knots: where the curves are tabulated.
        hidden: width of the embeddings.
        layers: rounds of messages.
        variant: `rapp`, or one of the ablations: `mlp-head` reads all curves from the mean embedding
            with a plain MLP; `no-messages` keeps the operators and drops the edges. (`chain` and
            `no-graph` change what it is given: `rapp.training.batch.GraphBatch`.)
    """

    def __init__(self, knots: Knots, hidden: int = 48, layers: int = 2, variant: Variant = "rapp") -> None:
        super().__init__()
        self.shape = knots.shape
        self.variant = variant
        self.embed = nn.Linear(WIDTH, hidden)
        self.blocks = nn.ModuleList(Block(hidden) for _ in range(0 if variant.startswith("no-") else layers))
        batch = torch.tensor(knots.batch, dtype=torch.float32)
        sm = torch.tensor(knots.sm_pct / 100, dtype=torch.float32)
        if variant == "mlp-head":
            b, s, q = knots.shape
            self.head = nn.Sequential(
                nn.Linear(2 * hidden + 4, 128),
                nn.SiLU(),
                nn.Linear(128, 128),
                nn.SiLU(),
                nn.Linear(128, b * s + q),
            )
        else:
            self.device_law = OperatorLaw(hidden, batch, sm)
            self.launch = nn.Sequential(nn.Linear(hidden, 32), nn.SiLU(), small_linear(32, 1))
            self.host_curve = HostCurve(knots.shape[2])

    def forward(
        self, operators: Tensor, costs: Tensor, edges: Tensor, graph: Tensor, graphs: int
    ) -> tuple[Tensor, Tensor]:
        x = F.silu(self.embed(operators))
        for block in self.blocks:
            x = block(x, edges)
        if self.variant == "mlp-head":
            return self._plain(x, costs, graph, graphs)
        device = _sum(self.device_law(x, costs).flatten(1), graph, graphs)
        launch_ms = _sum(F.softplus(self.launch(x) - 3), graph, graphs)[:, 0]
        log_device = torch.log(device).view(graphs, *self.shape[:2])
        return log_device, self.host_curve(launch_ms)

    def _plain(self, x: Tensor, costs: Tensor, graph: Tensor, graphs: int) -> tuple[Tensor, Tensor]:
        """The ablation: mean and sum of embeddings and costs, then an MLP for all knots at once."""
        count = _sum(torch.ones_like(x[:, :1]), graph, graphs)
        total = _sum(x, graph, graphs)
        seen = torch.cat(
            [total / count, torch.log1p(total.abs()), torch.log1p(_sum(costs, graph, graphs)) / 10], dim=1
        )
        b, s, _ = self.shape
        out = self.head(seen)
        return out[:, : b * s].view(graphs, b, s), out[:, b * s :]


def _sum(values: Tensor, graph: Tensor, graphs: int) -> Tensor:
    """Sum of rows by graph: (V, D) -> (G, D)."""
    return torch.zeros(graphs, values.shape[1], dtype=values.dtype, device=values.device).index_add(
        0, graph, values
    )
