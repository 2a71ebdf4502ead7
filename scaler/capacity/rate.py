"""Capacity: the rate at which requests are answered within an objective, by instances under a time quota.

k instances take batches of at most b from one queue as soon as they are free; requests arrive as a Poisson
process, and go to the instance whose tokens last longest. A batch of n needs pace T[n], and device time D[n]
from a token bucket that is filled at the rate q and holds one window W (`scaler.replay.events`):

    release = max(begin + T[n], time at which the debt is repaid)

Unrolled for b = 1 this is the later of two queues of k servers under the same arrivals,

    pace      service T,      latency = wait + T
    tokens    service D / q,  latency = wait + D / q - W        a bucket is a server that may be W ahead

with tails from the table of `scaler.capacity.queueing`. The rate sought is where both leave `quantile`.

Batches. Pace is a bulk queue. For tokens there are three ways to suffice, and the best of them counts:

    in small batches    tokens are used at D[n] / n a request, n the mean batch of the pace's queue; the
                        request's own batch is a full one
    debt is rare        single requests run into debt (wait > W, or less if a full batch would then be late)
                        with a chance p, and those in debt are late with a chance p', as in a bulk queue with
                        service max(T, D / q); p p' = 1 - quantile
    always in debt      that bulk queue alone: batches fill until the tokens suffice

Predicted against simulated capacity: `scripts/check_capacity.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rapp.types import FloatArray
from scaler.capacity.queueing import Asked, queues

WINDOW_MS = 40.0
"""Window of the time quota: the profiler's default."""

ROUNDS = 3
"""Steps from the rate to the mean batch and back: the batch rises from 1, a further one changes little."""

SHARES_OF_DEBT = (0.3, 0.6)
"""Parts of log(1 - quantile) that are left to being in debt; the rest to being late then."""

TOGETHER = 1.5
"""How tails a, b of two events under the same arrivals add up: (a^p + b^p)^(1/p). 1 if they exclude each
other, without end if they are one. Of 1 to 9 this brings predictions closest to `check_capacity`."""


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
    device, pace = np.broadcast_arrays(np.asarray(device_ms, np.float64), np.asarray(pace_ms, np.float64))
    batch = device.shape[-1]
    shape = np.broadcast_shapes(device.shape[:-1], np.shape(quota))
    device, pace = (np.broadcast_to(of, (*shape, batch)).reshape(-1, batch) for of in (device, pace))
    share = np.broadcast_to(np.asarray(quota, np.float64), shape).reshape(1, -1, 1)
    found = table_rps(device, pace, share, (batch,), instances, slo_ms, quantile, window_ms=window_ms)
    return found.reshape(shape)


def table_rps(
    device_ms: FloatArray,
    pace_ms: FloatArray,
    quota: FloatArray,
    batches: Sequence[int],
    instances: int,
    slo_ms: float,
    quantile: float,
    *,
    window_ms: float = WINDOW_MS,
) -> FloatArray:
    """The same for each of several largest batches at once, (B, M, Q).

    Args:
        device_ms, pace_ms: (M, N) for batches of 1 to N. quota: (Q,), or broadcasting to (B, M, Q).
        batches: (B,) largest batches, at most N.
    """
    # Measured paces may fall with the batch by noise; the queue's do not.
    pace = np.maximum.accumulate(pace_ms, axis=-1)
    group = _Group(device_ms, pace, quota, tuple(batches), instances, slo_ms, window_ms)
    # Half of the tail as well: from both follows how steep it is.
    levels = quantile, (1.0 + quantile) / 2.0
    pace_rps, token_rps = [group.within_pace(level) for level in levels], group.within_tokens(levels)
    return np.maximum(_together(*pace_rps, *token_rps), group.always_in_debt(quantile))


class _Bulk(NamedTuple):
    """A bulk queue and its objective: time of full batches, ms, and what is asked of the table."""

    full_ms: FloatArray
    asked: Asked

    @staticmethod
    def of(first_ms: FloatArray, full_ms: FloatArray, slo_ms: float) -> _Bulk:
        return _Bulk(full_ms, Asked.of(slo_ms / full_ms, first_ms / full_ms))


