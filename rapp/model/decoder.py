"""The exported decoder: tables on the knots and N configurations in, latency and interval out.

Between knots the log of a time is linear in log batch, log SM and log quota; beyond the last knot it
goes on along the law (device time in proportion to batch / SM, a gate's latency to 1 / quota).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rapp.inference.law import SHARPNESS
from rapp.knots import Knots

# Switches a term of a maximum off: e^-99 ms is no time at all.
BELOW = 99.0


class Decoder(nn.Module):
    """Reads tables at N configurations.

    Shapes:
        log_latency (B, S, Q), log_device (B, S), log_host (B, S), deviation (B, S, Q);
        batch, sm_pct, quota_pct, gpu_time (N,); credit_ms, interval_factor ()
        -> mean_ms, low_ms, high_ms, device_ms, host_ms, each (N,).
    """

    batch: Tensor
    sm_pct: Tensor
    quota_pct: Tensor

    def __init__(self, knots: Knots) -> None:
        super().__init__()
        for name in ("batch", "sm_pct", "quota_pct"):
            axis = torch.tensor(getattr(knots, name), dtype=torch.float64).log().float()
            self.register_buffer(name, axis)

    def forward(
        self,
        log_latency: Tensor,
        log_device: Tensor,
        log_host: Tensor,
        deviation: Tensor,
        batch: Tensor,
        sm_pct: Tensor,
        quota_pct: Tensor,
        gpu_time: Tensor,
        credit_ms: Tensor,
        interval_factor: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        at_batch, over_batch = _weights(self.batch, batch.log())
        at_sm, over_sm = _weights(self.sm_pct, sm_pct.log())
        at_quota, over_quota = _weights(self.quota_pct, quota_pct.log())
        at = (at_batch[:, :, None] * at_sm[:, None, :]).flatten(1)
        quotas = log_latency.shape[2]

        device = at @ log_device.flatten() + over_batch - over_sm
        host = at @ log_host.flatten()
        gated = ((at @ log_latency.view(-1, quotas)) * at_quota).sum(dim=1)
        # Beyond the knots: a gate's latency grows with 1 / quota, and none is below its device time.
        gated = torch.maximum(gated - over_quota, device - BELOW * (over_batch - over_sm <= 0))
        spread = at @ deviation.view(-1, quotas)
        gated_spread = (spread * at_quota).sum(dim=1)

        pace = _soft_maximum(device, host)
        time = device.exp()
        owed = torch.maximum(time * 100 / quota_pct - credit_ms, 1e-3 * time)
        limited = _soft_maximum(pace, owed.log())

        log_mean = torch.where(gpu_time > 0.5, limited, gated)
        half = interval_factor * torch.where(gpu_time > 0.5, spread[:, -1], gated_spread)
        return log_mean.exp(), (log_mean - half).exp(), (log_mean + half).exp(), time, host.exp()


def _weights(axis: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (N, K) of linear interpolation on the ascending knots (K,), and how far beyond them (N,)."""
    inside = torch.minimum(torch.maximum(value, axis[:1]), axis[-1:])
    over = value - inside
    if axis.shape[0] == 1:
        return torch.ones_like(value)[:, None], over
    step = axis[1:] - axis[:-1]
    passed = ((inside[:, None] - axis[None, :-1]) / step).clamp(0.0, 1.0)
    ones = torch.ones_like(passed[:, :1])
    # Interval j is passed fully, partly or not: knot j holds what came in and did not move on.
    return torch.cat([ones, passed], dim=1) - torch.cat([passed, torch.zeros_like(ones)], dim=1), over


def _soft_maximum(a: Tensor, b: Tensor) -> Tensor:
    """p-norm soft maximum of two logarithms, written so that no exponent overflows."""
    top, low = torch.maximum(a, b), torch.minimum(a, b)
    return top + torch.log1p(torch.exp(SHARPNESS * (low - top))) / SHARPNESS
