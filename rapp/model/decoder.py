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
        low_batch, to_batch, over_batch = _place(self.batch, batch.log())
        low_sm, to_sm, over_sm = _place(self.sm_pct, sm_pct.log())
        low_quota, to_quota, over_quota = _place(self.quota_pct, quota_pct.log())
        batches, partitions, quotas = log_latency.shape
        rows = (
            log_latency.view(-1, quotas),
            deviation.view(-1, quotas),
            log_device.view(-1, 1),
            log_host.view(-1, 1),
        )
        table = torch.cat(rows, dim=1)

        def read(b: Tensor, s: Tensor) -> Tensor:
            return table[b.clamp(max=batches - 1) * partitions + s.clamp(max=partitions - 1)]

        # The four knots around each configuration: gathering them is faster than a product with weights.
        to_b, to_s = to_batch[:, None], to_sm[:, None]
        below = (1 - to_s) * read(low_batch, low_sm) + to_s * read(low_batch, low_sm + 1)
        above = (1 - to_s) * read(low_batch + 1, low_sm) + to_s * read(low_batch + 1, low_sm + 1)
        values = (1 - to_b) * below + to_b * above

        def at_quota(curve: Tensor) -> Tensor:
            here = curve.gather(1, low_quota[:, None])[:, 0]
            after = curve.gather(1, (low_quota + 1).clamp(max=quotas - 1)[:, None])[:, 0]
            return (1 - to_quota) * here + to_quota * after

        device = values[:, 2 * quotas] + over_batch - over_sm
        host = values[:, 2 * quotas + 1]
        gated, gated_spread = at_quota(values[:, :quotas]), at_quota(values[:, quotas : 2 * quotas])
        spread = values[:, 2 * quotas - 1]
        # Beyond the knots: a gate's latency grows with 1 / quota, and none is below its device time.
        gated = torch.maximum(gated - over_quota, device - BELOW * (over_batch - over_sm <= 0))

        pace = _soft_maximum(device, host)
        time = device.exp()
        owed = torch.maximum(time * 100 / quota_pct - credit_ms, 1e-3 * time)
        limited = _soft_maximum(pace, owed.log())

        log_mean = torch.where(gpu_time > 0.5, limited, gated)
        half = interval_factor * torch.where(gpu_time > 0.5, spread, gated_spread)
        return log_mean.exp(), (log_mean - half).exp(), (log_mean + half).exp(), time, host.exp()


def _place(axis: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where values (N,) stand on the ascending knots (K,): the knot below, the share of the way to the next
    in [0, 1], and how far beyond the knots; each (N,)."""
    inside = torch.minimum(torch.maximum(value, axis[:1]), axis[-1:])
    # The knots passed, without the last: there the way to it is gone fully instead.
    low = (inside[:, None] >= axis[None, 1:-1]).sum(dim=1)
    if axis.shape[0] == 1:
        return low, torch.zeros_like(value), value - inside
    start = axis[low]
    return low, ((inside - start) / (axis[low + 1] - start)).clamp(0.0, 1.0), value - inside


def _soft_maximum(a: Tensor, b: Tensor) -> Tensor:
    """p-norm soft maximum of two logarithms, written so that no exponent overflows."""
    top, low = torch.maximum(a, b), torch.minimum(a, b)
    return top + torch.log1p(torch.exp(SHARPNESS * (low - top))) / SHARPNESS
