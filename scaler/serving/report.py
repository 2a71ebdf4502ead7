"""What a fleet looks like to controllers and people, as objects that JSON can hold; counts are cumulative."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from scaler.core.observation import Phase
from scaler.serving.fleet import Fleet
from scaler.serving.function import ServedFunction
from scaler.serving.instance import Instance

VERSION = 1


def observation_json(fleet: Fleet) -> dict[str, Any]:
    """All that an observation is made of.

    A request of batch n counts as n requests. Counts of a function go up while `boot_id` stays, those of an
    instance while its `started_s` stays too. Times are those of CLOCK_MONOTONIC, s.
    """
    now_s = time.monotonic()
    gpu = fleet.device.view
    return {
        "version": VERSION,
        "boot_id": fleet.boot_id,
        "now_s": now_s,
        "functions": {name: _function(one, now_s) for name, one in fleet.functions.items()},
        "instances": [_instance(one) for one in fleet.instances.values()],
        "gpus": [asdict(gpu)],
    }


def _function(function: ServedFunction, now_s: float) -> dict[str, Any]:
    counts, spec = function.counts, function.spec
    return {
        "arrivals": counts.arrivals,
        "completed": counts.completed,
        "late": counts.late,
        "refused": counts.refused + counts.expired + counts.failed,
        "queue": function.waiting,
        "in_flight": function.in_flight,
        "latency_ms": counts.latency_ms(now_s, spec.slo_quantile),
        "slo_ms": function.slo_ms,
        "slo_quantile": spec.slo_quantile,
        "queue_limit": spec.queue_limit,
        "max_batch": spec.max_batch,
    }


def _instance(instance: Instance) -> dict[str, Any]:
    counts, config, worker = instance.counts, instance.config, instance.worker
    return {
        "id": instance.id,
        "function": instance.function,
        "gpu": instance.place.gpu,
        "row": instance.place.row,
        "sm_pct": config.sm_pct,
        "quota_pct": config.quota_pct,
        "batch": config.batch,
        "phase": instance.phase.value,
        "since_s": instance.since_s,
        "started_s": instance.started_s,
        "pid": None if worker is None else worker.pid,
        "restarts": counts.restarts,
        "in_flight": len(instance.carried),
        "batches": counts.batches,
        "requests": counts.samples,
        "run_s": counts.run_s,
        "device_s": counts.device_s,
        "held_s": counts.held_s,
        "cpu_s": None if worker is None else worker.cpu_seconds(),
    }


def status_json(fleet: Fleet, decisions: list[dict[str, Any]]) -> dict[str, Any]:
    """What a status page shows: the observation, rows of each GPU, and what was decided and happened last.

    Args:
        decisions: as controllers posted them, the oldest first.
    """
    seen = observation_json(fleet)
    rows: dict[int, dict[str, Any]] = {}
    for one in sorted(fleet.instances.values(), key=lambda one: one.place.row):
        row = rows.setdefault(
            one.place.row, {"row": one.place.row, "sm_pct": one.config.sm_pct, "instances": []}
        )
        row["instances"].append(one.id)
    for gpu in seen["gpus"]:
        gpu["rows"] = list(rows.values())
    return {
        **seen,
        "is_ready": fleet.is_ready,
        "decisions": decisions,
        "events": list(fleet.events),
    }


def ready_count(function: ServedFunction) -> int:
    """Instances that serve."""
    return sum(one.phase is Phase.READY for one in function.instances)
