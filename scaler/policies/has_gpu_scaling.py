"""How HAS-GPU scales one function: quota first, then instances (`has_autoscaling.go`, commit fe7105e).

What is kept of it and what is repaired: `scaler.policies.has_gpu`.
"""

from __future__ import annotations

from rapp.types import ResourceConfig
from scaler.core.decision import Reason
from scaler.core.needs import latency_ms
from scaler.gpu import Gpu
from scaler.policies import has_gpu_rows as rows
from scaler.policies.base import Case
from scaler.policies.changes import Changes

UP_ABOVE = 0.9
"""Part of the capacity above which it scales up (ScaleUpThredshold); that to which it scales."""

DOWN_BELOW = 0.3
"""Part of the capacity below which it scales down (ScaleDownThredshold)."""

DOWN_COOLDOWN_S = 10.0
"""Least time between two scalings down, s (ScaleDownCooldownPeriod; its comment says 20)."""

QUOTA_STEP_PCT = 10.0
"""Step and least of a quota, % (DeltaIq, MinQuota)."""

OVERHEAD_MS = 70.0
"""What the capacity adds to the latency, ms (tmp_database.go; its comment says 30)."""

SPARED_ABOVE_SM_PCT = 50.0
"""SM partition above which an instance is never stopped, % (HASFuncScaleDown)."""

FIRST = ResourceConfig(30.0, 30.0, 4)
"""Configuration of a first instance, and of one on an unused GPU (GetMostEfficientConfig)."""


def capacity_rps(case: Case, config: ResourceConfig) -> float:
    """What HAS-GPU counts an instance with, requests a second."""
    took_ms = latency_ms(case.times, config, case.spec.max_batch)
    return 1e3 / (took_ms + OVERHEAD_MS) * (config.batch + 1) / 2


def total_rps(changes: Changes) -> float:
    """Capacity of a function, rps: all that it has, starting or ready."""
    return sum(capacity_rps(changes.case, config) for config in changes.live.values())


def first(case: Case) -> ResourceConfig:
    """Configuration of an instance that nothing is known for: `initial`, else HAS-GPU's default."""
    if case.spec.initial is not None:
        return case.spec.initial.config
    return ResourceConfig(FIRST.sm_pct, FIRST.quota_pct, min(FIRST.batch, case.spec.max_batch))


def scale(changes: Changes, predicted_rps: float, *, may_go_down: bool, least: int) -> bool:
    """Scale a function up or down, as HASFuncAutoScale decides; whether it was scaled down.

    Args:
        predicted_rps: rate to serve. may_go_down: the cooldown is over. least: instances that have to stay.
    """
    total = total_rps(changes)
    if predicted_rps > UP_ABOVE * total:
        _scale_out(changes, _scale_vertically(changes, predicted_rps - UP_ABOVE * total))
    elif predicted_rps < DOWN_BELOW * total and may_go_down:
        return _scale_down(changes, UP_ABOVE * total - predicted_rps, least)
    return False


