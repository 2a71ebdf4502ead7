"""`rapp serve`: an inference server whose instances are resized while they serve."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from scaler.serving.fleet import Fleet

# The server loads inside the function, so that `rapp --help` stays fast.


def serve(
    functions: Annotated[Path, typer.Argument(help="What to serve, functions.yaml.", show_default=False)],
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0: any that is free.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    device: Annotated[str, typer.Option(help="What to run on: cpu, cuda:0, cuda:GPU-<uuid>.")] = "cpu",
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="Token of the admin interface, mode 0600; made if it is not there."
            " Default: RAPP_ADMIN_TOKEN, or else a file of this user and port.",
            show_default=False,
        ),
    ] = None,
    timeout_ms: Annotated[
        float, typer.Option(min=1, help="Deadline of a request without x-request-timeout-ms, ms.")
    ] = 30_000.0,
) -> None:
    """Serve networks over HTTP: KServe's Open Inference Protocol v2.

    Each instance is a process with its SM partition (on a CPU: cores), quota
    and batch. It starts `initial` of each function, or a fair share; a
    controller (`rapp autoscale --backend local`) changes them while it serves.
    SIGTERM or Ctrl-C ends it after the requests that it has.
    """
    from rapp.errors import MissingExtraError
    from scaler.functions import read_functions

    listed = read_functions(functions)
    try:
        from scaler.serving.server import ServerOptions, listening, run_server
        from scaler.serving.token import VARIABLE, checked, default_token_file, make_token_file
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "serve") from error
    with listening(host, port) as sock:
        port = sock.getsockname()[1]
        given = os.environ.get(VARIABLE)
        if token_file is None and given is not None:
            token, where = checked(given, VARIABLE), VARIABLE
        else:
            file = token_file or default_token_file(port)
            token, where = make_token_file(file), str(file)
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        options = ServerOptions(
            listed, token, device, timeout_ms / 1e3,
            on_start=lambda fleet: _show(fleet, url, where), log=_log,
        )  # fmt: skip
        run_server(options, sock)


def _show(fleet: Fleet, url: str, token_from: str) -> None:
    from rapp.cli.tables import console, ms, table

    out = console()
    made = table("function", "objective", "instance", "row", "SM", "quota", "batch", left=(0, 2))
    for name, function in fleet.functions.items():
        slo = "-" if function.slo_ms is None else f"{ms(function.slo_ms)} ms"
        first = (name[:20], slo)
        if not function.instances:
            made.add_row(*first, "none", "", "", "", "")
        for one in function.instances:
            config = one.config
            made.add_row(
                *first, one.id[:20], str(one.place.row),
                f"{config.sm_pct:g} %", f"{config.quota_pct:g} %", str(config.batch),
            )  # fmt: skip
            first = ("", "")
    out.print(made)
    gpu = fleet.device.view
    out.print(f"on {gpu.id}: {gpu.host_cores:g} cores, {gpu.memory_mib:,.0f} MiB")
    out.print(f"serving at {url}; token of the admin interface: {token_from}", soft_wrap=True)


def _log(line: str) -> None:
    from datetime import datetime

    typer.echo(f"{datetime.now().astimezone().isoformat(timespec='milliseconds')} {line}", err=True)
