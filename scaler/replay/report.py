"""The HTML report of a replay: one page that needs no other file and no network."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import PurePath
from typing import Any

from markupsafe import Markup

from rapp.report.render import render_source
from scaler.core.decision import Resize, Start
from scaler.replay.aggregate import FIGURES, Mean, by_policy, mean_of, violations_pct_at
from scaler.replay.chaos import Fault
from scaler.replay.recovery import Recovery
from scaler.replay.report_charts import (
    Clock,
    allocation_chart,
    front_chart,
    instances_chart,
    latency_chart,
    load_chart,
)
from scaler.replay.report_packing import packing_chart
from scaler.replay.result import FunctionResult, ReplayResult
from scaler.replay.series import MADE, Change

MOST_CHANGES = 150
"""Changes that are listed one by one; all are in changes.parquet."""

MOST_FUNCTIONS = 12
"""Functions with plots of their own, those with most arrivals; all are in the table and in series.parquet."""


def replay_html(results: Sequence[ReplayResult], about: Mapping[str, Any]) -> str:
    """The page.

    Args:
        results: a policy and seed each; plots over time are of the first seed of each policy.
        about: the setup, as `scaler.replay.inputs.Inputs.about` gives it.
    """
    grouped = by_policy(results)
    source = files("scaler.replay").joinpath("templates/replay.html.j2").read_text(encoding="utf-8")
    gpus = [f"gpu-{number}" for number in range(about["gpus"]["count"])]
    multipliers = list(results[0].total.violations_at)
    return render_source(
        source,
        about=about,
        trace=PurePath(about["trace"]).name,
        title=", ".join(grouped) if len(grouped) < 4 else f"{len(grouped)} policies",
        duration=duration(about["duration_s"]),
        facts=_facts(about),
        tiles=_tiles(grouped, about),
        gated=about["quota_kind"] == "launch_gate",
        multipliers=[f"{m:g}" for m in multipliers],
        rows=[_row(number, name, own, multipliers) for number, (name, own) in enumerate(grouped.items())],
        front=Markup(front_chart(grouped)),
        sections=[
            _section(number, own[0], gpus) | {"open": number == 0}
            for number, own in enumerate(grouped.values())
        ],
        seeds=len(about["seeds"]),
        shown=MOST_CHANGES,
    )


def duration(seconds: float) -> str:
    """A time for people: `90 s`, `12 min`, `24 h`."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 10 * size or (seconds >= 2 * size and seconds % size == 0):
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def figure(value: float, digits: int = 3) -> str:
    """A number with so many digits that count; a dash where it is not known."""
    if not math.isfinite(value):
        return "–"
    if value == 0 or abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    places = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    return f"{value:,.{min(places, 6)}f}"


def _told(mean: Mean, digits: int = 3) -> dict[str, Any]:
    # An interval that cannot be seen beside its value says nothing.
    seen = mean.within is not None and mean.within > 0.001 * abs(mean.value)
    within = f"± {figure(mean.within, 2)}" if seen and mean.within is not None else ""
    return {"text": figure(mean.value, digits), "within": within, "value": mean.value}


def _row(number: int, name: str, own: Sequence[ReplayResult], multipliers: Sequence[float]) -> dict[str, Any]:
    told = {key: _told(mean_of(own, of)) for key, of in FIGURES.items()}
    at = [_told(mean_of(own, violations_pct_at(m))) for m in multipliers]
    return {"name": name, "colour": number % 8, "at": at, **told}


def _tiles(grouped: Mapping[str, Sequence[ReplayResult]], about: Mapping[str, Any]) -> list[dict[str, str]]:
    first = next(iter(grouped.values()))[0]
    allowed = {name: 1 - one["slo_quantile"] for name, one in about["functions"].items()}
    meeting = [
        (mean_of(own, FIGURES["gpu_s_per_1000"]).value, policy)
        for policy, own in grouped.items()
        if all(
            figures.violation_share <= allowed[name] for one in own for name, figures in one.functions.items()
        )
    ]
    tiles = []
    if meeting:
        cost, policy = min(meeting)
        note = "GPU-seconds per 1,000 requests; cheapest that meets every objective"
        tiles.append({"name": policy, "value": figure(cost), "unit": "", "note": note})
    else:
        note = "no policy meets every objective at its quantile"
        tiles.append({"name": "objectives met", "value": "none", "unit": "", "note": note})
    rate = first.total.arrivals / about["duration_s"]
    tiles.append(
        {
            "name": "requests", "value": f"{first.total.arrivals:,}", "unit": "",
            "note": f"{figure(rate)} a second on average, {about['arrivals']} arrivals",
        }
    )  # fmt: skip
    tiles.append(
        {
            "name": "functions", "value": str(len(about["functions"])), "unit": "",
            "note": f"on {about['gpus']['count']} GPUs for {duration(about['duration_s'])}",
        }
    )  # fmt: skip
    return tiles


