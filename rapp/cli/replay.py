"""`rapp replay`: policies under a request trace, simulated request by request."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

_TRACE, _PLANNING, _HARDWARE = "Trace", "Planning", "Simulated hardware"
_CHAOS, _OUTPUT = "Chaos", "Output"

# numpy and the scaler load inside the function, so that `rapp --help` stays fast.


class _Arrivals(StrEnum):
    EVEN = "even"
    POISSON = "poisson"


class _Risk(StrEnum):
    MEAN = "mean"
    UPPER = "upper"


class _Quota(StrEnum):
    GPU_TIME = "gpu_time"
    LAUNCH_GATE = "launch_gate"


def replay(
    functions: Annotated[Path, typer.Option(help="functions.yaml.", show_default=False)],
    trace: Annotated[
        str, typer.Option(help="A trace, *.csv, *.json or *.json#workload.", show_default=False)
    ],
    truth: Annotated[
        str,
        typer.Option(
            help="Execution times as they are: a profile table, an artifact, or constant:D_MS[,H_MS].",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for report, tables and summary.", show_default=False, rich_help_panel=_OUTPUT
        ),
    ] = None,
    policy: Annotated[
        str,
        typer.Option(
            help="Of hybrid, has-gpu, fast-gshare, fast-gshare-best, whole-gpu, static, oracle: a,b."
        ),
    ] = "hybrid",
    plan: Annotated[
        str | None,
        typer.Option(
            help="Execution times as planned with; default: the truth.",
            show_default=False,
            rich_help_panel=_PLANNING,
        ),
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="How many GPUs there are.", rich_help_panel=_HARDWARE)] = 4,
    gpu_memory_mib: Annotated[
        float, typer.Option(help="Memory of each for instances, MiB.", rich_help_panel=_HARDWARE)
    ] = 16_384.0,
    gpu_host_cores: Annotated[
        float, typer.Option(help="Cores for launching on each.", rich_help_panel=_HARDWARE)
    ] = 8.0,
    scale: Annotated[
        float, typer.Option(help="How many times as many requests.", rich_help_panel=_TRACE)
    ] = 1.0,
    arrivals: Annotated[
        _Arrivals, typer.Option(help="How they come at a given rate.", rich_help_panel=_TRACE)
    ] = _Arrivals.POISSON,
    from_s: Annotated[
        float | None,
        typer.Option(
            "--from",
            help="Begin of the part to use, s of the file.",
            show_default=False,
            rich_help_panel=_TRACE,
        ),
    ] = None,
    to_s: Annotated[
        float | None,
        typer.Option(
            "--to", help="End of the part to use, s of the file.", show_default=False, rich_help_panel=_TRACE
        ),
    ] = None,
    repeat: Annotated[
        int, typer.Option(min=1, help="How often that part comes, one after another.", rich_help_panel=_TRACE)
    ] = 1,
    slo_multipliers: Annotated[
        str | None,
        typer.Option(
            help="Count violations at these multiples of the base latency too: 1.5,2,3.",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    seeds: Annotated[
        str, typer.Option(help="Of arrivals, noise and crashes: 0,1,2.", rich_help_panel=_TRACE)
    ] = "0",
    forecaster: Annotated[
        str, typer.Option(help="last-value, kalman or seasonal.", rich_help_panel=_PLANNING)
    ] = "kalman",
    season_s: Annotated[
        float, typer.Option(help="Length of the season of `seasonal`, s.", rich_help_panel=_PLANNING)
    ] = 86_400.0,
    risk: Annotated[
        _Risk,
        typer.Option(
            help="Plan with the mean of predicted times, or the upper end of their interval.",
            rich_help_panel=_PLANNING,
        ),
    ] = _Risk.UPPER,
    quantile: Annotated[
        float, typer.Option(help="Of the rate that is planned for, in [0.5, 1).", rich_help_panel=_PLANNING)
    ] = 0.95,
    tick: Annotated[
        float, typer.Option(help="Time between two decisions, s.", rich_help_panel=_PLANNING)
    ] = 1.0,
    cold_start: Annotated[
        float | None,
        typer.Option(
            help="Instead of cold_start_s of each function, s.", show_default=False, rich_help_panel=_PLANNING
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Measured points for the artifact planned with.",
            show_default=False,
            rich_help_panel=_PLANNING,
        ),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            help="An artifact that tells the truth device times that launching hides, or none; default:"
            " that of --plan.",
            show_default=False,
            rich_help_panel=_HARDWARE,
        ),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="Pair table: how networks on one GPU slow each other.",
            show_default=False,
            rich_help_panel=_HARDWARE,
        ),
    ] = None,
    beside: Annotated[
        float,
        typer.Option(
            min=1.0,
            help="Slowing beside a busy row, of pairs without a measurement.",
            rich_help_panel=_HARDWARE,
        ),
    ] = 1.10,
    quota_semantics: Annotated[
        _Quota,
        typer.Option(
            help="What quotas limit. launch_gate does not compare with gpu_time.", rich_help_panel=_PLANNING
        ),
    ] = _Quota.GPU_TIME,
    crash_every: Annotated[
        float | None,
        typer.Option(
            help="An instance crashes every so often, s.", show_default=False, rich_help_panel=_CHAOS
        ),
    ] = None,
    crash_at: Annotated[
        str | None,
        typer.Option(
            help="One crashes at these times: 60,90, s.", show_default=False, rich_help_panel=_CHAOS
        ),
    ] = None,
    lose_gpu: Annotated[
        list[str] | None,
        typer.Option(help="Lose a GPU: T:GPU, as 300:gpu-1, s.", show_default=False, rich_help_panel=_CHAOS),
    ] = None,
    blind: Annotated[
        list[str] | None,
        typer.Option(
            help="No observations: FROM:TO, as 100:120, s.", show_default=False, rich_help_panel=_CHAOS
        ),
    ] = None,
    model_factor: Annotated[
        float, typer.Option(help="Planned execution times are wrong by this factor.", rich_help_panel=_CHAOS)
    ] = 1.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON for a program.", rich_help_panel=_OUTPUT)
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace results in --out.", rich_help_panel=_OUTPUT)
    ] = False,
) -> None:
    """Replay a request trace against autoscaling policies, request by request.

    Each policy decides through the same core as a live controller and sees no
    more than one. The table shows cost and violations; --out gets report.html,
    the series and every change with its reason as parquet, and summary.json.
    """
    from rapp.cli import replay_view
    from rapp.cli.tables import note
    from rapp.recommend import Risk
    from rapp.types import QuotaKind
    from scaler.arrivals import ArrivalProcess
    from scaler.replay import options
    from scaler.replay.compiling import COMPILED
    from scaler.replay.inputs import Inputs
    from scaler.replay.outputs import check_folder, summary, write_outputs
    from scaler.replay.runner import replay as run
    from scaler.replay.setup import Gpus

    names = options.policies(policy)
    listed = options.seeds(seeds)
    if out is not None:
        check_folder(out, force)
    inputs = Inputs(
        functions=functions,
        trace=trace,
        truth=truth,
        plan=plan,
        prior=prior,
        calibration=calibration,
        scale=scale,
        from_s=from_s,
        to_s=to_s,
        repeat=repeat,
        arrivals=ArrivalProcess(arrivals),
        quota_kind=QuotaKind(quota_semantics),
        forecaster=forecaster,
        season_s=season_s,
        risk=Risk(risk),
        tick_s=tick,
        quantile=quantile,
        cold_start_s=cold_start,
        gpus=Gpus(gpus, gpu_memory_mib, gpu_host_cores),
        physics=options.physics(beside),
        pairs=pairs,
        chaos=options.chaos(crash_every, crash_at, lose_gpu or (), blind or (), model_factor),
        slo_multipliers=options.multipliers(slo_multipliers),
    )
    setups = inputs.setups(listed)
    if not COMPILED:
        note("numba is not installed: replays are slow without it: pip install 'rapp[fast]'")
    runs = [(setup, setup.policy(name)) for name in names for setup in setups]
    results = []
    with replay_view.progress(setups[0].end_s, len(runs)) as shown:
        for setup, chosen in runs:
            told = shown(chosen.name if len(setups) == 1 else f"{chosen.name}, seed {setup.seed}")
            results.append(run(setup, chosen, progress=told))
    about = inputs.about(setups[0], names, listed)
    if out is not None:
        from scaler.replay.report import replay_html

        write_outputs(out, results, about, replay_html(results, about))
    if as_json:
        typer.echo(json.dumps(summary(results, about), indent=2))
    else:
        replay_view.show(results, about)
        if out is not None:
            typer.echo(f"{out}: report.html, summary.json, {{series,instances,changes}}.parquet")
