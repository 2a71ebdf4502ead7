"""From the arrays of a world that has run to the figures of a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapp.types import FloatArray
from scaler.replay.account import Account
from scaler.replay.chaos import Disturbance
from scaler.replay.recovery import recoveries
from scaler.replay.result import Figures, FunctionResult, ReplayResult
from scaler.replay.series import COLUMNS, COUNTED, Series
from scaler.replay.setup import ReplaySetup
from scaler.replay.world import LOST, REFUSED, SERVED, WAITING, World

PERCENTILES = (50, 95, 99)


def result_of(
    setup: ReplaySetup,
    policy: str,
    world: World,
    account: Account,
    series: Series,
    happened: Sequence[Disturbance],
    took_s: float,
) -> ReplayResult:
    """The result of a replay that has run to its end; fills in the violations of `series`."""
    names = series.functions
    functions, all_latency = {}, []
    for f, name in enumerate(names):
        own = slice(None) if len(names) == 1 else world.function_of == f
        latency_ms, outcome, arrival = 1e3 * world.latency[own], world.outcome[own], world.arrival[own]
        violates = ~(latency_ms <= setup.objectives_ms[name])
        series.values[COLUMNS.index("violations"), f] = _by_tick(arrival[violates], series)
        base_ms = setup.base_ms[name]
        answered = latency_ms[outcome == SERVED]
        all_latency.append(answered)
        functions[name] = FunctionResult(
            function=name,
            slo_ms=setup.objectives_ms[name],
            base_ms=base_ms,
            arrivals=len(arrival),
            served=len(answered),
            refused=int(np.count_nonzero(outcome == REFUSED)),
            lost=int(np.count_nonzero(outcome == LOST)),
            unfinished=int(np.count_nonzero(outcome == WAITING)),
            late=int(np.count_nonzero(answered > setup.objectives_ms[name])),
            violations=int(np.count_nonzero(violates)),
            violations_at={
                m: len(arrival) - int(np.count_nonzero(latency_ms <= m * base_ms))
                for m in setup.slo_multipliers
            },
            gpu_seconds=account.gpu_seconds.get(name, 0.0),
            host_core_seconds=account.host_core_seconds.get(name, 0.0),
            duration_s=setup.end_s,
            **_percentiles(answered),
            **_instances(series, account, [name], setup.end_s),
        )
    total = functions[names[0]] if len(names) == 1 else None
    return ReplayResult(
        policy=policy,
        seed=setup.seed,
        functions=functions,
        total=total or _total(setup, functions, np.concatenate(all_latency), series, account),
        account=account,
        series=series,
        recoveries=_recoveries(setup, world, series, happened),
        took_s=took_s,
    )


def _total(
    setup: ReplaySetup,
    functions: Mapping[str, FunctionResult],
    latency_ms: FloatArray,
    series: Series,
    account: Account,
) -> Figures:
    each = list(functions.values())
    counts = ("arrivals", "served", "refused", "lost", "unfinished", "late", "violations")
    return Figures(
        **{name: sum(getattr(one, name) for one in each) for name in counts},
        violations_at={m: sum(one.violations_at[m] for one in each) for m in setup.slo_multipliers},
        gpu_seconds=sum(one.gpu_seconds for one in each),
        host_core_seconds=sum(one.host_core_seconds for one in each),
        duration_s=setup.end_s,
        **_percentiles(latency_ms),
        **_instances(series, account, list(functions), setup.end_s),
    )


def _by_tick(arrival: FloatArray, series: Series) -> NDArray[np.int64]:
    """How many of these arrivals each tick saw, (T,): one at the end of a tick is seen by it."""
    tick = np.minimum(np.searchsorted(series.at_s, arrival), len(series.at_s) - 1)
    return np.bincount(tick, minlength=len(series.at_s))


def _percentiles(latency_ms: FloatArray) -> dict[str, Any]:
    values = np.percentile(latency_ms, PERCENTILES) if len(latency_ms) else [np.nan] * len(PERCENTILES)
    return {f"p{level}_ms": float(value) for level, value in zip(PERCENTILES, values, strict=True)}


def _instances(series: Series, account: Account, names: Sequence[str], end_s: float) -> dict[str, Any]:
    alive_s = sum(one.to_s - one.from_s for one in account.allotments if one.function in names)
    at_tick = sum(series.column(phase, name) for name in names for phase in COUNTED[:3])
    return {"mean_instances": alive_s / end_s, "most_instances": int(np.max(at_tick, initial=0))}


def _recoveries(
    setup: ReplaySetup, world: World, series: Series, happened: Sequence[Disturbance]
) -> tuple[Any, ...]:
    if not happened:
        return ()
    came = _by_tick(world.arrival, series)
    violations = series.values[COLUMNS.index("violations")].astype(np.float64).sum(axis=0)
    allowed = 1 - min(spec.slo_quantile for spec in setup.functions)
    return recoveries(happened, series.at_s, came.astype(np.float64), violations, allowed)
