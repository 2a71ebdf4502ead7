"""Capacity: the rate at which requests are answered within an objective, by instances under a time quota.

k instances take batches of at most b from one queue as soon as they are free; requests arrive as a Poisson
process. A batch of n needs pace T[n], and device time D[n] from a token bucket that is filled at the rate q
and holds one window W (`scaler.replay.events`):

    release = max(begin + T[n], time at which the debt is repaid)

Unrolled for one instance and b = 1 this is the later of two queues under the same arrivals,

    pace      service T,      latency = wait + T
    tokens    service D / q,  latency = wait + D / q - W        a bucket is a server that may be W ahead

and with k instances that are used in turn two queues of k servers. So the rate sought is where the tails of
both, added up, leave `quantile`; each tail comes from the table of `scaler.capacity.queueing`.

Batches: pace is a bulk queue. Tokens are used at D[n] / n a request at the mean batch n of that queue; the
request's own batch is a full one, for when tokens run short requests queue and batches fill. That same effect
lets a bucket that is always empty work: batches fill until the tokens suffice. Then it is a bulk queue with
the service max(T[b], D[b] / q) and no credit, and capacity is the larger of the two.

The noise of execution times is in the table. Predicted against simulated capacity:
`scripts/check_capacity.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rapp.types import FloatArray
from scaler.capacity.queueing import queue

WINDOW_MS = 40.0
"""Window of the time quota: the profiler's default."""

ROUNDS = 4
"""Steps from the mean batch to the rate and back: the batch rises from 1, the last change nothing."""


def capacity_rps(
    device_ms: ArrayLike,
    pace_ms: ArrayLike,
    quota: ArrayLike,
    instances: int,
    slo_ms: float,
    quantile: float,
    *,
    window_ms: float = WINDOW_MS,
) -> FloatArray:
    """The rate within the objective of `instances` like ones together, requests a second.

    Args:
        device_ms: (..., b) mean device time D of batches of 1 to b, ms; b the largest that is taken.
        pace_ms: (..., b) mean pace T of the same, ms.
        quota: (...) share of the window, in (0, 1].
        instances: how many, >= 1.
        slo_ms: objective for waiting and execution, ms; a batching delay is to be taken off before.
        quantile: share of the requests that have to meet it, in [0.5, 1).

    Returns:
        (...) 0 where even an idle instance is too slow.
    """
    device = np.asarray(device_ms, np.float64)
    # Measured paces may fall with the batch by noise; the queue's do not.
    pace = np.maximum.accumulate(np.asarray(pace_ms, np.float64), axis=-1)
    share = np.asarray(quota, np.float64)
    batch = device.shape[-1]
    # Half of the tail as well: from both follows how steep it is.
    (pace_rps, token_rps), (pace_half, token_half) = (
        (
            _bulk(pace, instances, slo_ms, level),
            _tokens(device, pace, share, instances, slo_ms + window_ms, level),
        )
        for level in (quantile, (1.0 + quantile) / 2.0)
    )
    with_credit = _sum_of_tails(pace_rps, pace_half, token_rps, token_half)
    if batch == 1:
        return with_credit
    without_credit = _bulk(np.maximum(pace, device / share[..., None]), instances, slo_ms, quantile)
    return np.maximum(with_credit, without_credit)


def _bulk(service_ms: FloatArray, instances: int, slo_ms: float, quantile: float) -> FloatArray:
    """Rate, rps, within the objective if n requests together take `service_ms` (..., b)."""
    batch, full = service_ms.shape[-1], service_ms[..., -1]
    load = queue(instances, batch, quantile).load_within(slo_ms / full, service_ms[..., 0] / full)
    return np.asarray(load * (1e3 * instances * batch) / full)


def _tokens(
    device_ms: FloatArray,
    pace_ms: FloatArray,
    quota: FloatArray,
    instances: int,
    slack_ms: float,
    quantile: float,
) -> FloatArray:
    """Rate, rps, for which tokens suffice if a request may wait `slack_ms` for them, its batch included."""
    batch, full = device_ms.shape[-1], pace_ms[..., -1]
    single = queue(instances, 1, quantile)
    in_batches = queue(instances, batch, quantile)
    wait_ms = slack_ms - device_ms[..., -1] / quota
    mean_batch = np.ones(np.broadcast_shapes(quota.shape, full.shape))
    rate = np.zeros_like(mean_batch)
    # More load makes larger batches, which need fewer tokens a request: from below, each step is safe.
    for _ in range(1 if batch == 1 else ROUNDS):
        service_ms = at_batch(device_ms, mean_batch) / mean_batch / quota
        rate = 1e3 * instances * single.load_within(1.0 + wait_ms / service_ms) / service_ms
        if batch > 1:
            load = rate * full / (1e3 * instances * batch)
            mean_batch = np.minimum(in_batches.batch_at(load, pace_ms[..., 0] / full), batch)
    return rate


def at_batch(times_ms: FloatArray, batch: FloatArray) -> FloatArray:
    """Times (..., b) at batches (...) that need not be whole, straight in between, (...)."""
    last = times_ms.shape[-1]
    low = np.clip(np.floor(batch).astype(np.intp), 1, max(last - 1, 1))
    rows = np.broadcast_to(times_ms, (*batch.shape, last))
    first = np.take_along_axis(rows, low[..., None] - 1, axis=-1)[..., 0]
    after = np.take_along_axis(rows, np.minimum(low, last - 1)[..., None], axis=-1)[..., 0]
    return np.asarray(first + (batch - low) * (after - first))


def _sum_of_tails(a: FloatArray, a_half: FloatArray, b: FloatArray, b_half: FloatArray) -> FloatArray:
    """The rate at which two tails sum to 1; each is 1 at a, b and 1/2 at a_half, b_half, log-linear between.

    The two events lie under the same arrivals, so that their sum is an upper bound of the tail.
    """
    width_a, width_b = np.maximum(a - a_half, 1e-9), np.maximum(b - b_half, 1e-9)
    low, high = np.minimum(a_half, b_half), np.minimum(a, b)
    for _ in range(12):
        middle = 0.5 * (low + high)
        within = np.exp2((middle - a) / width_a) + np.exp2((middle - b) / width_b) <= 1.0
        low, high = np.where(within, middle, low), np.where(within, high, middle)
    return np.asarray(low)