def _scale_vertically(changes: Changes, missing_rps: float) -> float:
    """Raise quotas within their rows, the largest SM partitions first; what is missing then, rps."""
    for id_, config in sorted(changes.live.items(), key=lambda one: (-one[1].sm_pct, one[0])):
        if missing_rps <= 0:
            break
        if changes.pool.where(id_) is None:
            continue
        steps = int((changes.pool.room_to_grow(id_) + 1e-6) // QUOTA_STEP_PCT)
        quotas = [min(config.quota_pct + QUOTA_STEP_PCT * step, 100.0) for step in range(steps + 1)]
        now_rps = capacity_rps(changes.case, config)
        added = [_at_quota(changes, config, quota) - now_rps for quota in quotas]
        enough = next((step for step, rps in enumerate(added) if rps >= missing_rps), steps)
        # From the last step down, for the case that the machine's cores do not suffice for it.
        for step in range(enough, 0, -1):
            if changes.resize(id_, quotas[step], Reason.DEMAND_UP):
                missing_rps -= added[step]
                break
    return missing_rps


def _scale_out(changes: Changes, missing_rps: float) -> None:
    """Start instances: on used GPUs, on an unused one, and as the last resort a small one anywhere."""
    pool, network = changes.pool, changes.case.spec.network_name
    while missing_rps > 0:
        before_rps = missing_rps
        free_row_sm_pct = rows.row_sm_pct(network, missing_rps)
        gpus = rows.by_occupancy(pool)
        for gpu in rows.used(gpus, rows.MORE_BELOW):
            added_rps = _start_largest(changes, gpu, free_row_sm_pct)
            if added_rps > 0:
                missing_rps -= added_rps
                free_row_sm_pct = rows.row_sm_pct(network, missing_rps)
                if missing_rps <= 0:
                    return
        fresh = rows.unused(gpus)
        held_rps = total_rps(changes)
        if any(rows.start_on(changes, gpu, first(changes.case), Reason.DEMAND_UP) for gpu in fresh):
            missing_rps -= total_rps(changes) - held_rps
        elif not fresh:
            _start_smallest(changes)
            return
        if missing_rps == before_rps:
            return


def _start_largest(changes: Changes, gpu: Gpu, free_row_sm_pct: float) -> float:
    """Start the instance with the largest capacity that a GPU has room for; its capacity, 0 if none, rps."""
    case, batch = changes.case, _batch(changes)
    found: list[tuple[float, int, float, float]] = []
    if gpu.free_memory_mib >= case.memory_mib:
        for index, sm_pct, free_pct in rows.rows_of(gpu, free_row_sm_pct):
            for step in range(1, int((free_pct + 1e-6) // QUOTA_STEP_PCT) + 1):
                config = ResourceConfig(sm_pct, QUOTA_STEP_PCT * step, batch)
                found.append((-capacity_rps(case, config), index, config.quota_pct, sm_pct))
    for lost_rps, index, quota, sm_pct in sorted(found):
        if changes.start(ResourceConfig(sm_pct, quota, batch), Reason.DEMAND_UP, (gpu.id, index)):
            return -lost_rps
    return 0.0


def _start_smallest(changes: Changes) -> None:
    """The last resort: one instance of the least quota in the first row with any, on the least occupied GPU
    that holds it.
    """
    for gpu in rows.by_occupancy(changes.pool):
        if gpu.free_memory_mib < changes.case.memory_mib:
            continue
        for index, sm_pct, free_pct in rows.rows_of(gpu, rows.FALLBACK_SM_PCT):
            config = ResourceConfig(sm_pct, min(QUOTA_STEP_PCT, free_pct), _batch(changes))
            if changes.start(config, Reason.DEMAND_UP, (gpu.id, index)):
                return


def _scale_down(changes: Changes, spare_rps: float, least: int) -> bool:
    """Lower quotas, the smallest SM partitions first, then stop instances; whether anything was changed."""
    before = len(changes.actions)
    old = [(id_, config) for id_, config in changes.live.items() if changes.is_old(id_)]
    order = sorted(old, key=lambda one: (one[1].sm_pct, one[0]))
    for id_, config in order:
        if spare_rps <= 0:
            break
        quotas = [config.quota_pct - QUOTA_STEP_PCT * step for step in range(1, 11)]
        quotas = [quota for quota in quotas if quota > 1e-6]
        if not quotas:
            continue
        now_rps = capacity_rps(changes.case, config)
        freed = [now_rps - _at_quota(changes, config, quota) for quota in quotas]
        step = next((step for step, rps in enumerate(freed) if rps >= spare_rps), len(quotas) - 1)
        if changes.resize(id_, quotas[step], Reason.DEMAND_DOWN):
            spare_rps -= freed[step]
    for id_, config in order:
        if spare_rps <= 0 or len(changes.live) <= max(least, 1):
            break
        rps = capacity_rps(changes.case, changes.live[id_])
        if config.sm_pct <= SPARED_ABOVE_SM_PCT and rps <= spare_rps:
            spare_rps -= rps
            changes.drain(id_, Reason.DEMAND_DOWN)
    return len(changes.actions) > before


def _at_quota(changes: Changes, config: ResourceConfig, quota_pct: float) -> float:
    """Capacity of an instance at another quota, rps."""
    return capacity_rps(changes.case, ResourceConfig(config.sm_pct, quota_pct, config.batch))


def _batch(changes: Changes) -> int:
    """Batch of a further instance: that of the function's first one."""
    return next(iter(changes.live.values())).batch
