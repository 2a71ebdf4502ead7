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

    It computes in float64, though it takes and gives float32: rounded once at the end, an answer neither
    depends on how many others are asked for with it, nor grows with the quota by a last bit.

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
            self.register_buffer(name, torch.tensor(getattr(knots, name), dtype=torch.float64).log())

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
        batch, sm_pct, quota_pct = batch.double(), sm_pct.double(), quota_pct.double()
        low_b, high_b, at_b, over_b = _place(self.batch, batch.log())
        low_s, high_s, at_s, over_s = _place(self.sm_pct, sm_pct.log())
        low_q, high_q, at_q, over_q = _place(self.quota_pct, quota_pct.log())

        # One row for each pair of batch and SM knots: D, H, then latency and deviation over the quota.
        tables = torch.cat([log_device[..., None], log_host[..., None], log_latency, deviation], dim=2)
        rows = tables.double().flatten(0, 1)
        width, quotas = self.sm_pct.shape[0], self.quota_pct.shape[0]
        sides = [
            _between(
                torch.index_select(rows, 0, index * width + low_s),
                torch.index_select(rows, 0, index * width + high_s),
                at_s[:, None],
            )
            for index in (low_b, high_b)
        ]
        row = _between(sides[0], sides[1], at_b[:, None])
        device, host = row[:, 0] + over_b - over_s, row[:, 1]
        columns = torch.stack([low_q, high_q, low_q + quotas, high_q + quotas], dim=1) + 2
        ends = torch.gather(row, 1, columns)
        gated = _between(ends[:, 0], ends[:, 1], at_q)
        # Beyond the knots: a gate's latency grows with 1 / quota, and none is below its device time.
        gated = torch.maximum(gated - over_q, device - BELOW * (over_b - over_s <= 0))

        pace = _soft_maximum(device, host)
        time = device.exp()
        owed = torch.maximum(time * 100 / quota_pct - credit_ms, 1e-3 * time)
        limited = torch.maximum(pace, owed.log())

        limits_device = gpu_time > 0.5
        log_mean = torch.where(limits_device, limited, gated)
        spread = torch.where(limits_device, row[:, -1], _between(ends[:, 2], ends[:, 3], at_q))
        half = interval_factor * spread
        return (
            log_mean.exp().float(),
            (log_mean - half).exp().float(),
            (log_mean + half).exp().float(),
            time.float(),
            host.exp().float(),
        )


def _place(axis: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where values (N,) lie on the ascending knots `axis` (K,), each (N,).

    Returns:
        The knots below and above, the share of the way between them, and the distance beyond the last knot.
    """
    inside = torch.minimum(torch.maximum(value, axis[:1]), axis[-1:])
    low = (inside[:, None] >= axis[None, 1:-1]).to(torch.int64).sum(dim=1)
    high = torch.clamp(low + 1, max=axis.shape[0] - 1)
    start, end = torch.index_select(axis, 0, low), torch.index_select(axis, 0, high)
    share = (inside - start) / torch.clamp(end - start, min=1e-9)
    return low, high, share, value - inside


def _between(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Linear interpolation that is exact where both ends are equal."""
    return start + share * (end - start)


def _soft_maximum(a: Tensor, b: Tensor) -> Tensor:
    """p-norm soft maximum of two logarithms, written so that no exponent overflows."""
    top, low = torch.maximum(a, b), torch.minimum(a, b)
    return top + torch.log1p(torch.exp(SHARPNESS * (low - top))) / SHARPNESS
