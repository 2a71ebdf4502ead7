"""The soak of scripts/bench_serving.py: load for a long time while quota, batch and instances change."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench_serving_measure import saturation
from bench_serving_servers import Case, Running, running, version_of

from rapp.types import ResourceConfig
from scaler.backends.local import Local
from scaler.core.decision import Action, Decision, Drain, Reason, Resize, Start
from scaler.core.observation import InstanceView, Phase
from scaler.live.load import LoadOptions, LoadProgress, run_load
from scaler.trace import ArrivalProcess, Trace

SHARE = 0.6
CHANGE_S = 2.0
QUOTAS_PCT = (100.0, 80.0, 90.0, 70.0)
"""Of the first instance; never less than the load needs."""
MOVE_EVERY = 10
"""Every so many changes an instance is started, and the older one is drained when it is ready."""


class Changer(threading.Thread):
    """Changes something every two seconds, and takes down how much memory the server has."""

    def __init__(self, server: Running, case: Case) -> None:
        super().__init__(daemon=True)
        self.server, self.case = server, case
        self.over = threading.Event()
        self.changes = self.moves = 0
        self.refused: list[tuple[str, str]] = []
        self.memory_mib: list[tuple[float, float]] = []
        self.failure: BaseException | None = None
        self._told = 0

    def tell(self, now: LoadProgress) -> None:
        """A line a minute."""
        if now.passed_s >= 60 * (self._told + 1) and now.passed_s < now.duration_s:
            self._told += 1
            print(
                f"{now.passed_s:.0f} s: {now.answered} answered, {now.refused} refused, {now.failed} failed,"
                f" {self.changes} changes",
                flush=True,
            )

    def run(self) -> None:
        try:
            backend = Local.at(self.server.url, self.server.token_file)
            begun_s = time.monotonic()
            for number in itertools.count():
                if self.over.wait(CHANGE_S):
                    return
                there = backend.observe().instances
                if [one.phase for one in there] == [Phase.READY]:
                    # With one worker each time: two have more.
                    self.memory_mib.append((time.monotonic() - begun_s, self.server.memory_mib()))
                self._change(backend, number, [one for one in there if one.phase == Phase.READY])
        except BaseException as error:
            self.failure = error

    def _change(self, backend: Local, number: int, there: list[InstanceView]) -> None:
        if not there:
            return
        oldest = min(there, key=lambda one: one.since_s)
        actions: list[Action] = []
        if len(there) > 1:
            actions.append(Drain(oldest.id, oldest.function, Reason.POLICY))
        elif number % MOVE_EVERY == MOVE_EVERY - 1:
            config = ResourceConfig(oldest.config.sm_pct, 100.0, self.case.batch)
            row = oldest.row + 1 if oldest.row == 0 else 0
            actions.append(Start(f"soak-{number}", oldest.function, oldest.gpu, row, config, Reason.POLICY))
            self.moves += 1
        else:
            quota, batch = QUOTAS_PCT[number % len(QUOTAS_PCT)], 1 + number % self.case.batch
            actions.append(Resize(oldest.id, oldest.function, quota, batch, Reason.POLICY))
        self.refused += backend.apply(Decision(tuple(actions)))
        self.changes += len(actions)


def soak(case: Case, work: Path, minutes: float, ahead: str | None = None) -> list[dict[str, Any]]:
    """Load of 60 % of saturation at quota 100 %, with a change every two seconds."""
    with running("rapp", case, work, ahead) as server:
        rps = SHARE * saturation(server, case.name, 10.0)["rps"]
        duration_s = 60 * minutes
        due = Trace.of_rates([rps], duration_s).arrivals([case.name], ArrivalProcess.POISSON, 0)
        changer = Changer(server, case)
        with server.measured():
            changer.start()
            report = run_load(
                server.url,
                due,
                duration_s,
                options=LoadOptions(timeout_ms=30_000),
                targets={case.name: server.target},
                on_progress=changer.tell,
            )
            changer.over.set()
            changer.join()
        if changer.failure is not None:
            raise changer.failure
    total = report.total
    memory = np.array(changer.memory_mib)
    # A line through what follows the first tenth, in which caches fill: its growth over the whole time.
    steady = memory[memory[:, 0] > duration_s / 10]
    slope, level = np.polyfit(steady[:, 0], steady[:, 1], 1)
    return [
        {
            "kind": "soak", "server": "rapp", "version": version_of("rapp", work),
            "minutes": minutes, "network": case.name, "rate_rps": rps,
            "requests": total.requests, "answered": total.answered, "refused": total.refused,
            "errors": dict(total.errors),
            "p50_ms": total.p50_ms, "p99_ms": total.p99_ms, "max_ms": total.max_ms,
            "changes": changer.changes, "moves": changer.moves, "refusals": changer.refused,
            "memory_first_mib": float(steady[:5, 1].mean()), "memory_last_mib": float(steady[-5:, 1].mean()),
            "growth_pct": float(100 * slope * (steady[-1, 0] - steady[0, 0]) / level),
            "memory_mib": np.round(memory, 1).tolist(),
        }
    ]  # fmt: skip
