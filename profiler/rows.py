"""The profile table of a campaign, from its plan and its outcomes: each planned point once.

An anchor that was not measured has no row: anchors are repetitions that watch for drift, and the table tells
them apart by when they started.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiler.derive import LAW, Verification, derive, verify
from profiler.device import DeviceInfo, NetworkFile
from profiler.outcome import Outcome, Status
from profiler.plan import NetworkPlan, Point, QuotaMode
from rapp import __version__

if TYPE_CHECKING:
    from rapp.profiles import ProfileTable


@dataclass(frozen=True, slots=True)
class Origin:
    """What all rows of a campaign have in common.

    Args:
        info: of the device. campaign_id: of the journal. seed: of the order of partitions.
    """

    info: DeviceInfo
    campaign_id: str
    seed: int
    mode: QuotaMode


@dataclass(frozen=True, slots=True)
class Quality:
    """What can be said of the sweep of one network as a whole.

    Args:
        drift: of the anchors: their largest median latency over the least, less 1; None: fewer than two.
        verification: of derived points; None: nothing was derived, or nothing verified.
    """

    drift: float | None
    verification: Verification | None

    @property
    def drifted(self) -> bool:
        """Whether the drift is above `MOST_DRIFT_PCT`."""
        from rapp.profiles.campaigns import MOST_DRIFT_PCT

        return self.drift is not None and 100 * self.drift > MOST_DRIFT_PCT


def quality(outcomes: Iterable[Outcome], origin: Origin) -> Quality:
    """The quality of one network's sweep, from its outcomes."""
    own = list(outcomes)
    medians = [one.measurement.median_ms for one in own if one.measurement and one.point.anchor is not None]
    return Quality(
        drift=max(medians) / min(medians) - 1 if len(medians) > 1 else None,
        verification=verify(own, origin.info) if origin.mode == QuotaMode.DERIVE else None,
    )


def campaign_table(
    plans: Sequence[NetworkPlan], outcomes: Mapping[Point, Outcome], origin: Origin, not_measured: str
) -> ProfileTable:
    """The table of a campaign, whole or stopped.

    Args:
        outcomes: so far; those that the plan does not have (adaptive sampling) have rows too.
        not_measured: the reason of points without an outcome.
    """
    from rapp.profiles import ProfileTable

    own: defaultdict[str, dict[Point, Outcome]] = defaultdict(dict)
    for point, outcome in outcomes.items():
        own[point.network][point] = outcome
    rows = (row for plan in plans for row in _rows(plan, own[plan.network.name], origin, not_measured))
    return ProfileTable.from_rows(rows, source="campaign")


def _rows(
    plan: NetworkPlan, outcomes: Mapping[Point, Outcome], origin: Origin, not_measured: str
) -> Iterator[dict[str, Any]]:
    told = _software(origin, quality(outcomes.values(), origin))
    # Outcomes first for a point that is skipped by now: what was measured before stands.
    for point in dict.fromkeys([*plan.measured, *outcomes]):
        outcome = outcomes.get(point) or Outcome(point, Status.SKIPPED, not_measured)
        if point.anchor is None or outcome.started_at is not None:
            yield _common(plan.network, point, origin) | _result(outcome, told)
    for point, reason in plan.skipped.items():
        if point not in outcomes:
            skipped = Outcome(point, Status.SKIPPED, reason)
            yield _common(plan.network, point, origin) | _result(skipped, told)
    for point in plan.derived:
        status, value = derive(point, outcomes, origin.info, not_measured)
        ended = {"latency_ms": value} if status == Status.OK else {"reason": value}
        software = json.dumps(told | {"derived_by": LAW})
        yield (
            _common(plan.network, point, origin)
            | {"status": status.value, "derived": True, "software": software}
            | ended
        )


def _common(network: NetworkFile, point: Point, origin: Origin) -> dict[str, Any]:
    info, config = origin.info, point.config
    return {
        "network": network.name,
        "graph_hash": network.graph_hash,
        "device": info.device,
        "device_uuid": info.device_uuid,
        "runtime": info.runtime,
        "precision": info.precision,
        "batch": config.batch,
        "sm_pct": config.sm_pct,
        "quota_pct": config.quota_pct,
        "quota_kind": info.quota_kind.value,
        "window_ms": info.window_ms,
        "granularity_ms": info.granularity_ms,
        "idle_ms": info.idle_ms,
        "derived": False,
        "campaign_id": origin.campaign_id,
        "anchor": point.anchor is not None,
    }


def _result(outcome: Outcome, told: Mapping[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = {"outputs_compared": outcome.outputs_compared} if outcome.measurement else {}
    row: dict[str, Any] = {
        "sm_count": outcome.sm_count,
        "peak_memory_mib": outcome.peak_memory_mib,
        "status": outcome.status.value,
        "reason": outcome.reason,
        "started_at": outcome.started_at,
    }
    if outcome.device_uuid is not None:
        row["device_uuid"] = outcome.device_uuid
    figures = outcome.measurement
    if figures is not None:
        own["warm_up_runs"] = figures.warm_up_runs
        if figures.rejected:
            own["rejected_blocks"] = dict(figures.rejected)
        if figures.counts_rejected:
            own["counts_rejected"] = True
        row |= {
            "latency_ms": figures.latency_ms,
            "median_ms": figures.median_ms,
            "median_low_ms": figures.median_low_ms,
            "median_high_ms": figures.median_high_ms,
            "p95_ms": figures.p95_ms,
            "p99_ms": figures.p99_ms,
            "mad_ms": figures.mad_ms,
            "device_ms": figures.device_ms,
            "launch_ms": figures.launch_ms,
            "n_samples": figures.n_samples,
            "converged": figures.converged,
        }
    return row | {"software": json.dumps({**told, **own})}


def _software(origin: Origin, quality: Quality) -> dict[str, Any]:
    """What the column `software` says of every row of a network."""
    told: dict[str, Any] = dict(origin.info.software) | {
        "rapp": __version__,
        "seed": origin.seed,
        "quota_mode": origin.mode.value,
        "anchor_drift_pct": None if quality.drift is None else round(100 * quality.drift, 2),
    }
    if quality.verification is not None:
        told["derived_error_pct"] = round(100 * quality.verification.mean_error, 2)
    return told
