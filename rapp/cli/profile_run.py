"""Runs the campaign of `rapp profile`, and stops it when the user wants so."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import typer

from profiler.campaign import Brake, Campaign, Halt
from profiler.cluster import RayCluster
from profiler.device import NetworkFile
from profiler.estimate import known_pace
from profiler.growing import PointRule, run_adaptively
from profiler.journal import Journal, journal_path
from profiler.journal_format import read_journal
from profiler.request import Prepared
from profiler.specification import differences
from rapp.cli.profile_progress import Progress
from rapp.cli.profile_view import end, print_plan, total
from rapp.cli.tables import note
from rapp.errors import RappError
from rapp.evaluation.source import artifact_folder


def show_plan(ready: Prepared, out: Path) -> None:
    """Print the plan of a campaign, and what is known of its pace."""
    record = read_journal(journal_path(out))
    same = record is not None and not differences(record.specification, ready.specification)
    if record is not None and not same:
        note(f"{out} belongs to another campaign: this plan needs another --out")
    outcomes = record.outcomes.values() if record is not None and same else ()
    print_plan(ready, len(outcomes), known_pace(outcomes))


def measure(ready: Prepared, out: Path, budget_minutes: float | None, retry_failed: bool) -> None:
    """Run a campaign and write its table.

    Raises:
        RappError: the journal or the table cannot be written, or no point could be measured.
        Exit: it was interrupted; the code is that of the signal.
    """
    info, request = ready.device.info, ready.request
    budget_s = None if budget_minutes is None else 60 * budget_minutes
    with Journal.open(out, ready.specification, retry_failed=retry_failed) as journal:
        brake = Brake(budget_s, virtual_time=info.virtual_time)
        progress = Progress(total(ready), journal.outcomes.values(), brake, at_most=bool(request.adaptive))
        campaign = Campaign(
            info,
            ready.rows_of,
            journal,
            request.rule,
            mode=ready.mode,
            seed=request.seed,
            brake=brake,
            watcher=progress,
        )
        with stopped_by_signals(brake) as received, progress.shown():
            try:
                halt = _run(campaign, ready)
            except KeyboardInterrupt:
                halt = Halt.INTERRUPTED
                brake.pull(halt)
            except RappError:
                # The journal is safe; the table may have what is in it, if the disk is not what failed.
                brake.pull(Halt.ERROR)
                with suppress(RappError):
                    if campaign.outcomes:
                        campaign.write(out)
                raise
        end(campaign, ready, out, halt, progress)
    if halt == Halt.INTERRUPTED:
        raise typer.Exit(128 + (received[0] if received else signal.SIGINT))


def _run(campaign: Campaign, ready: Prepared) -> Halt | None:
    """Measure what is left; why it stopped before the end, or None."""
    adaptive = ready.request.adaptive
    device = ready.device
    if isinstance(device, RayCluster):
        return device.run(campaign)
    if adaptive is None:
        return campaign.run(device)
    from profiler.adaptive import predictor_rule

    info = device.info

    def rule_of(network: NetworkFile) -> PointRule:
        return predictor_rule(
            artifact_folder(adaptive.predictor),
            network,
            info.quota_kind,
            info.idle_ms,
            adaptive.target_pct,
            adaptive.most_points,
        )

    return run_adaptively(campaign, ready.plans, device, rule_of, adaptive.most_points)


@contextmanager
def stopped_by_signals(brake: Brake) -> Iterator[list[int]]:
    """Let the first Ctrl-C, or SIGTERM, pull the brake, and a second one end the point in flight.

    Yields:
        The signals that came.
    """
    received: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        brake.pull(Halt.INTERRUPTED)
        if len(received) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