def _section(number: int, result: ReplayResult, gpus: Sequence[str]) -> dict[str, Any]:
    """What one policy did, with the first seed."""
    duration_s = result.total.duration_s
    clock = Clock(result.series.at_s, duration_s)
    tick_s = float(result.series.at_s[0])
    names = list(result.functions)
    had = [one.disturbance for one in result.recoveries]
    lost_s = {str(one.target): one.at_s for one in reversed(had) if one.fault == Fault.GPU_LOST}
    most = sorted(result.functions.values(), key=lambda one: -one.arrivals)[:MOST_FUNCTIONS]
    changes = result.series.changes
    return {
        "colour": number % 8,
        "name": result.policy,
        "packing": Markup(packing_chart(result.account.allotments, gpus, names, clock, lost_s)),
        "keys": [(name, place % 8) for place, name in enumerate(names)],
        "functions": [_function(one) for one in result.functions.values()],
        "plots": [
            {
                "name": one.function,
                "slo": figure(one.slo_ms),
                "load": Markup(load_chart(result.series, one.function, clock, tick_s, had)),
                "latency": Markup(latency_chart(result.series, one, clock, had)),
                "allocation": Markup(allocation_chart(result.series, one.function, clock)),
                "instances": Markup(instances_chart(result.series, one.function, clock)),
            }
            for one in most
        ],
        "left_out": len(names) - len(most),
        "recoveries": [_recovery(one) for one in result.recoveries],
        "reasons": _reasons(changes),
        "changes": [_change(change) for change in changes[:MOST_CHANGES]],
        "number_of_changes": len(changes),
    }


def _function(one: FunctionResult) -> dict[str, str]:
    return {
        "name": one.function,
        "slo": figure(one.slo_ms),
        "arrivals": f"{one.arrivals:,}",
        "late": f"{one.late:,}",
        "refused": f"{one.refused:,}",
        "lost": f"{one.lost:,}",
        "unfinished": f"{one.unfinished:,}",
        "violations": figure(100 * one.violation_share),
        "p50": figure(one.p50_ms),
        "p95": figure(one.p95_ms),
        "p99": figure(one.p99_ms),
        "cost": figure(one.gpu_seconds_per_1000),
        "instances": f"{figure(one.mean_instances, 2)} / {one.most_instances}",
    }


def _recovery(one: Recovery) -> dict[str, str]:
    had = one.disturbance
    seconds = one.recovery_s
    return {
        "at": f"{had.at_s:,.0f} s",
        "what": had.fault.value + (f": {had.target}" if had.target else ""),
        "before": figure(100 * one.before),
        "worst": figure(100 * one.worst),
        "recovery": "not within the trace"
        if seconds is None
        else "not felt"
        if seconds == 0
        else f"{seconds:g} s",
    }


def _reasons(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """By reason, how many changes of each kind; those that were not made apart."""
    made = Counter((one.action.reason.value, one.action.kind) for one in changes if one.outcome == MADE)
    failed = Counter(one.action.reason.value for one in changes if one.outcome != MADE)
    reasons = sorted({reason for reason, _ in made} | set(failed))
    rows = [
        {
            "reason": reason,
            **{kind: made.get((reason, kind), 0) for kind in ("start", "resize", "drain")},
            "failed": failed.get(reason, 0),
        }
        for reason in reasons
    ]
    return sorted(rows, key=lambda row: -sum(value for value in row.values() if isinstance(value, int)))


def _change(change: Change) -> dict[str, str]:
    action = change.action
    if isinstance(action, Start):
        config = action.config
        place = f"{action.gpu}, row {action.row}"
        what = (
            f"start on {place}: SM {config.sm_pct:g} %, quota {config.quota_pct:.4g} %, batch {config.batch}"
        )
    elif isinstance(action, Resize):
        what = f"quota {action.quota_pct:.4g} %, batch {action.batch}"
    else:
        what = "drain"
    return {
        "at": f"{change.at_s:,.0f}",
        "value": f"{change.at_s:g}",
        "instance": action.id,
        "what": what,
        "reason": action.reason.value,
        "outcome": "" if change.outcome == MADE else change.outcome,
    }


def _facts(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The setup as pairs of name and text."""
    gpus, physics, chaos = about["gpus"], about["physics"], about["chaos"]
    beside = f"× {physics['beside']:g}" + (" or as measured" if physics["pairs"] else "")
    part = "" if about["scale"] == 1 else f", × {about['scale']:g}"
    facts = [
        ("trace", f"{PurePath(about['trace']).name}{part}, {about['arrivals']} arrivals"),
        ("execution times, truth", _short(about["truth"])),
        ("execution times, as planned with", _short(about["plan"]) + f", risk {about['risk']}"),
        ("GPUs", f"{gpus['count']} with {gpus['memory_mib']:,.0f} MiB and {gpus['host_cores']:g} host cores"),
        ("forecaster", f"{about['forecaster']}, quantile {about['quantile']:g}"),
        ("tick", f"{about['tick_s']:g} s"),
        ("seeds", ", ".join(map(str, about["seeds"]))),
        (
            "simulated hardware",
            f"quota window {1e3 * physics['window_s']:g} ms, noise {100 * physics['run_noise']:g} % a run and"
            f" {100 * physics['process_noise']:g} % a process, {beside} beside a busy row,"
            f" changes take {1e3 * physics['change_delay_s']:g} ms",
        ),
    ]
    wrong = []
    if chaos["crash_every_s"]:
        wrong.append(f"an instance crashes every {chaos['crash_every_s']:g} s")
    wrong += [f"{one['gpu']} is lost at {one['at_s']:g} s" for one in chaos["lost_gpus"]]
    wrong += [f"no observations from {one['from_s']:g} to {one['to_s']:g} s" for one in chaos["blind"]]
    if chaos["model_factor"] != 1:
        wrong.append(f"planned execution times are wrong by × {chaos['model_factor']:g}")
    return [*facts, ("what goes wrong", "; ".join(wrong))] if wrong else facts


def _short(name: str) -> str:
    """Sources without folders: a page that is passed on need not tell where it was made."""
    return " ".join(PurePath(part).name if "/" in part else part for part in name.split(" "))
