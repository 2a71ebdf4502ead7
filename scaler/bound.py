"""A fluid lower bound of cost: no instance idles, no request waits, every batch is the cheapest.

A batch of n requests at an SM partition s uses the device for D(s, n). A token bucket grants device time at
the rate of the quota, and an instance is charged for its quota, so that

    GPU-seconds of an instance = s x quota x time >= s x device time that it used

and a request costs at least

    c = min s x D(s, n) / n    over s, n with T(s, n) <= objective, n <= the largest batch,

T(s, n) the execution of the batch without a quota: a request whose batch runs for longer is late, however
little it waited. A quota q <= D / T attains c where batches are always full and follow each other. The bound
of a load is its number of requests times c. It says nothing of waiting, of cold starts or of the minimum of
instances, so that at a low rate it cannot be reached: see `tail_gpu_share`.

What the bound leaves open: execution times vary, and a policy may be lucky by as much on average (a replay
without noise never is below); and a policy may turn away the share of the requests that the objective's
quantile allows, and be below by that share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rapp.errors import InfeasibleError
from rapp.types import QuotaKind
from scaler.arrivals import RateSteps
from scaler.capacity.plans import plan_table
from scaler.errors import QuotaSemanticsError
from scaler.sources.service_times import ServiceTimes

SM_PCT = np.arange(1.0, 101.0)
"""SM partitions that are looked at, %, beside those of the times: MPS takes whole percents."""


@dataclass(frozen=True, slots=True)
class CheapestRequest:
    """The cheapest way to execute a request within an objective.

    Args:
        gpu_s: GPU-seconds of one request. sm_pct, batch: where. execution_ms: of the batch, ms.
    """

    gpu_s: float
    sm_pct: float
    batch: int
    execution_ms: float


def cheapest_request(times: ServiceTimes, slo_ms: float, max_batch: int) -> CheapestRequest:
    """The fluid bound of one request.

    Args:
        times: the truth, mean times. slo_ms: objective for execution alone, ms. max_batch: largest batch.

    Raises:
        QuotaSemanticsError: quotas of the times gate launches, and say nothing of device time.
        InfeasibleError: no batch is executed within the objective.
    """
    if times.quota_kind != QuotaKind.GPU_TIME:
        raise QuotaSemanticsError(
            f"{times.source}: its quota gates launches and does not limit device time, so that no bound of"
            " GPU-seconds follows from it: open it without --quota-semantics launch_gate"
        )
    sm_pct = np.union1d(SM_PCT, times.sm_pct)[:, None]
    batch = np.arange(1, min(max_batch, int(times.batch[-1])) + 1)
    device_ms, _ = times.device_and_host_ms(sm_pct, batch)
    execution_ms = times.execution_ms(sm_pct, batch)
    cost = np.where(execution_ms <= slo_ms, sm_pct / 100 * device_ms / batch / 1e3, np.inf)
    s, b = np.unravel_index(int(np.argmin(cost)), cost.shape)
    if not np.isfinite(cost[s, b]):
        raise InfeasibleError(
            f"{times.network}: no batch is executed within {slo_ms:g} ms, the fastest takes"
            f" {execution_ms.min():.2f} ms ({times.source}): give a longer objective"
        )
    return CheapestRequest(float(cost[s, b]), float(sm_pct[s, 0]), int(batch[b]), float(execution_ms[s, b]))


def fluid_gpu_seconds(
    times: ServiceTimes, slo_ms: float, max_batch: int, requests: float, served_share: float = 1.0
) -> float:
    """The fluid bound of a load, GPU-seconds.

    Args:
        requests: how many arrive. served_share: of them has to be served within the objective; 1 is the
            bound as it is quoted, the objective's quantile is what a policy can be held to strictly.

    Raises:
        QuotaSemanticsError, InfeasibleError: as `cheapest_request`.
    """
    return requests * served_share * cheapest_request(times, slo_ms, max_batch).gpu_s


def tail_gpu_share(
    times: ServiceTimes, slo_ms: float, quantile: float, max_batch: int, load: RateSteps
) -> float | None:
    """What a load costs on average if instances may change at once and for nothing: GPU-seconds a second.

    At each moment the cheapest like instances whose quantile of latency meets the objective under Poisson
    arrivals at that rate (`scaler.capacity`). No bound, but near what can be had where requests wait: the
    part of the distance to the fluid bound that is owed to the objective's tail.

    Returns:
        None: at some rate no instances meet the objective.
    """
    table = plan_table(times, slo_ms, quantile, max_batch)
    rates, where = np.unique(load.rps, return_inverse=True)
    plans = [table.cheapest(float(rate)) if rate > 0 else None for rate in rates]
    if any(plan is None and rate > 0 for plan, rate in zip(plans, rates, strict=True)):
        return None
    share = np.array([0.0 if plan is None else plan.gpu_share for plan in plans])
    length = np.diff(load.edges_s)
    return float(share[where] @ length / length.sum())
