"""Run a server: listen, prepare, start instances, serve until SIGTERM, finish, and end.

with listening("127.0.0.1", 8000) as sock:
    run_server(ServerOptions(functions, sock, token))
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import uvicorn
import uvloop

from rapp.errors import RappError
from scaler.functions import FunctionSpec
from scaler.serving.devices import CpuDevice, open_device
from scaler.serving.fleet import Fleet
from scaler.serving.folder import network_folder
from scaler.serving.gateway import TIMEOUT_S, Gateway
from scaler.serving.http import KEEP_ALIVE_S, LimitedProtocol
from scaler.serving.initial import initial_decision
from scaler.serving.memory import Tidying, keep_memory
from scaler.serving.preparation import prepare_all

_BACKLOG = 2048
_GRACE_S = 30
"""For requests to finish after SIGTERM, s; the deadline of a request that names none is as long."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What is served, and how.

    Args:
        functions: of functions.yaml. device: `cpu` or `cuda:<which>`. token: of the admin interface.
        timeout_s: deadline of a request that names none, s.
        on_start: called with the fleet when it serves; instances still start then.
        log: called with each line of the log.
    """

    functions: tuple[FunctionSpec, ...]
    token: str
    device: str = "cpu"
    timeout_s: float = TIMEOUT_S
    on_start: Callable[[Fleet], None] = lambda fleet: None
    log: Callable[[str], None] = lambda line: None


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens; port 0: any that is free.

    Raises:
        RappError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
            sock.listen(_BACKLOG)
        except OSError as error:
            raise RappError(
                f"cannot listen on {host}, port {port}: {error.strerror or error}: name another --port"
            ) from error
        yield sock


def run_server(options: ServerOptions, sock: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; a second one does not wait for requests.

    Raises:
        RappError: the device cannot be had, or a network cannot be served.
    """
    keep_memory()
    _allow_connections()
    # Before it serves there is nothing to finish: it ends by being cancelled.
    with (
        contextlib.suppress(asyncio.CancelledError),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_run(options, sock))


def _allow_connections() -> None:
    """Have as many descriptors as the system lets this user have; the usual 1,024 are that many clients."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _run(options: ServerOptions, sock: socket.socket) -> None:
    device = open_device(options.device)
    stop = _Stop()
    loop = asyncio.get_running_loop()
    # After the device, which handles signals as long as nobody else does.
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        with network_folder() as folder:
            networks = await prepare_all(options.functions, folder)
            fleet = Fleet(options.functions, networks, device)
            fleet.log = options.log
            await _serve(fleet, options, sock, stop)
    finally:
        device.close()


async def _serve(fleet: Fleet, options: ServerOptions, sock: socket.socket, stop: _Stop) -> None:
    units = int(fleet.device.view.host_cores) if isinstance(fleet.device, CpuDevice) else None
    memory_mib = {name: one.memory_mib for name, one in fleet.functions.items()}
    decision = initial_decision(options.functions, memory_mib, fleet.device, units)
    gateway = Gateway(fleet, options.token, options.timeout_s)
    server = _Server(_config(gateway))
    tidying = Tidying(function.arena for function in fleet.functions.values())
    try:
        refused = fleet.apply(decision)
        assert not refused, f"what fits is not refused: {refused}"
        stop.server = server
        options.on_start(fleet)
        for line in _warnings(fleet):
            options.log(line)
        # What was made until now stays; looking through it again and again would hold up requests.
        gc.collect()
        gc.freeze()
        await server.serve(sockets=[sock])
        options.log("the server stops")
    finally:
        tidying.close()
        gateway.close()
        await fleet.close()


def _warnings(fleet: Fleet) -> Iterator[str]:
    """What an operator should know of the functions as they are."""
    for name, function in fleet.functions.items():
        if function.slo_ms is None:
            yield (
                f"function {name}: slo_multiplier counts from a latency that is not measured here: without"
                " slo_ms no answer is counted as late"
            )
        if not function.instances:
            yield f"function {name}: has no instance: its requests wait until a controller starts one"


class _Stop:
    """What a signal does: end the server, or this task while there is none."""

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self.server: uvicorn.Server | None = None

    def __call__(self) -> None:
        if self.server is None:
            assert self._task is not None
            self._task.cancel()
            return
        self.server.force_exit = self.server.should_exit
        self.server.should_exit = True


class _Server(uvicorn.Server):
    """Leaves signals to `_Stop`: uvicorn would raise them once more at the end, and not exit with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(gateway: Gateway) -> uvicorn.Config:
    return uvicorn.Config(
        gateway,
        http=LimitedProtocol,
        ws="none",
        lifespan="off",
        loop="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
    )
