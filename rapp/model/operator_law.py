"""Device time of one operator over batch and SM partition.

    t(b, s) = exp(scale) * (a + w * b / share(b, s))
    share(b, s) = softmin(s, p * b, c)

A roofline with three ceilings: the partition `s` itself, the operator's own parallelism `p * b` (a
small operator cannot fill many multiprocessors), and a ceiling `c` where more multiprocessors stop
helping (memory bandwidth saturates before they do). `w` starts from FLOPs / peak + bytes / bandwidth.
The device time of a network is the sum over its operators: one stream runs them one after another.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# NVIDIA V100 SXM2 data sheet: 15.7 TFLOP/s fp32, 900 GB/s HBM2; 80 multiprocessors x 2,048 threads.
# They fix where learning starts and the ratio of compute to memory, not the answer: `scale` and the
# learned corrections move every device to its own.
FLOPS_PER_MS = 15.7e9
BYTES_PER_MS = 900e6
THREADS = 80 * 2048
# A kernel of no work still takes a few microseconds on the device.
KERNEL_MS = 0.008


def small_linear(inputs: int, outputs: int) -> nn.Linear:
    """A last layer that starts near zero, so that learning starts from the law's own constants."""
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.mul_(0.1)
        layer.bias.zero_()
    return layer


class OperatorLaw(nn.Module):
    """Reads a, w, p, c of each operator from its embedding.

    Shapes:
        hidden (V, H), costs (V, 4) -> device time (V, B, S), ms, on the given knots.
    """

    batch: Tensor
    sm: Tensor

    def __init__(self, hidden: int, batch: Tensor, sm: Tensor) -> None:
        super().__init__()
        self.read = nn.Sequential(nn.Linear(hidden + 4, hidden), nn.SiLU(), small_linear(hidden, 4))
        self.offset = nn.Parameter(torch.zeros(4))
        self.scale = nn.Parameter(torch.zeros(()))
        self.register_buffer("batch", batch.float())
        self.register_buffer("sm", sm.float())

    def forward(self, hidden: Tensor, costs: Tensor) -> Tensor:
        flops, moved, weights, elements = costs.unbind(dim=1)
        # In microseconds plus a hundredth: constants much smaller are lost in the export.
        compute, memory = 1e3 * flops / FLOPS_PER_MS, 1e3 * moved / BYTES_PER_MS
        load = weights / BYTES_PER_MS
        log_work = torch.log(compute + memory + 0.01) - math.log(1e3)
        # One sample's share of the device, four elements a thread.
        log_parallel = torch.log((elements + 1) / (THREADS * 4))
        balance = torch.log(compute + 0.01) - torch.log(memory + 0.01)
        log_load = torch.log(1e3 * load + 0.01)
        seen = torch.stack([log_work, log_parallel, balance, log_load], dim=1) / 4
        work, parallel, ceiling, fixed = (self.read(torch.cat([hidden, seen], dim=1)) + self.offset).unbind(
            dim=1
        )
        a = F.softplus(fixed - 1) * KERNEL_MS + load
        # softmin of order 4, written with its inverses: two square roots instead of a power.
        inverse_p = torch.exp((-(log_parallel + 2 + parallel)).clamp(max=9.0))
        inverse_c = 1 / torch.sigmoid(ceiling + 2)
        limits = (
            (1 / self.sm)[None, None] ** 4
            + (inverse_p[:, None] / self.batch[None])[:, :, None] ** 4
            + (inverse_c[:, None, None]) ** 4
        )
        inverse_share = torch.sqrt(torch.sqrt(limits))
        time = (
            a[:, None, None]
            + torch.exp(log_work + work)[:, None, None] * self.batch[None, :, None] * inverse_share
        )
        return time * torch.exp(self.scale)
