"""What `rapp replay` shows: a bar while it runs, and tables of 80 columns at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any

from rapp.cli.tables import console, table
from rapp.cli.tables import ms as _ms
from scaler.replay.aggregate import FIGURES, Mean, by_policy, mean_of, violations_pct_at
from scaler.replay.chaos import Fault
from scaler.replay.recovery import Recovery
from scaler.replay.report import duration
from scaler.replay.result import ReplayResult

MOST_RECOVERIES = 12
"""Disturbances with a line of their own; of more, the median and the worst."""


@contextmanager
def progress(end_s: float, runs: int) -> Iterator[Callable[[str], Callable[[float], None]]]:
    """Yield a function (name of a run) that gives what to call with the time of its trace, s.

    On stderr, where that is a terminal; gone when all is done.
    """
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:28}"), BarColumn(bar_width=24), TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
    )  # fmt: skip
    out = console(stderr=True)
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task("", total=runs * end_s)
        done = -1

        def begin(name: str) -> Callable[[float], None]:
            nonlocal done
            done += 1
            before = done * end_s
            bar.update(task, description=name, completed=before)
            shown_s = 0.0

            def tell(now_s: float) -> None:
                nonlocal shown_s
                # A hundred times a run is enough; to tell each tick would take as long as the tick.
                if now_s - shown_s >= end_s / 100:
                    shown_s = now_s
                    bar.update(task, completed=before + now_s)

            return tell

        yield begin


def show(results: Sequence[ReplayResult], about: Mapping[str, Any]) -> None:
    """Print the tables."""
    from rich.text import Text

    out = console()
    total = results[0].total
    out.print(Text(PurePath(about["trace"]).name, style="bold"))
    seeds = len(about["seeds"])
    out.print(
        f"{total.arrivals:,} requests to {len(about['functions'])}"
        f" function{'s' * (len(about['functions']) > 1)} in {duration(about['duration_s'])},"
        f" {about['arrivals']} · {about['gpus']['count']} GPUs · {seeds} seed{'s' * (seeds > 1)}"
    )
    if about["quota_kind"] == "launch_gate":
        out.print(
            Text("quotas gate launches: costs do not compare with those under gpu_time", style="yellow")
        )
    grouped = by_policy(results)
    out.print(_costs(grouped, list(total.violations_at)))
    out.print(_latencies(grouped))
    out.print(_changes(grouped))
    if total.violations_at:
        least = min(total.violations_at)
        out.print(f"at {least:g}x: violations if the objective were {least:g} times the base latency")
    if seeds > 1:
        out.print(f"means over {seeds} seeds; ±: half a 95 % interval by Student's t")
    for policy, own in grouped.items():
        if own[0].recoveries:
            _recoveries(policy, [had for one in own for had in one.recoveries])


def _costs(grouped: Mapping[str, Sequence[ReplayResult]], multipliers: Sequence[float]) -> Any:
    made = table("policy", "GPU-s/1,000", "violations", *(f"at {m:g}x" for m in multipliers))
    for policy, own in grouped.items():
        cost, share = (mean_of(own, FIGURES[name]) for name in ("gpu_s_per_1000", "violations_pct"))
        made.add_row(
            policy,
            (_ms(cost.value) if math.isfinite(cost.value) else "-") + _within(cost),
            f"{share.value:.2f} %{_within(share)}",
            *(f"{mean_of(own, violations_pct_at(m)).value:.2f} %" for m in multipliers),
        )
    return made


def _latencies(grouped: Mapping[str, Sequence[ReplayResult]]) -> Any:
    made = table("policy", "p50 ms", "p95 ms", "p99 ms", "instances", "most", "refused", "dropped")
    for policy, own in grouped.items():
        latency = [mean_of(own, FIGURES[name]).value for name in ("p50_ms", "p95_ms", "p99_ms")]
        made.add_row(
            policy,
            *("-" if math.isnan(value) else _ms(value) for value in latency),
            f"{mean_of(own, FIGURES['instances']).value:.1f}",
            f"{max(one.total.most_instances for one in own)}",
            *(f"{mean_of(own, FIGURES[name]).value:,.0f}" for name in ("refused", "lost")),
        )
    return made


def _changes(grouped: Mapping[str, Sequence[ReplayResult]]) -> Any:
    made = table("policy", "GPU h", "host-core h", "starts", "resizes", "drains", "not made")
    for policy, own in grouped.items():
        made.add_row(
            policy,
            *(f"{mean_of(own, FIGURES[name]).value:.3g}" for name in ("whole_gpu_h", "host_core_h")),
            *(
                f"{mean_of(own, FIGURES[name]).value:,.0f}"
                for name in ("starts", "resizes", "drains", "not_made")
            ),
        )
    return made


def _recoveries(policy: str, listed: Sequence[Recovery]) -> None:
    out = console()
    times = [had.recovery_s for had in listed]
    known = sorted(math.inf if seconds is None else seconds for seconds in times)
    out.print(
        f"{policy}: {len(listed)} disturbances; recovered after {_seconds(known[len(known) // 2])}"
        f" (median), {_seconds(known[-1])} (longest)"
    )
    if len(listed) > MOST_RECOVERIES:
        return
    made = table("at, s", "what", "before", "at worst", "recovered after", left=(1,))
    for had in listed:
        one, seconds = had.disturbance, had.recovery_s
        made.add_row(
            f"{one.at_s:,.0f}",
            one.fault.value + (f", {one.target}" if one.fault == Fault.GPU_LOST else ""),
            f"{100 * had.before:.2f} %",
            f"{100 * had.worst:.2f} %",
            _seconds(math.inf if seconds is None else seconds),
        )
    out.print(made)


def _seconds(value: float) -> str:
    return "not within the trace" if math.isinf(value) else f"{value:g} s"


def _within(mean: Mean) -> str:
    return "" if mean.within is None else f" ±{mean.within:.2g}"
