"""The cheapest instances for a rate: SM partition, quota, batch and number chosen together.

    table = plan_table(times, slo_ms=41, quantile=0.99, max_batch=8)
    table.cheapest(demand_rps=200)          # 4 instances of SM 10 %, quota 68 %, batch 2
    table.resized(4, sm_pct=10, demand_rps=120)      # what the same four need now

Cost is GPU-seconds a second, instances x SM share x quota. Rates of all configurations of k instances are
one array, made when k is first asked for at the quotas `KNOTS_PCT` and straight in between, but 0 below the
first that serves anything; plans are kept by demand, on a geometric grid.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rapp.inference.law import soft_maximum
from rapp.types import FloatArray, ResourceConfig
from scaler.capacity.rate import WINDOW_MS, table_rps
from scaler.sources.base import BATCHES
from scaler.sources.service_times import ServiceTimes

QUOTAS_PCT = np.arange(1.0, 101.0)
"""Quotas that are planned with: steps of 1 %."""

KNOTS_PCT = np.concatenate([np.arange(1, 10), np.arange(10, 30, 2), np.arange(30, 100, 3), [100.0]])
"""Quotas that rates are worked out at."""

NUMBERS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64)
"""Numbers of instances that plans have; then twice the last, and so on up to `MOST_INSTANCES`."""

MOST_INSTANCES = 1024
"""No plan has more."""

DEMAND_STEP = 1.02
"""Demands are rounded up to powers of it: what that costs is below a step of the quota."""

TIME_STEP = 1.02
"""Corrected execution times are rounded up to powers of it, so that small corrections keep their table."""

PER_INSTANCE = 0.005
"""What an instance more may save at least, as a share of the cost: each takes memory and a start."""

PATIENCE = 2
"""Numbers of instances that may be dearer than the best before the search ends: costs fall, then rise."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Like instances for a demand.

    Args:
        number: how many. config: of each.
        capacity_rps: rate within the objective of all together.
    """

    number: int
    config: ResourceConfig
    capacity_rps: float

    @property
    def gpu_share(self) -> float:
        """GPU-seconds a second."""
        return self.number * self.config.gpu_share


class PlanTable:
    """Plans of one function; immutable but for what it has worked out already.

    Args:
        sm_pct: (S,) SM partitions, %.
        batches: (B,) batches to choose from, ascending.
        device_ms, pace_ms: (S, N) for batches 1 to N, N the last of `batches`.
        slo_ms, quantile, window_ms: as `scaler.capacity.rate.capacity_rps`.

    Attributes:
        sm_axis: `sm_pct` as a tuple, which is searched faster.
        unhindered_rps: what one instance could do if requests never waited, but for batches that take longer
            than the objective, requests a second.
    """

    def __init__(
        self,
        sm_pct: FloatArray,
        batches: tuple[int, ...],
        device_ms: FloatArray,
        pace_ms: FloatArray,
        slo_ms: float,
        quantile: float,
        window_ms: float = WINDOW_MS,
    ) -> None:
        self.sm_pct, self.batches = sm_pct, batches
        self.sm_axis: tuple[float, ...] = tuple(sm_pct.tolist())
        self._device_ms, self._pace_ms = device_ms, pace_ms
        self._slo_ms, self._quantile, self._window_ms = slo_ms, quantile, window_ms
        each = 1e3 * np.arange(1, pace_ms.shape[-1] + 1) / pace_ms
        by_sm = np.where(pace_ms <= slo_ms, each, 0.0).max(axis=1)
        self._unhindered_rps: list[float] = np.maximum.accumulate(by_sm).tolist()
        self.unhindered_rps = self._unhindered_rps[-1]
        self._rates: dict[int, NDArray[np.float32]] = {}
        self._plans: dict[tuple[int, float, float], Plan | None] = {}

    def rates_rps(self, number: int) -> NDArray[np.float32]:
        """(S, B, Q) rate within the objective of `number` instances of each configuration.

        More than the largest of `NUMBERS` count as equal parts with a queue each: a lower bound.
        """
        if number not in self._rates:
            parts = math.ceil(number / NUMBERS[-1])
            at_knots = parts * table_rps(
                self._device_ms, self._pace_ms, KNOTS_PCT / 100, self.batches, number // parts,
                self._slo_ms, self._quantile, window_ms=self._window_ms,
            )  # fmt: skip
            at_knots = np.maximum.accumulate(at_knots.swapaxes(0, 1), axis=-1)
            low = np.minimum(np.searchsorted(KNOTS_PCT, QUOTAS_PCT, side="right") - 1, len(KNOTS_PCT) - 2)
            share = (QUOTAS_PCT - KNOTS_PCT[low]) / (KNOTS_PCT[low + 1] - KNOTS_PCT[low])
            rates = at_knots[..., low] * (1.0 - share) + at_knots[..., low + 1] * share
            # Where rates set in they do so within a step: what is below the first one would be made up.
            rates *= (at_knots[..., low] > 0) | (share == 1.0)
            self._rates[number] = rates.astype(np.float32)
        return self._rates[number]

    def unhindered_within(self, sm_pct: float) -> float:
        """`unhindered_rps` of SM partitions up to one, requests a second."""
        at = bisect_right(self.sm_axis, sm_pct + 1e-9)
        return self._unhindered_rps[at - 1] if at else 0.0

    def rate_rps(self, number: int, config: ResourceConfig) -> float:
        """Rate within the objective of `number` instances of a configuration.

        One that is not on the axes counts as the next smaller one.
        """
        s = bisect_right(self.sm_axis, config.sm_pct + 1e-9) - 1
        b = bisect_right(self.batches, config.batch) - 1
        q = int(config.quota_pct + 1e-9) - 1
        if number == 0 or s < 0 or q < 0:
            return 0.0
        return float(self.rates_rps(number)[s, b, q])

    def resized(self, number: int, sm_pct: float, demand_rps: float, most_quota_pct: float = 100.0) -> Plan:
        """The least quota, with its batch, at which `number` instances of an SM partition serve a demand.

        Where none within `most_quota_pct` is enough, the one that serves most; the whole of it, where nothing
        is served within the objective.
        """
        s = max(int(np.searchsorted(self.sm_pct, sm_pct + 1e-9)) - 1, 0)
        most = min(max(int(most_quota_pct + 1e-9), 1), len(QUOTAS_PCT))
        rates = self.rates_rps(number)[s, :, :most]
        enough = rates >= demand_rps
        least = np.where(enough.any(axis=1), enough.argmax(axis=1), most)
        q = int(least.min())
        if q == most:
            q = int(np.argmax(rates.max(axis=0))) if rates.any() else most - 1
        # Of batches that need the same quota the one that serves most.
        b = (
            int(np.argmax(np.where(least <= q, rates[:, q], -1.0)))
            if enough.any()
            else int(np.argmax(rates[:, q]))
        )
        config = ResourceConfig(float(self.sm_pct[s]), float(QUOTAS_PCT[q]), self.batches[b])
        return Plan(number, config, float(rates[b, q]))

    def cheapest(self, demand_rps: float, scarcity: float = 0.0, most_sm_pct: float = 100.0) -> Plan | None:
        """The instances that serve a demand at the least cost; None: no configuration meets the objective.

        Args:
            demand_rps: rate to be served within the objective.
            scarcity: price of SMs that are set aside but without quota, against those with it: 0 where SMs
                are plentiful, 1 where an instance's SM partition counts whole whatever its quota.
            most_sm_pct: the largest SM partition to choose, %.
        """
        step = math.ceil(math.log(max(demand_rps, 1e-3)) / math.log(DEMAND_STEP) - 1e-9)
        key = step, scarcity, most_sm_pct
        if key not in self._plans:
            self._plans[key] = self._cheapest(DEMAND_STEP**step, scarcity, most_sm_pct)
        return self._plans[key]

    def _cheapest(self, demand_rps: float, scarcity: float, most_sm_pct: float) -> Plan | None:
        quota, sm = QUOTAS_PCT / 100, self.sm_pct[:, None, None] / 100
        price = sm * (quota + scarcity * (1.0 - quota))
        allowed = (self.sm_pct <= most_sm_pct + 1e-9)[:, None, None]
        if float(self._pace_ms[allowed.ravel(), 0].min(initial=math.inf)) > self._slo_ms:
            return None
        best: tuple[float, Plan] | None = None
        worse = 0
        for number in _numbers():
            if number * self.unhindered_rps < demand_rps:
                continue
            rates = self.rates_rps(number)
            cost = np.where((rates >= demand_rps) & allowed, number * price, np.inf)
            at = int(np.argmin(cost))
            weighed = float(cost.flat[at]) * (1.0 + PER_INSTANCE * number)
            if best is None or weighed < best[0]:
                if math.isfinite(weighed):
                    s, b, q = np.unravel_index(at, rates.shape)
                    config = ResourceConfig(float(self.sm_pct[s]), float(QUOTAS_PCT[q]), self.batches[b])
                    best, worse = (weighed, Plan(number, config, float(rates[s, b, q]))), 0
            else:
                worse += 1
                if worse == PATIENCE:
                    break
        return None if best is None else best[1]


def _numbers() -> Iterator[int]:
    yield from NUMBERS
    number = NUMBERS[-1]
    while number < MOST_INSTANCES:
        number *= 2
        yield number


def plan_table(times: ServiceTimes, slo_ms: float, quantile: float, max_batch: int) -> PlanTable:
    """The plans of a function; the same table for the same arguments, and for times that differ by under 2 %.

    Args:
        times: execution times at the risk planned for. slo_ms: objective less the batching delay.
        quantile: share of the requests that have to meet it. max_batch: largest batch to choose.
    """
    batches = tuple(b for b in sorted({*BATCHES, max_batch}) if b <= min(max_batch, times.batch[-1]))
    each = np.arange(1, batches[-1] + 1)
    device_ms, host_ms = times.device_and_host_ms(times.sm_pct[:, None], each[None])
    # Shape and scale apart: what is observed corrects the scale, tick by tick.
    scale = math.ceil(math.log(float(device_ms[0, 0])) / math.log(TIME_STEP) - 1e-6)
    shape = np.round(np.log(np.stack([device_ms, host_ms]) / device_ms[0, 0]), 3)
    return _plan_table(times.sm_pct.tobytes(), batches, scale, shape.tobytes(), shape.shape, slo_ms, quantile)


# A table of 20 SM partitions and 6 batches takes 50 kB for each number of instances asked for.
@lru_cache(maxsize=400)
def _plan_table(
    sm_pct: bytes, batches: tuple[int, ...], scale: int, shape: bytes, size: tuple[int, ...], slo_ms: float,
    quantile: float,
) -> PlanTable:  # fmt: skip
    device, host = np.frombuffer(shape).reshape(size) + scale * math.log(TIME_STEP)
    pace_ms = np.exp(soft_maximum(device, host))
    return PlanTable(np.frombuffer(sm_pct), batches, np.exp(device), pace_ms, slo_ms, quantile)
