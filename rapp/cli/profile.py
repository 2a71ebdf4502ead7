"""`rapp profile`: measure networks over SM partition, time quota and batch."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rapp.cli.ranges import batches, percents
from rapp.errors import ConfigError
from rapp.types import ResourceGrid

# profiler, onnx and pyarrow load inside the functions, so that `rapp --help` stays fast.


class Mode(StrEnum):
    """Of `--quota-mode`; the same words as `profiler.plan.QuotaMode`."""

    DERIVE = "derive"
    MEASURE = "measure"


ALL_SM = "5:100:5"

_MEASURING, _CAMPAIGN, _ADAPTIVE = "Measuring", "Campaign", "Adaptive sampling"


def profile(
    networks: Annotated[
        list[str] | None,
        typer.Argument(
            help="ONNX files. With replay also names in its table; none: all of them.", show_default=False
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            help="cpu: this machine. cuda:0 or cuda:UUID: a GPU. replay:TABLE: a profile table answers, with"
            " log-normal noise: replay:v100.parquet?run=0.029&process=0.058&seed=0 has the defaults.",
            show_default=False,
        ),
    ] = ...,  # type: ignore[assignment]
    out: Annotated[
        Path,
        typer.Option(
            help="The profile table to write, *.parquet. Beside it OUT.journal: the same command goes on.",
            show_default=False,
        ),
    ] = ...,  # type: ignore[assignment]
    sm: Annotated[
        str, typer.Option(help="SM partitions, %: first:last:step, or a list such as 10,50,100.")
    ] = ALL_SM,
    quota: Annotated[str, typer.Option(help="Time quotas, %; written alike.")] = "10:100:10",
    batch: Annotated[
        str, typer.Option(help="Batches; written alike. A fixed batch skips the others.")
    ] = "1,2,4,8",
    quota_mode: Annotated[
        Mode | None,
        typer.Option(
            help="measure: run every quota. derive: run quota 100 % and a few others, compute the rest"
            " from them. Default: derive on cuda, measure elsewhere and with --adaptive.",
            show_default=False,
        ),
    ] = None,
    idle_ms: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Pause between one batch and the next, ms; a replay has its table's. Default: 0.",
            show_default=False,
        ),
    ] = None,
    window_ms: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Window of the quota, ms; a replay has its table's. Default: 40.",
            show_default=False,
        ),
    ] = None,
    stop_width: Annotated[
        float,
        typer.Option(
            min=0.01,
            help="A point is done when the 95 % interval of its median is this narrow: half of it, %.",
            rich_help_panel=_MEASURING,
        ),
    ] = 1.0,
    max_samples: Annotated[
        int, typer.Option(min=20, help="Batches timed for a point, at most.", rich_help_panel=_MEASURING)
    ] = 500,
    max_seconds: Annotated[
        float,
        typer.Option(
            min=0.1,
            help="Time for the batches of a point, and at most for its warm-up, s.",
            rich_help_panel=_MEASURING,
        ),
    ] = 30.0,
    timeout_s: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="A worker that does not answer for so long is ended, s; ignored by replay. Default: 300.",
            show_default=False,
            rich_help_panel=_MEASURING,
        ),
    ] = None,
    anchors: Annotated[
        bool,
        typer.Option(
            help="Measure SM 100 %, quota 100 % at start, middle and end of a network, to see drift.",
            rich_help_panel=_MEASURING,
        ),
    ] = True,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the order of partitions.", rich_help_panel=_CAMPAIGN)
    ] = 0,
    budget_minutes: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Stop cleanly after so long, min; with replay, of the time that its table tells.",
            show_default=False,
            rich_help_panel=_CAMPAIGN,
        ),
    ] = None,
    plan_only: Annotated[
        bool,
        typer.Option(
            "--plan-only",
            help="Print points, minutes and memory; measure nothing.",
            rich_help_panel=_CAMPAIGN,
        ),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="Try points again that failed in an earlier run.",
            rich_help_panel=_CAMPAIGN,
        ),
    ] = False,
    named: Annotated[
        str | None,
        typer.Option(
            "--networks",
            help="Names in the table of a replay: a,b,c; refused by other devices.",
            show_default=False,
            rich_help_panel=_CAMPAIGN,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Spread the work over a Ray cluster, one GPU a worker: auto, HOST:PORT or ray://HOST:PORT."
            " --device is cuda, cpu (each node as a whole) or replay:TABLE.",
            show_default=False,
            rich_help_panel=_CAMPAIGN,
        ),
    ] = None,
    pair: Annotated[
        Path | None,
        typer.Option(
            help="Measure one network beside this one instead, at quota 100 %: how much each slows the other."
            " --sm: partition of both, or one for each (50); --batch: of both. OUT is a pair table, .csv or"
            " .parquet, to which rows are added. Options of campaigns and quotas are ignored.",
            show_default=False,
            rich_help_panel="Side by side",
        ),
    ] = None,
    adaptive: Annotated[
        bool,
        typer.Option(
            "--adaptive",
            help="Measure the points of the grid that --predictor would learn most from.",
            rich_help_panel=_ADAPTIVE,
        ),
    ] = False,
    predictor: Annotated[
        Path | None,
        typer.Option(
            help="A predictor artifact such as models/v100; needed by --adaptive alone.",
            show_default=False,
            rich_help_panel=_ADAPTIVE,
        ),
    ] = None,
    target_pct: Annotated[
        float,
        typer.Option(
            min=0.1,
            help="Stop at this predicted error, %; ignored without --adaptive.",
            rich_help_panel=_ADAPTIVE,
        ),
    ] = 4.0,
    max_points: Annotated[
        int,
        typer.Option(
            min=1,
            help="Points of a network, at most; ignored without --adaptive.",
            rich_help_panel=_ADAPTIVE,
        ),
    ] = 40,
) -> None:
    """Measure networks over SM partition x time quota x batch on a device.

    Every point is in OUT.journal as soon as it ends, so a run that is stopped by
    whatever loses one point at most, and the same command goes on. Ctrl-C ends
    after the point in flight, a second one at once (exit code 130). OUT is
    written whole: at the end, and at every clean stop.
    """
    from profiler.devices.opening import DeviceSettings
    from profiler.measure import StopRule
    from profiler.plan import QuotaMode
    from profiler.request import Adaptive, Request, prepared
    from rapp.cli.profile_run import measure, show_plan

    if out.is_dir():
        raise ConfigError(f"{out} is a folder: --out names the file to write")
    if adaptive != (predictor is not None):
        raise ConfigError("--adaptive and --predictor ARTIFACT belong together: give both, or neither")
    asked = [*(networks or []), *(name.strip() for name in (named or "").split(",") if name.strip())]
    if named is not None and not device.startswith("replay:"):
        raise ConfigError("--networks names networks of a replayed table: give ONNX files as arguments")
    settings = DeviceSettings(idle_ms, window_ms, timeout_s)
    rule = StopRule(
        relative_half_width=stop_width / 100,
        max_samples=max_samples,
        max_seconds=max_seconds,
        # A point that may take little time must not spend more of it before the first sample.
        warm_up_seconds=min(StopRule().warm_up_seconds, max_seconds),
    )
    sm_pct, batch_sizes = percents(sm, "--sm"), batches(batch, "--batch")
    if pair is not None:
        if adaptive or ray is not None:
            other = "--adaptive" if adaptive else "--ray"
            raise ConfigError(f"--pair measures two networks on one device: leave {other} out")
        from rapp.cli.profile_pair import HALVES, measure_pair

        halves = HALVES if sm == ALL_SM else sm_pct
        measure_pair((*asked, str(pair)), device, settings, halves, batch_sizes, rule, out)
        return
    request = Request(
        networks=tuple(dict.fromkeys(asked)),
        device=device,
        grid=ResourceGrid(sm_pct, percents(quota, "--quota"), batch_sizes),
        settings=settings,
        rule=rule,
        mode=None if quota_mode is None else QuotaMode(quota_mode.value),
        seed=seed,
        anchors=anchors,
        adaptive=Adaptive(predictor, target_pct, max_points) if predictor is not None else None,
        ray=ray,
    )
    with prepared(request) as ready:
        if plan_only:
            show_plan(ready, out)
        else:
            measure(ready, out, budget_minutes, retry_failed)
