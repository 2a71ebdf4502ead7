"""The campaigns that a table's rows are from: when, by which software, under which conditions, how steady."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from rapp.profiles.table import ProfileTable
from rapp.types import ResourceConfig

MOST_DRIFT_PCT = 3.0
"""Anchors that differ by more are told as a fault: the device changed while the campaign ran. That is about
the noise of the public V100 profiles, whose unnoticed steps of 12 % and more no predictor can learn."""

_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28,}\b")

# What our profiler writes into the column `software` beside versions: of a network as a whole, of a point.
_DRIFT, _DERIVED_ERROR, _DERIVED_BY = "anchor_drift_pct", "derived_error_pct", "derived_by"
_REJECTED, _COUNTED, _COMPARED = "rejected_blocks", "counts_rejected", "outputs_compared"
_NO_VERSIONS = {_DRIFT, _DERIVED_ERROR, _DERIVED_BY, _REJECTED, _COUNTED, _COMPARED, "warm_up_runs"}


@dataclass(frozen=True, slots=True)
class Anchor:
    """One configuration that a campaign measured again and again.

    Args:
        latency_ms: median latency of each time, or the mean where no median is known, in the order of
            time, ms; empty if none succeeded.
        failed: how many times more it was tried in vain.
    """

    network: str
    config: ResourceConfig
    latency_ms: tuple[float, ...]
    failed: int

    @property
    def drift_pct(self) -> float | None:
        """How far the greatest latency lies above the least, %; None unless it was measured twice."""
        if len(self.latency_ms) < 2:
            return None
        return 100 * (max(self.latency_ms) / min(self.latency_ms) - 1)


@dataclass(frozen=True, slots=True)
class Campaign:
    """The rows of one campaign under one setting.

    Args:
        campaign_id: its name.
        device_uuids: which devices of the model; empty: unknown.
        window_ms: windows of the quota, ascending; empty: unknown.
        granularity_ms: the smallest times that the quota could hold back; empty: unknown.
        idle_ms: pauses between batches; empty: unknown.
        first, last: when its first and its last row were started, UTC; None: unknown.
        measured, derived, failed, skipped: numbers of rows, without anchors.
        unconverged: measured rows whose stopping rule was not met.
        samples: median number of batches timed a measured row; None: unknown.
        software: versions and origin, by name; several values where its rows differ.
        anchors: see `Anchor`, by network.
        drift_pct: the largest drift of an anchor, %, by its rows or as the profiler wrote; None: unknown.
        rejected: blocks of samples that were thrown away, by cause.
        counts_rejected: points whose figures hold such blocks after all, since too few others were left.
        outputs_compared: points whose outputs were the same as at SM 100 %.
        derived_by: by which law points were computed from others.
        derived_error_pct: mean error of that where such points were measured too, %, of the network with
            the largest; None: unknown.
    """

    campaign_id: str
    device_uuids: tuple[str, ...]
    window_ms: tuple[float, ...]
    granularity_ms: tuple[float, ...]
    idle_ms: tuple[float, ...]
    first: datetime | None
    last: datetime | None
    measured: int
    derived: int
    failed: int
    skipped: int
    unconverged: int
    samples: float | None
    software: Mapping[str, tuple[str, ...]]
    anchors: tuple[Anchor, ...]
    drift_pct: float | None
    rejected: Mapping[str, int]
    counts_rejected: int
    outputs_compared: int
    derived_by: tuple[str, ...]
    derived_error_pct: float | None

    @property
    def drifted(self) -> bool:
        """Whether its anchors moved further than `MOST_DRIFT_PCT`."""
        return self.drift_pct is not None and self.drift_pct > MOST_DRIFT_PCT


def campaigns(rows: ProfileTable) -> list[Campaign]:
    """Each campaign of the rows of one setting, by the time of its first row, those without time last."""
    names = rows.column("campaign_id")
    found = [_campaign(name, rows.where(names == name)) for name in sorted(set(names.tolist()))]
    return sorted(found, key=lambda one: (one.first is None, str(one.first), one.campaign_id))


def describe_times(one: Campaign) -> str:
    """`2026-03-01 10:00 to 10:25 UTC`, by the starts of its rows; empty if unknown."""
    if one.first is None or one.last is None:
        return ""
    first, last = f"{one.first:%Y-%m-%d %H:%M}", f"{one.last:%Y-%m-%d %H:%M}"
    if first == last:
        return f"{first} UTC"
    return f"{first} to {last[11:] if first[:10] == last[:10] else last} UTC"


def describe_conditions(one: Campaign) -> str:
    """`window 40 ms, granularity 5 ms, idle 0 ms`, as far as known."""
    known = (("window", one.window_ms), ("granularity", one.granularity_ms), ("idle", one.idle_ms))
    return ", ".join(
        f"{name} {' and '.join(f'{value:g}' for value in values)} ms" for name, values in known if values
    )


def describe_rows(one: Campaign) -> str:
    """`760 rows measured, 40 derived, 3 failed, 12 skipped`; what there is none of is left out."""
    counts = [(one.derived, "derived"), (one.failed, "failed"), (one.skipped, "skipped")]
    more = [f"{count:,} {name}" for count, name in counts if count]
    samples = "" if one.samples is None else f" ({one.samples:.0f} samples each, median)"
    rows = "1 row" if one.measured == 1 else f"{one.measured:,} rows"
    return ", ".join([f"{rows} measured{samples}", *more])


def describe_software(one: Campaign) -> str:
    """`cuda 12.4, onnxruntime 1.20.1 / 1.20.0`; digests are cut to 12 digits, --json has them whole."""
    shown = {name: [_DIGEST.sub(r"\1…", value) for value in values] for name, values in one.software.items()}
    return ", ".join(f"{name} {' / '.join(values)}" for name, values in shown.items())


def describe_drift(one: Campaign) -> str:
    """`anchors of 3 networks, drift 4.1 % (bert), above 3 %: ...`; empty if nothing is known of them."""
    if one.drift_pct is None:
        return "anchors without a drift: none was measured twice" if one.anchors else ""
    networks = {anchor.network for anchor in one.anchors}
    count = "1 network" if len(networks) == 1 else f"{len(networks)} networks"
    told = f"anchors of {count}: drift {one.drift_pct:.1f} %" if networks else f"drift {one.drift_pct:.1f} %"
    if not one.drifted:
        return told
    moved = [anchor.network for anchor in one.anchors if (anchor.drift_pct or 0) > MOST_DRIFT_PCT]
    who = f" ({', '.join(moved[:3])}{' and others' if len(moved) > 3 else ''})" if moved else ""
    return f"{told}{who}, above {MOST_DRIFT_PCT:g} %: latency moved while the campaign ran"


def _campaign(name: str, rows: ProfileTable) -> Campaign:
    points = rows.filter(anchor=False)
    ok, derived = points.column("status") == "ok", points.column("derived")
    measured = points.where(ok & ~derived)
    samples = measured.column("n_samples").astype(float)
    told = _software(rows)
    anchors = _anchors(rows.filter(anchor=True))
    drifts = [one.drift_pct for one in anchors if one.drift_pct is not None]
    drifts += _numbers(entry.get(_DRIFT) for entry, _ in told)
    times = sorted(time for time in rows.arrow.column("started_at").to_pylist() if time is not None)
    return Campaign(
        campaign_id=name,
        device_uuids=tuple(sorted({uuid for uuid in rows.column("device_uuid").tolist() if uuid})),
        window_ms=_distinct(rows, "window_ms"),
        granularity_ms=_distinct(rows, "granularity_ms"),
        idle_ms=_distinct(rows, "idle_ms"),
        first=times[0] if times else None,
        last=times[-1] if times else None,
        measured=len(measured),
        derived=int((ok & derived).sum()),
        failed=int((points.column("status") == "failed").sum()),
        skipped=int((points.column("status") == "skipped").sum()),
        unconverged=sum(value is False for value in measured.column("converged").tolist()),
        samples=float(np.nanmedian(samples)) if np.isfinite(samples).any() else None,
        software=_versions(entry for entry, _ in told),
        anchors=anchors,
        drift_pct=max(drifts, default=None),
        rejected=_rejected(told),
        counts_rejected=sum(count for entry, count in told if entry.get(_COUNTED)),
        outputs_compared=sum(count for entry, count in told if entry.get(_COMPARED)),
        derived_by=tuple(dict.fromkeys(str(e[_DERIVED_BY]) for e, _ in told if e.get(_DERIVED_BY))),
        derived_error_pct=max(_numbers(entry.get(_DERIVED_ERROR) for entry, _ in told), default=None),
    )


def _distinct(rows: ProfileTable, name: str) -> tuple[float, ...]:
    values = rows.column(name)
    return tuple(np.unique(values[np.isfinite(values)]).tolist())


def _software(rows: ProfileTable) -> list[tuple[dict[str, Any], int]]:
    """What each distinct text of the column says, and how many rows have it."""
    texts = Counter(text for text in rows.column("software").tolist() if text is not None)
    return [(json.loads(text), count) for text, count in texts.items()]


def _versions(entries: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    values: dict[str, dict[str, None]] = defaultdict(dict)
    for entry in entries:
        for name, value in entry.items():
            if name not in _NO_VERSIONS and value is not None:
                values[name][value if isinstance(value, str) else json.dumps(value)] = None
    return {name: tuple(values[name]) for name in sorted(values)}


def _numbers(values: Iterable[object]) -> list[float]:
    """The finite numbers among values that another program wrote."""
    found = []
    for value in values:
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            continue
        if np.isfinite(number):
            found.append(number)
    return found


def _rejected(told: Iterable[tuple[Mapping[str, Any], int]]) -> dict[str, int]:
    """Rejected blocks by cause, most first; a row has {cause: blocks}."""
    causes: Counter[str] = Counter()
    for entry, count in told:
        value = entry.get(_REJECTED)
        for cause, blocks in value.items() if isinstance(value, dict) else ():
            for number in _numbers([blocks]):
                causes[str(cause)] += int(number) * count
    return dict(causes.most_common())


def _anchors(rows: ProfileTable) -> tuple[Anchor, ...]:
    order = np.argsort(rows.column("started_at").astype("datetime64[us]"), kind="stable")
    median = rows.column("median_ms")
    latency_ms = np.where(np.isfinite(median), median, rows.column("latency_ms"))[order]
    names = ("network", "sm_pct", "quota_pct", "batch")
    each: dict[tuple[str, ResourceConfig], list[float]] = defaultdict(list)
    for network, sm, quota, batch, value in zip(
        *(rows.column(n)[order] for n in names), latency_ms, strict=True
    ):
        each[network, ResourceConfig(float(sm), float(quota), int(batch))].append(float(value))
    found = []
    for (network, config), values in sorted(each.items()):
        latencies = tuple(value for value in values if np.isfinite(value))
        found.append(Anchor(network, config, latencies, len(values) - len(latencies)))
    return tuple(found)
