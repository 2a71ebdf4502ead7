"""The controller of a trial, in a process of its own, and what it saw and did."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from rapp.errors import RappError
from rapp.types import ResourceConfig
from scaler.arrivals import RateSteps
from scaler.core.decision import Resize, Start
from scaler.core.settings import Settings
from scaler.functions import FunctionSpec
from scaler.live.rehearsal import Rehearsed
from scaler.live.tick import Happening, Mode, Tick
from scaler.sources.base import LatencySource
from scaler.sources.opening import open_source
from scaler.sources.scaled import Scaled

END_S = 30.0
"""For the controller to end its tick and say what it saw."""


@dataclass(frozen=True, slots=True)
class Controlled:
    """What a controller is made of; a process of its own makes it anew.

    Args:
        functions: those served. plan: a profile table, or what else `open_source` takes.
        rehearsed: by function, what the server adds to the plan.
        policy: name of the policy. forecaster: name of the forecaster. settings: of the core.
        demand: by function the rate that comes, for policies that know it beforehand.
    """

    functions: tuple[FunctionSpec, ...]
    plan: str
    rehearsed: Mapping[str, Rehearsed]
    policy: str
    forecaster: str
    settings: Settings
    demand: Mapping[str, RateSteps]

    def source(self) -> LatencySource:
        """Execution times as rehearsed.

        Raises:
            RappError: as `open_source`.
        """
        factors = {name: one.factor for name, one in self.rehearsed.items()}
        return Scaled(open_source(self.plan), factors)


@dataclass(frozen=True, slots=True)
class Sample:
    """One tick.

    Args:
        at_s: on the monotonic clock, which processes of a machine share.
        gpu_share: sum over instances of SM share x quota from then on, its changes included.
        instances: how many. starts, resizes, drains: changes made at it.
    """

    at_s: float
    gpu_share: float
    instances: int
    starts: int
    resizes: int
    drains: int


@contextmanager
def controlling(given: Controlled, url: str, token_file: Path) -> Iterator[list[Sample]]:
    """Run a controller while the block runs; the list is filled when it ends.

    Raises:
        RappError: the controller ended with an error; its last line.
    """
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_control, args=(given, url, token_file, stop, theirs), daemon=True)
    process.start()
    theirs.close()
    samples: list[Sample] = []
    try:
        yield samples
    finally:
        stop.set()
        answer = _answer(ours)
        process.join(END_S)
        if process.is_alive():
            process.kill()
    if isinstance(answer, str):
        raise RappError(f"the controller of {given.policy} ended: {answer}")
    samples += answer


def gpu_seconds(samples: list[Sample], from_s: float, to_s: float) -> float:
    """Cost between two times: what each tick set, until the next one."""
    total = 0.0
    for place, one in enumerate(samples):
        until_s = samples[place + 1].at_s if place + 1 < len(samples) else to_s
        total += one.gpu_share * max(min(until_s, to_s) - max(one.at_s, from_s), 0.0)
    return total


class Samples:
    """A reporter that keeps a sample a tick."""

    def __init__(self) -> None:
        self.kept: list[Sample] = []

    def on_tick(self, tick: Tick) -> None:
        """As `Reporter.on_tick`."""
        refused = {id_ for id_, _ in tick.refused}
        made = [one for one in tick.decision.actions if one.id not in refused]
        made = made if tick.mode == Mode.APPLIED else []
        there = {one.id: one.config for one in tick.seen.instances}
        for one in made:
            if isinstance(one, Start):
                there[one.id] = one.config
            elif isinstance(one, Resize) and one.id in there:
                there[one.id] = ResourceConfig(there[one.id].sm_pct, one.quota_pct, one.batch)
        kinds = [one.kind for one in made]
        share = sum(config.gpu_share for config in there.values())
        counts = (kinds.count(kind) for kind in ("start", "resize", "drain"))
        self.kept.append(Sample(time.monotonic(), share, len(there), *counts))

    def on_happening(self, what: Happening, detail: str, number: int = 1) -> None:
        """As `Reporter.on_happening`."""


def _control(given: Controlled, url: str, token_file: Path, stop: Event, out: Connection) -> None:
    """The process: a controller, until `stop`."""
    import signal

    from scaler.backends.local import Local
    from scaler.core.step import Core
    from scaler.forecast.registry import forecaster
    from scaler.live.controller import Controller
    from scaler.live.recorder import Recorder
    from scaler.policies import registry
    from scaler.replay.setup import KNOW_DEMAND

    # Ctrl-C reaches the whole group; who started this tells it to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kept = Samples()
    try:
        source = given.source()
        options: dict[str, Any] = {"demand": given.demand} if given.policy in KNOW_DEMAND else {}
        core = Core(
            given.functions,
            {spec.name: source.times(spec) for spec in given.functions},
            forecaster(given.forecaster),
            registry.policy(given.policy, **options),
            given.settings,
        )
        backend = Local.at(url, token_file)
        controller = Controller(core, backend, apply=True, reporters=(kept, Recorder(backend)))
        controller.run(stop)
    except RappError as error:
        out.send(str(error))
        return
    out.send(kept.kept)


def _answer(ours: Connection) -> list[Sample] | str:
    try:
        if ours.poll(END_S):
            answer: list[Sample] | str = ours.recv()
            return answer
        return f"it does not end within {END_S:g} s"
    except EOFError:
        return "its process was lost"
