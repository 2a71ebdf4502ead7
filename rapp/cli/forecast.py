"""`rapp forecast`: how well arrivals are forecast."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rapp.cli.tables import console, table

if TYPE_CHECKING:
    from scaler.forecast.backtest import Score

# numpy and the scaler load inside the function, so that `rapp --help` stays fast.

app = typer.Typer(help="Forecast arrivals.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def backtest(
    trace: Annotated[
        Path,
        typer.Option(help="A trace, *.csv, *.json or *.json#workload.", show_default=False),
    ],
    forecasters: Annotated[str, typer.Option(help="Which: a,b,c.")] = "last-value,kalman",
    horizon_s: Annotated[float, typer.Option(help="How far ahead, s: a cold start.")] = 5.0,
    quantile: Annotated[float, typer.Option(help="Of the upper end, in [0.5, 1).")] = 0.95,
    scale: Annotated[float, typer.Option(help="How many times as many requests.")] = 1.0,
    arrivals: Annotated[
        str, typer.Option(help="How they come at a given rate: even or poisson.")
    ] = "poisson",
    seed: Annotated[int, typer.Option(min=0, help="Of the arrivals.")] = 0,
    from_s: Annotated[
        float | None,
        typer.Option("--from", help="Begin of the part to use, s of the file.", show_default=False),
    ] = None,
    to_s: Annotated[
        float | None, typer.Option("--to", help="End of the part to use, s of the file.", show_default=False)
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="How often that part comes, one after another.")] = 1,
    score_from_s: Annotated[
        float | None,
        typer.Option(
            "--score-from", help="Score from here on, s of the file; learn before.", show_default=False
        ),
    ] = None,
    tick_s: Annotated[float, typer.Option(help="Time between two observations, s.")] = 1.0,
    season_s: Annotated[float, typer.Option(help="Length of the season of `seasonal`, s.")] = 86_400.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Score forecasters on a trace, at the horizon of a cold start.

    At each tick a forecaster sees the arrivals up to it; its forecast is held
    against the trace's rate in the tick one horizon later. bias: forecast less
    truth. cover: share of ticks with a rate of at most the upper end. excess:
    mean of the upper end less the rate. pinball: loss of the upper end at its
    quantile. All but cover in requests a second.
    """
    from rapp.errors import ConfigError
    from scaler.forecast import backtest as scoring
    from scaler.forecast.registry import forecaster
    from scaler.trace import ArrivalProcess, Trace

    if arrivals not in tuple(ArrivalProcess):
        raise ConfigError(f"--arrivals {arrivals}: it is even or poisson")
    names = [name.strip() for name in forecasters.split(",") if name.strip()]
    if not names:
        raise ConfigError("--forecasters names none")
    chosen = [forecaster(name, season_s=season_s) for name in names]
    used = Trace.read(trace).window(from_s, to_s).scaled(scale).repeated(repeat)
    scores = scoring.backtest(
        used,
        chosen,
        process=ArrivalProcess(arrivals),
        seed=seed,
        horizon_s=horizon_s,
        quantile=quantile,
        tick_s=tick_s,
        score_from_s=score_from_s,
    )
    if as_json:
        head = {
            "version": 1, "trace": str(trace), "scale": scale, "arrivals": arrivals, "seed": seed,
            "horizon_s": horizon_s, "quantile": quantile, "tick_s": tick_s,
        }  # fmt: skip
        typer.echo(json.dumps(head | {"scores": [asdict(score) for score in scores]}, indent=2))
        return
    _print(scores, trace.name, f"{horizon_s:g} s ahead · upper end at {quantile:g} · {arrivals} arrivals")


def _print(scores: list[Score], title: str, settings: str) -> None:
    from rich.text import Text

    out = console()
    several = len({score.function for score in scores}) > 1
    out.print(Text(title, style="bold"))
    out.print(settings)
    made = table(
        *(["function"] if several else []),
        "forecaster", "rate", "MAE", "bias", "RMSE", "cover", "excess", "pinball",
        left=(0, 1) if several else (0,),
    )  # fmt: skip
    for one in scores:
        figures = (one.rate_rps, one.mae_rps, one.bias_rps, one.rmse_rps)
        made.add_row(
            *([one.function] if several else []),
            one.forecaster,
            *(_rps(value) for value in figures),
            f"{100 * one.coverage:.1f} %",
            _rps(one.excess_rps),
            _rps(one.pinball_rps),
        )
    out.print(made)
    out.print(f"{scores[0].forecasts:,} forecasts each; rates and errors in requests a second")


def _rps(value: float) -> str:
    return f"{value:,.3f}" if abs(value) < 10 else f"{value:,.1f}"
