"""What `rapp profile` prints before and after: the plan, and how the points ended."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from profiler.campaign import MOST_DEVICE_ERRORS, Campaign, Halt
from profiler.derive import WORST_ERROR
from profiler.estimate import Pace
from profiler.plan import NetworkPlan, QuotaMode
from profiler.request import Prepared
from profiler.rows import Quality
from rapp.cli.profile_progress import Progress, duration
from rapp.cli.tables import console, note, table
from rapp.errors import RappError

if TYPE_CHECKING:
    from rapp.profiles import ProfileTable

MOST_NETWORKS = 20
"""Networks with a row of their own; those beyond share one."""

MOST_REASONS = 5
"""Reasons for skipping that a plan names."""


def print_plan(ready: Prepared, done: int, pace: Pace) -> None:
    """How many points there are, and what they will take.

    Args:
        done: points that the journal has.
    """
    made = table("network", "measure", "anchors", "derive", "skip", "minutes", "MiB")
    adaptive = ready.request.adaptive
    rows = [_planned(ready, plan, pace) for plan in ready.plans]
    shown = rows[:MOST_NETWORKS]
    for row in shown:
        made.add_row(*row)
    out = console()
    out.print(made)
    if len(rows) > len(shown):
        out.print(f"and {len(rows) - len(shown)} more networks")
    minutes = sum(_minutes(ready, plan, pace) for plan in ready.plans)
    measured = sum(_most(ready, plan) for plan in ready.plans)
    anchors = sum(len(plan.anchors) for plan in ready.plans)
    told = "at most " if adaptive else ""
    out.print(f"{told}{measured:,} points and {anchors:,} anchors to measure: {told}{duration(60 * minutes)}")
    out.print(f"time {pace.source}", soft_wrap=True)
    if done:
        out.print(f"{done:,} of them are in the journal")
    if ready.device.info.virtual_time:
        out.print("the device answers from a table: these minutes pass on no clock")
    reasons = Counter(why for plan in ready.plans for why in plan.skipped.values()).most_common()
    for reason, count in reasons[:MOST_REASONS]:
        out.print(f"skipped {count:,}: {reason}", markup=False, soft_wrap=True)
    if reasons[MOST_REASONS:]:
        rest = sum(count for _, count in reasons[MOST_REASONS:])
        out.print(f"skipped {rest:,} for {len(reasons) - MOST_REASONS} other reasons")


def _planned(ready: Prepared, plan: NetworkPlan, pace: Pace) -> list[str]:
    need = ready.networks.need_mib.get(plan.network.name, {})
    return [
        plan.network.name,
        f"{_most(ready, plan):,}",
        f"{len(plan.anchors)}",
        f"{len(plan.derived):,}",
        f"{len(plan.skipped):,}",
        f"{_minutes(ready, plan, pace):,.1f}",
        f"{max(need.values()):,.0f}" if need else "?",
    ]


def _most(ready: Prepared, plan: NetworkPlan) -> int:
    """Points of the grid that will be measured, at most."""
    adaptive = ready.request.adaptive
    return len(plan.candidates) if adaptive is None else min(adaptive.most_points, len(plan.candidates))


def _minutes(ready: Prepared, plan: NetworkPlan, pace: Pace) -> float:
    if ready.request.adaptive is None:
        return pace.minutes(plan)
    # Each point may want another partition, and so a session of its own.
    return (_most(ready, plan) + len(plan.anchors)) * (pace.point_s + pace.session_s) / 60


def total(ready: Prepared) -> int:
    """Points to measure, anchors among them; at most, if adaptive."""
    return sum(_most(ready, plan) + len(plan.anchors) for plan in ready.plans)


def end(campaign: Campaign, ready: Prepared, out: Path, halt: Halt | None, progress: Progress) -> None:
    """Write the table of a campaign that is complete or was stopped, and say how it ended.

    Raises:
        RappError: the table cannot be written, the device failed, or no point could be measured.
    """
    if not campaign.outcomes and halt is not None:
        note(f"{halt.value}: nothing was measured, so there is no table")
        return
    written = campaign.write(out)
    quality = campaign.quality()
    _print_summary(written, quality, progress, ready.device.info.virtual_time)
    _warn(quality, derived=ready.mode == QuotaMode.DERIVE)
    left = sum(campaign.left.values())
    shown = console()
    rows = "1 row" if len(written) == 1 else f"{len(written):,} rows"
    shown.print(f"[bold]{out}[/]: {rows}", soft_wrap=True)
    if halt == Halt.DEVICE:
        raise RappError(
            f"{MOST_DEVICE_ERRORS} points in a row ended with a device error: mend the device, then run the"
            " same command with --retry-failed; what was measured before is safe"
        )
    if halt is not None:
        told = (
            f"stopped ({halt.value}) with {left:,} points to measure" if left else f"stopped ({halt.value})"
        )
        note(f"{told}: the same command goes on")
        return
    measured = written.filter(status="ok", anchor=False)
    if not len(measured):
        reasons = Counter(reason for reason in written.column("reason").tolist() if reason)
        most = reasons.most_common(1)[0][0] if reasons else "none was planned"
        raise RappError(f"no point could be measured: {most}")
    if not progress.tried:
        shown.print("every point was measured before: nothing was run")
    shown.print(f"next: {_next_command(out, ready)}", markup=False, soft_wrap=True)


def _print_summary(
    written: ProfileTable, quality: dict[str, Quality], progress: Progress, virtual_time: bool
) -> None:
    """How the points ended, and what the anchors say."""
    derived = any(one.verification for one in quality.values())
    columns = (
        "network",
        "ok",
        "derived",
        "failed",
        "skipped",
        "drift",
        *(("derived off",) if derived else ()),
    )
    made = table(*columns)
    counted = _counts(written)
    names = list(quality)
    shown = names if len(names) <= MOST_NETWORKS else names[: MOST_NETWORKS - 1]
    for name in shown:
        made.add_row(name, *_numbers(counted[name]), *_quality(quality[name])[: len(columns) - 5])
    if len(names) > len(shown):
        rest = sum((counted[name] for name in names[len(shown) :]), Counter[str]())
        made.add_row(f"{len(names) - len(shown)} more", *_numbers(rest))
    if len(names) > 1:
        made.add_row("all", *_numbers(sum(counted.values(), Counter[str]())), style="bold")
    out = console()
    out.print(made)
    points = "1 point" if progress.tried == 1 else f"{progress.tried:,} points"
    took = f"{points} in {duration(progress.seconds)}"
    out.print(took + (f", {duration(progress.virtual_s)} of the device" if virtual_time else ""))


def _counts(ended: ProfileTable) -> dict[str, Counter[str]]:
    """Points by network and end; anchors count as what they are not: they are left out."""
    counted: dict[str, Counter[str]] = {}
    rows = ended.filter(anchor=False)
    for network, status, derived in zip(
        *(rows.column(name).tolist() for name in ("network", "status", "derived")), strict=True
    ):
        kind = "derived" if derived and status == "ok" else status
        counted.setdefault(network, Counter())[kind] += 1
    for network in ended.networks():
        counted.setdefault(network, Counter())
    return counted


def _numbers(counted: Counter[str]) -> list[str]:
    return [f"{counted[kind]:,}" if counted[kind] else "-" for kind in ("ok", "derived", "failed", "skipped")]


def _quality(quality: Quality) -> tuple[str, str]:
    drift = "?" if quality.drift is None else f"{100 * quality.drift:.1f} %"
    verified = quality.verification
    return drift, "-" if verified is None else f"{100 * verified.mean_error:.1f} %"


def _warn(quality: dict[str, Quality], *, derived: bool) -> None:
    """Say which networks moved while they were measured, and where derived points are off."""
    from rapp.profiles.campaigns import MOST_DRIFT_PCT

    drifted = [(name, 100 * (one.drift or 0)) for name, one in quality.items() if one.drifted]
    for name, drift_pct in drifted[:MOST_NETWORKS]:
        note(f"warning: {name}: its anchors moved by {drift_pct:.1f} %, more than {MOST_DRIFT_PCT:g} %")
    if drifted:
        more = f" ({len(drifted)} networks)" if len(drifted) > 1 else ""
        note(f"  the device changed while it was measured{more}; anchor_drift_pct in the rows says so")
    for name, one in quality.items():
        if derived and one.verification is None:
            note(f"warning: {name}: no derived point could be verified")
        elif one.verification is not None and one.verification.mean_error > WORST_ERROR:
            off = f"{100 * one.verification.mean_error:.1f} % over {one.verification.points} points"
            note(f"warning: {name}: what was derived is off by {off}: consider --quota-mode measure")


def _next_command(out: Path, ready: Prepared) -> str:
    """The command that a table is for."""
    adaptive = ready.request.adaptive
    if adaptive is not None:
        files = ready.networks.files
        graph = files[0].path if len(files) == 1 else "NET.onnx"
        return f"rapp calibrate {adaptive.predictor} {graph} --points {out} --out calibration.json"
    paths = [file.path for file in ready.networks.files]
    # `rapp train` finds the graph of a network in the file of its name.
    named = [
        path
        for path, file in zip(paths, ready.networks.files, strict=True)
        if path and path.stem == file.name
    ]
    folders = {path.parent for path in named}
    graphs = folders.pop() if len(folders) == 1 and len(named) == len(paths) else "FOLDER_OF_NETWORKS"
    return f"rapp train --profiles {out} --graphs {graphs} --out run"
