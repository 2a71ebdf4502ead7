"""`rapp autoscale`: the scaler on a live backend."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# The scaler loads inside the function, so that `rapp --help` stays fast.


def autoscale(
    functions: Annotated[Path, typer.Argument(help="What is served, functions.yaml.", show_default=False)],
    plan: Annotated[
        str,
        typer.Option(
            help="Predicted times: an artifact, a table *.parquet, or constant:DEVICE_MS[,HOST_MS].",
            show_default=False,
        ),
    ],
    backend: Annotated[str, typer.Option(help="What runs the instances: local, ray, kubernetes.")] = "local",
    calibration: Annotated[
        Path | None, typer.Option(help="Measured points for an artifact.", show_default=False)
    ] = None,
    policy: Annotated[str, typer.Option(help="What decides.")] = "hybrid",
    forecaster: Annotated[str, typer.Option(help="Of arrival rates.")] = "kalman",
    apply: Annotated[
        bool, typer.Option("--apply", help="Make the changes; without it they are advice.")
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(
            help="local: of `rapp serve`, default http://127.0.0.1:8000. kubernetes: of the gateway.",
            show_default=False,
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="Token of the admin interface at --url. Default: RAPP_ADMIN_TOKEN; local: where"
            " `rapp serve` puts it.",
            show_default=False,
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Of the cluster, default auto.", show_default=False, rich_help_panel="Ray"),
    ] = None,
    template: Annotated[
        Path | None,
        typer.Option(help="Pods to make, YAML.", show_default=False, rich_help_panel="Kubernetes"),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(help="Of the pods.", show_default=False, rich_help_panel="Kubernetes")
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="Of the kubeconfig.", show_default=False, rich_help_panel="Kubernetes")
    ] = None,
    app: Annotated[
        str | None,
        typer.Option(
            help="Whose pods these are, default rapp.", show_default=False, rich_help_panel="Kubernetes"
        ),
    ] = None,
    nodes: Annotated[
        str | None,
        typer.Option(help="Labels of the nodes, a=b,c=d.", show_default=False, rich_help_panel="Kubernetes"),
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="File of what was learned, for a restart.", show_default=False)
    ] = None,
    lease: Annotated[
        Path | None,
        typer.Option(help="local: file of the lease; default: one a user and server.", show_default=False),
    ] = None,
    lease_s: Annotated[
        float | None,
        typer.Option(
            help="A leader that does nothing for so long leads no more, s; default 5, kubernetes 15.",
            show_default=False,
        ),
    ] = None,
    tick_s: Annotated[float, typer.Option("--tick", help="Time between two decisions, s.")] = 1.0,
    quantile: Annotated[float, typer.Option(help="Of the rate that is planned for, in [0.5, 1).")] = 0.95,
    risk: Annotated[
        str, typer.Option(help="Plan with the mean of execution times or their upper end.")
    ] = "upper",
    most_gpus: Annotated[int | None, typer.Option(help="Most GPUs to use.", show_default=False)] = None,
    log: Annotated[
        Path | None,
        typer.Option(help="Append all that is seen and decided, JSON lines.", show_default=False),
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Serve metrics for Prometheus.", show_default=False)
    ] = None,
    metrics_host: Annotated[str, typer.Option(help="Address of the metrics.")] = "127.0.0.1",
    each_tick: Annotated[
        bool, typer.Option("--each-tick", help="Print ticks at which nothing is to be changed, too.")
    ] = False,
    ticks: Annotated[
        int | None, typer.Option(min=1, help="End after so many ticks.", show_default=False)
    ] = None,
) -> None:
    """Decide how many instances of what size, as `rapp replay` does, on a live backend.

    Without --apply it prints what it would do, and changes nothing. JSON lines
    go to stdout, warnings to stderr. Of several with --apply one leads; when
    it ends, another goes on. Serving needs none of them: instances serve on.
    SIGTERM or Ctrl-C ends it, and lets the next one lead at once.
    """
    from rapp.errors import ConfigError
    from rapp.recommend import Risk
    from scaler.backends.opening import Where
    from scaler.core.settings import Settings
    from scaler.forecast.registry import forecaster as forecaster_of
    from scaler.functions import read_functions
    from scaler.live import autoscale as live
    from scaler.sources.opening import open_source

    if risk not in tuple(Risk):
        raise ConfigError(f"--risk {risk}: it is {' or '.join(Risk)}")
    live.log_to_stderr()
    live.autoscale(
        live.Autoscaling(
            functions=read_functions(functions),
            plan=open_source(plan, calibration=calibration),
            forecaster=forecaster_of(forecaster),
            policy=live.live_policy(policy),
            where=Where(
                backend, url, token_file, address, namespace, context, template, app, nodes, lease
            ),
            settings=Settings(tick_s=tick_s, quantile=quantile, risk=Risk(risk), most_gpus=most_gpus),
            apply=apply,
            lease_s=lease_s,
            state=state,
            log=log,
            metrics_port=metrics_port,
            metrics_host=metrics_host,
            each_tick=each_tick,
            most_ticks=ticks,
        )
    )  # fmt: skip
