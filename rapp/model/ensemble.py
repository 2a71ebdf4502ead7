"""Several encoders as one: each trained without a part of the networks, their answers averaged in the log."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rapp.model.encoder import Encoder


class EncoderEnsemble(nn.Module):
    """The exported encoder, for one graph at a time.

    Shapes:
        operators (V, WIDTH), costs (V, 4), edges (2, E) -> log_device (B, S), log_host (Q,), log ms.
    """

    def __init__(self, members: Sequence[Encoder]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, operators: Tensor, costs: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        graph = torch.zeros_like(operators[:, 0], dtype=torch.int64)
        answers = [member(operators, costs, edges, graph, 1) for member in self.members]
        log_device = torch.stack([device[0] for device, _ in answers]).mean(dim=0)
        log_host = torch.stack([host[0] for _, host in answers]).mean(dim=0)
        return log_device, log_host
