"""`autoscale`: a controller put together from what a user wrote, run until a signal comes."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from rapp.errors import ConfigError
from scaler.backends.opening import LEASE_S, Where, open_backend, open_lease
from scaler.core.settings import Settings
from scaler.core.step import Core
from scaler.forecast.base import Forecaster
from scaler.functions import FunctionSpec
from scaler.live.advice import Advice, FullLog
from scaler.live.clock import Stop
from scaler.live.collecting import keep_what_is_built
from scaler.live.controller import Controller
from scaler.live.recorder import EVERY_S, Recorder, Records
from scaler.live.state_file import StateFile
from scaler.live.tick import Reporter
from scaler.policies.base import Policy
from scaler.sources.base import LatencySource


def live_policy(name: str) -> Policy:
    """The policy of this name, if it can do without knowing the demand beforehand.

    Raises:
        ConfigError: there is none, or only a replay can tell it what will come.
    """
    from scaler.policies import registry
    from scaler.replay.setup import KNOW_DEMAND

    if name in KNOW_DEMAND:
        raise ConfigError(f"policy {name}: it has to know the demand beforehand: only `rapp replay` has that")
    return registry.policy(name)


def log_to_stderr() -> None:
    """Have warnings, and what happens inside, said on stderr."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("scaler").setLevel(logging.INFO)


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """What is controlled, and how.

    Args:
        functions: those served. plan: their predicted execution times.
        forecaster, policy, settings: as `Core`.
        where: the backend.
        apply: whether changes are made. lease_s: time after which a leader that does nothing leads no more.
        state: file of the state; None: none is kept.
        log: file of full JSON lines; None: none.
        metrics_port, metrics_host: of the metrics; None: none are served.
        each_tick: whether stdout has ticks at which nothing is to be changed.
        most_ticks: after which it ends; None: when a signal comes.

    Raises:
        ConfigError: a lease that lasts no longer than two ticks.
    """

    functions: tuple[FunctionSpec, ...]
    plan: LatencySource
    forecaster: Forecaster
    policy: Policy
    where: Where
    settings: Settings = field(default_factory=Settings)
    apply: bool = False
    lease_s: float | None = None
    state: Path | None = None
    log: Path | None = None
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"
    each_tick: bool = False
    most_ticks: int | None = None

    def __post_init__(self) -> None:
        if self.lease_s is not None and self.lease_s <= 2 * self.settings.tick_s:
            # It is renewed once a tick, and one renewal may be late.
            raise ConfigError(f"--lease-s {self.lease_s:g}: it must be above two ticks")

    @property
    def lease_duration_s(self) -> float:
        """Time after which a leader that does nothing leads no more, s."""
        default_s = max(LEASE_S[self.where.backend], 3 * self.settings.tick_s)
        return default_s if self.lease_s is None else self.lease_s


def autoscale(given: Autoscaling) -> None:
    """Control until SIGTERM or SIGINT; a second one ends the process at once.

    Everything is checked before the backend is asked for anything.

    Raises:
        RappError: what was given cannot be used.
    """
    core = Core(
        given.functions,
        {spec.name: given.plan.times(spec) for spec in given.functions},
        given.forecaster,
        given.policy,
        given.settings,
    )
    with contextlib.ExitStack() as opened:
        reporters: list[Reporter] = [Advice(sys.stdout, each_tick=given.each_tick)]
        if given.log is not None:
            log = FullLog(given.log)
            opened.callback(log.close)
            reporters.append(log)
        if given.metrics_port is not None:
            from scaler.live.metrics import Metrics

            metrics = Metrics()
            metrics.serve(given.metrics_port, given.metrics_host)
            reporters.append(metrics)
        served = core.served
        objective_ms = {name: one.slo_ms for name, one in served.items()}
        memory_mib = {name: one.memory_mib for name, one in served.items()}
        backend = open_backend(given.where, given.functions, objective_ms, memory_mib)
        opened.callback(backend.close)
        lease = open_lease(given.where, backend.name, given.lease_duration_s) if given.apply else None
        if isinstance(backend, Records):
            name = None if lease is None else lease.holder
            every_s = max(EVERY_S, given.settings.tick_s)
            reporters.append(Recorder(backend, controller=name, policy=given.policy.name, every_s=every_s))
        state_file = None if given.state is None else StateFile(given.state, backend.name)
        controller = Controller(
            core, backend, apply=given.apply, lease=lease, state_file=state_file, reporters=reporters
        )
        keep_what_is_built()
        with _stopped_by_signals() as stop:
            controller.run(stop, given.most_ticks)


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[Stop]:
    stop = Stop()
    before: dict[int, Any] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        signal.signal(number, before[number])
        stop.set()

    for number in (int(signal.SIGTERM), int(signal.SIGINT)):
        before[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
