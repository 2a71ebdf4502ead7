"""`Instance`: one worker of a function over its life: starting, ready, draining, gone; restarted if it dies.

What it is doing is told to its owner by the functions in `Owner`. All calls are on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rapp.runtime.quota import QuotaBlock
from rapp.types import ResourceConfig
from scaler.core.observation import Phase
from scaler.serving.arena import Arena
from scaler.serving.counts import InstanceCounts
from scaler.serving.network import ServedNetwork
from scaler.serving.requests import Sample
from scaler.serving.worker_process import WorkerProcess

WINDOW_MS = 40.0
"""Of the quota; the published scheduler's default, and the profiler's."""
BACKOFF_S, MOST_BACKOFF_S = 0.1, 30.0
"""Pause before a worker that died is started again; it doubles with each death until one served."""
START_TIMEOUT_S = 120.0
"""To import a runtime and load a network, s; then it counts as dead."""
CLOSE_TIMEOUT_S = 10.0
"""For an idle worker to end, s, before it is killed."""
_SMOOTHING = 0.2
"""Weight of the last batch in the mean time of a sample."""


class Owner(Protocol):
    """Whose instance it is."""

    def completed(self, instance: Instance, batch: Sequence[Sample]) -> None:
        """The slots of a batch hold its results."""

    def failed(self, batch: Sequence[Sample], reason: str) -> None:
        """The network refused a batch."""

    def lost(self, batch: Sequence[Sample]) -> None:
        """The worker of a batch died."""

    def dispatch(self) -> None:
        """An instance is idle."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance runs.

    Args:
        gpu: id of the GPU. row: index of its row.
        device: what its executor needs (`scaler.serving.executor.make_executor`).
        environment: variables that its process needs.
    """

    gpu: str
    row: int
    device: Mapping[str, Any]
    environment: Mapping[str, str]


class Instance:
    """One instance, starting.

    Args:
        id_: its name. owner: its function. network, arena, max_batch: of the function.
        hung_s: a batch that takes so long means that the worker hangs.
        note: told what happens to it, in words. on_gone: called when it is no more.
    """

    def __init__(
        self,
        id_: str,
        function: str,
        owner: Owner,
        network: ServedNetwork,
        arena: Arena,
        max_batch: int,
        place: Place,
        config: ResourceConfig,
        *,
        hung_s: float,
        note: Callable[[str, str], None],
        on_gone: Callable[[Instance], None],
    ) -> None:
        self.id, self.function, self.place, self.config = id_, function, place, config
        self.counts = InstanceCounts()
        self.phase, self.since_s = Phase.STARTING, time.monotonic()
        self.started_s = self.since_s
        self.carried: Sequence[Sample] = ()
        self.ahead: Sequence[Sample] = ()
        self.sample_s = 0.0
        self.worker: WorkerProcess | None = None
        self.restarts_at_s: float | None = None
        self._owner, self._network, self._arena, self._max_batch = owner, network, arena, max_batch
        self._hung_s, self._note, self._on_gone = hung_s, note, on_gone
        self._loop = asyncio.get_running_loop()
        self._block: QuotaBlock | None = None
        self._deaths, self._said = 0, ""
        self._begun_s, self._charges = 0.0, 0
        self._timer: asyncio.TimerHandle | None = None
        self._start()

    @property
    def is_idle(self) -> bool:
        """Whether it may take a batch."""
        return self.phase is Phase.READY and not self.carried

    @property
    def idle_since_s(self) -> float:
        """When it ended its last batch; 0: it has had none."""
        return self._begun_s

    @property
    def may_have_ahead(self) -> bool:
        """Whether it runs a batch and has not got the one after it."""
        return self.phase is Phase.READY and not self.ahead and bool(self.carried)

    def resize(self, quota_pct: float, batch: int) -> None:
        """Change quota and batch: the quota in the worker at its next look, within about 5 ms."""
        self.config = ResourceConfig(self.config.sm_pct, quota_pct, batch)
        if self._block is not None:
            self._block.quota_pct = quota_pct
        # What was learned of its pace does not hold any more.
        self.sample_s = 0.0

    def run(self, batch: Sequence[Sample]) -> None:
        """Have it run a batch, now or, if it runs one, after that one."""
        assert self.worker is not None
        for sample in batch:
            sample.tries += 1
            sample.running = True
        self.worker.send({"slots": [sample.slot for sample in batch]})
        if self.carried:
            self.ahead = batch
        else:
            self._begin(batch)

    def drain(self) -> None:
        """Give it nothing more, and end it when it is empty; a second call does nothing."""
        if self.phase is Phase.DRAINING:
            return
        was, self.phase, self.since_s = self.phase, Phase.DRAINING, time.monotonic()
        self._note(self.id, "drains")
        if was is Phase.STARTING:
            if self.worker is None:
                self._end()
            else:
                self.worker.kill()
        elif not self.carried:
            self._close()

    def kill(self) -> None:
        """End it at once, whatever it does."""
        self.phase = Phase.DRAINING
        if self.worker is None:
            self._end()
        else:
            self.worker.kill()

    # --- the worker -----------------------------------------------------------------------------------------

    def _start(self) -> None:
        self.restarts_at_s = None
        if self._block is not None:
            self._block.close()
        self._block = QuotaBlock.create(quota_pct=self.config.quota_pct, window_ms=WINDOW_MS)
        start = {
            "network": self._network.to_json(),
            "arena": self._arena.descriptor,
            "slots": self._arena.slots,
            "device": dict(self.place.device),
            "batch": self.config.batch,
            "max_batch": self._max_batch,
            "quota": str(self._block.path),
        }
        self.worker = WorkerProcess(start, self.place.environment, self._on_message, self._on_end)
        self._set_timer(START_TIMEOUT_S, self._hangs)

    def _on_message(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self._ready()
            return
        if not self.carried:
            self._said = message["error"]
            return
        batch, begun_s = self.carried, self._begun_s
        self._begin(self.ahead)
        self.ahead = ()
        if self.phase is Phase.DRAINING and not self.carried:
            self._close()
        if "error" in message:
            self._owner.failed(batch, message["error"])
            return
        self._deaths = 0
        counts = self.counts
        counts.batches += 1
        counts.samples += len(batch)
        counts.run_s += message["run_ns"] / 1e9
        counts.device_s += message["device_ms"] / 1e3
        counts.held_s += message["held_ns"] / 1e9
        sample_s = (time.monotonic() - begun_s) / len(batch)
        self.sample_s += _SMOOTHING * (sample_s - self.sample_s) if self.sample_s else sample_s
        self._owner.completed(self, batch)

    def _begin(self, batch: Sequence[Sample]) -> None:
        """The worker has this batch next; an empty one: it has none."""
        self.carried, self._begun_s = batch, time.monotonic()
        if batch:
            self._charges = self._charged()
            self._set_timer(self._hung_s, self._hangs)
        else:
            self._cancel_timer()

    def _ready(self) -> None:
        assert self._block is not None
        # The worker has it mapped; without a name nothing of it can be left behind.
        self._block.unlink()
        if self.phase is not Phase.STARTING:
            return
        self._cancel_timer()
        began_s, self.phase, self.since_s = self.since_s, Phase.READY, time.monotonic()
        self._note(self.id, f"is ready after {self.since_s - began_s:.1f} s")
        self._owner.dispatch()

    def _charged(self) -> int:
        """Runs that the worker has charged to its quota."""
        assert self._block is not None
        return self._block.statistics.launches

    def _hangs(self) -> None:
        if self.carried and self._charged() > self._charges:
            # It has run its batch, and holds the result until the quota is repaid.
            self._set_timer(self._hung_s, self._hangs)
        elif self.worker is not None:
            self._said = "it did not answer in time"
            self.worker.kill()

    def _close(self) -> None:
        if self.worker is not None:
            self.worker.close()
            self._set_timer(CLOSE_TIMEOUT_S, self.worker.kill)

    def _on_end(self, how: str) -> None:
        self.worker = None
        self._cancel_timer()
        for sample in self.ahead:
            sample.tries -= 1  # it was never begun
        batch = (*self.carried, *self.ahead)
        self.carried = self.ahead = ()
        if self.phase is Phase.DRAINING:
            self._end()
        else:
            pause_s = min(BACKOFF_S * 2**self._deaths, MOST_BACKOFF_S)
            self._deaths += 1
            self.counts.restarts += 1
            self.phase, self.since_s = Phase.STARTING, time.monotonic()
            self.restarts_at_s = self.since_s + pause_s
            said, self._said = self._said, ""
            self._note(self.id, f"{how}{f' ({said})' if said else ''}: starts again in {pause_s:g} s")
            self._set_timer(pause_s, self._start)
        self._owner.lost(batch)

    def _end(self) -> None:
        self._cancel_timer()
        if self._block is not None:
            self._block.unlink()
            self._block.close()
            self._block = None
        self._on_gone(self)

    def _set_timer(self, delay_s: float, call: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_later(delay_s, call)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