class _Group:
    """Like instances at (B, M, Q) batches, rows and quotas."""

    def __init__(
        self,
        device_ms: FloatArray,
        pace_ms: FloatArray,
        quota: FloatArray,
        batches: tuple[int, ...],
        instances: int,
        slo_ms: float,
        window_ms: float,
    ) -> None:
        self._device_ms, self._quota = device_ms, quota
        self._batches, self._instances = batches, instances
        self._slo_ms, self._window_ms = slo_ms, window_ms
        self._which = np.arange(len(batches))[:, None, None]
        self._most = np.array(batches)[:, None, None]
        self._row = np.arange(len(device_ms))[None, :, None]
        full = np.array(batches) - 1
        # (1, M, 1) of single requests and (B, M, 1) of full batches; with the quota (B, M, Q).
        self._pace_ms = pace_ms[:, 0][None, :, None], pace_ms[:, full].T[..., None]
        self._tokens_ms = device_ms[:, 0][None, :, None] / quota, device_ms[:, full].T[..., None] / quota
        first, last = (np.maximum(*of) for of in zip(self._pace_ms, self._tokens_ms, strict=True))
        # What is asked at several quantiles is looked up once.
        self._within_pace = _Bulk.of(*self._pace_ms, slo_ms)
        self._in_debt = _Bulk.of(first, last, slo_ms)
        # A full batch is late before the window is used up where its tokens take longer than the objective.
        saved_ms = window_ms - np.maximum(self._tokens_ms[1] - slo_ms, 0.0)
        self._to_debt = Asked.of(1.0 + saved_ms / self._tokens_ms[0])

    def within_pace(self, quantile: float) -> FloatArray:
        """Rate, rps, for which the pace suffices."""
        return self._bulk(self._within_pace, quantile)

    def always_in_debt(self, quantile: float) -> FloatArray:
        """Rate, rps, with buckets that are always empty."""
        return self._bulk(self._in_debt, quantile)

    def within_tokens(self, quantiles: Sequence[float]) -> list[FloatArray]:
        """Rates, rps, for which tokens suffice, for each of several quantiles, ascending."""
        single_ms, full_ms = self._pace_ms
        wait_ms = self._slo_ms + self._window_ms - self._tokens_ms[1]
        by_load = queues(self._instances, self._batches, quantiles[0])
        mean_batches = by_load.mean_batches((single_ms / full_ms)[..., 0], self._which[..., 0])
        service_ms = self._tokens_ms[0] + 0.0 * wait_ms
        found: list[FloatArray] = []
        for quantile in quantiles:
            rate = self._single(service_ms, Asked.of(1.0 + wait_ms / service_ms), quantile)
            # More load makes larger batches, which need fewer tokens a request: from below, it is safe.
            for _ in range(0 if self._batches == (1,) else 1 if found else ROUNDS):
                load = rate * full_ms / (1e3 * self._instances * self._most)
                batch = np.minimum(by_load.batch_at(load, mean_batches), self._most)
                service_ms = self._at_batch(batch) / batch / self._quota
                rate = self._single(service_ms, Asked.of(1.0 + wait_ms / service_ms), quantile)
            found.append(np.maximum(rate, self._rarely_in_debt(quantile)))
        return found

    def _rarely_in_debt(self, quantile: float) -> FloatArray:
        found = np.zeros(1)
        for share in SHARES_OF_DEBT if self._batches != (1,) else ():
            in_debt, late = (max(1.0 - (1.0 - quantile) ** of, 0.5) for of in (share, 1.0 - share))
            rare = self._single(self._tokens_ms[0], self._to_debt, in_debt)
            found = np.maximum(found, np.minimum(rare, self._bulk(self._in_debt, late)))
        # Single requests never fill: theirs is the first way alone.
        return np.where(self._most > 1, found, 0.0)

    def _bulk(self, of: _Bulk, quantile: float) -> FloatArray:
        load = queues(self._instances, self._batches, quantile).load_within(of.asked, self._which)
        return np.asarray(load * (1e3 * self._instances * self._most) / of.full_ms)

    def _single(self, service_ms: FloatArray, asked: Asked, quantile: float) -> FloatArray:
        """Rate, rps, of requests that are served one by one."""
        load = queues(self._instances, (1,), quantile).load_within(asked)
        return 1e3 * self._instances * load / service_ms

    def _at_batch(self, batch: FloatArray) -> FloatArray:
        """Device time at batches (B, M, Q) that need not be whole, straight in between, ms."""
        last = self._device_ms.shape[-1]
        low = np.minimum(batch.astype(np.intp), max(last - 1, 1))
        cell = self._row * last + low - 1
        first = self._device_ms.take(cell)
        after = self._device_ms.take(cell + (1 if last > 1 else 0))
        return np.asarray(first + (batch - low) * (after - first))


def _together(a: FloatArray, a_half: FloatArray, b: FloatArray, b_half: FloatArray) -> FloatArray:
    """The rate at which two tails come to 1: each is 1 at a, b, 1/2 at a_half, b_half, log-linear between."""
    # 32 bits: exponentials and logarithms take a quarter of the time.
    at_a, half_a, at_b, half_b = (np.asarray(of, np.float32) for of in (a, a_half, b, b_half))
    together, least = np.float32(TOGETHER), np.float32(1e-6)
    per_a, per_b = together / np.maximum(at_a - half_a, least), together / np.maximum(at_b - half_b, least)
    rate = np.minimum(at_a, at_b)
    # Newton's method on the logarithm of the sum, which is convex: it comes from the right.
    for _ in range(3):
        first, second = np.exp2((rate - at_a) * per_a), np.exp2((rate - at_b) * per_b)
        both = first + second
        rate = rate - np.log2(both) * both / (first * per_a + second * per_b)
    return np.asarray(np.maximum(rate, 0.0), np.float64)
