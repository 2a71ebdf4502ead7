"""`Controller`: the core of the replay on a real clock.

    lease ── observe ── Core.step ── lease ── apply ── state
      │         │                      │        │
      └ standby └ back off             └ fenced └ fenced, or back off; decide anew from what is there

Serving needs no controller: instances serve on with the last configuration while there is none. So whatever
goes wrong here, the answer is to change nothing, to say so, and to look again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rapp.errors import RappError
from scaler.backends.base import Backend
from scaler.backends.fencing import UNFENCED, Fence, FencedError
from scaler.core.decision import Decision
from scaler.core.observation import Observation
from scaler.core.state import StateError
from scaler.core.step import Core
from scaler.errors import BackendError
from scaler.live.clock import Backoff, Clock, RealClock, Stopping, Ticks
from scaler.live.collecting import without_collection
from scaler.live.lease import Lease
from scaler.live.state_file import StateFile
from scaler.live.tick import Happening, Mode, Reporter, Tick
from scaler.live.unmade import unmade

FRESH = 1 / 3
"""Part of the lease's duration in which an answer is taken for the next change too: it is renewed well
before it is over, however long it takes to make all changes."""

KEEP_S = 5.0
"""The state is kept this often, s: to have it on the disk for sure takes long where the disk is busy."""


class Controller:
    """Observes, decides and, if it may, applies; closes the backend when it ends.

    Args:
        core: what decides; its `settings.tick_s` is the time between ticks.
        backend: what is observed and changed.
        apply: whether to make changes; without it a controller only says what it would do.
        lease: who may make changes; None: nobody else could. It is not asked for without `apply`.
        state_file: where the state is kept; None: nowhere.
        reporters: who is told.
        clock: time of the ticks; observations carry the backend's own.
    """

    def __init__(
        self,
        core: Core,
        backend: Backend,
        *,
        apply: bool = False,
        lease: Lease | None = None,
        state_file: StateFile | None = None,
        reporters: Sequence[Reporter] = (),
        clock: Clock | None = None,
    ) -> None:
        self.core, self.backend, self.may_apply = core, backend, apply
        self.leads = self._is_new_leader = False
        self._lease, self._state_file, self._reporters = lease, state_file, tuple(reporters)
        self._clock: Clock = RealClock() if clock is None else clock
        tick_s = core.settings.tick_s
        self._ticks = Ticks(self._clock.now_s(), tick_s)
        self._made = 0
        self._backoff = Backoff(tick_s)
        self._state = None if state_file is None else state_file.read()
        self._unseen: set[str] = set()
        self._is_first, self._is_ours = True, False
        self._kept_s = self._led_s = -math.inf

    def run(self, stop: Stopping, most_ticks: int | None = None) -> None:
        """Decide at each tick until `stop` is set; then let go of the lease and the backend.

        Args:
            stop: asked between ticks. most_ticks: made, after which it ends by itself; None: it does not.
        """
        mode = "makes changes" if self.may_apply else "gives advice"
        self._say(Happening.STARTED, f"{mode} on {self.backend.name} by {self.core.policy.name}")
        try:
            while most_ticks is None or self._made < most_ticks:
                self._clock.wait_until(self._ticks.next_s, stop)
                if stop.is_set():
                    break
                self.tick()
                self._made += 1
                skipped = self._ticks.done(self._clock.now_s())
                if skipped:
                    self._say(Happening.SKIPPED, f"{skipped}: the one before took too long", skipped)
        finally:
            self._end()

    def tick(self) -> None:
        """Decide once, now."""
        begin_s = self._clock.now_s()
        self._ask_for_lease()
        if begin_s < self._backoff.until_s:
            return
        if self.leads and self._is_new_leader and not self._took_over():
            return
        seen = self._observe()
        if seen is None:
            return
        self._state, decision = self._step(seen)
        mode, refused = self._act(decision)
        if mode != Mode.FAILED:
            self._backoff.worked()
        if mode != Mode.APPLIED:
            self._state = unmade(self._state, seen, decision)
        elif refused:
            self._state = unmade(self._state, seen, decision, {id_ for id_, _ in refused})
        self._is_ours = mode != Mode.STANDBY
        if self._clock.now_s() - self._kept_s >= KEEP_S:
            self._keep()
        took_s = self._clock.now_s() - begin_s
        tick = Tick(self._ticks.number, seen, decision, mode, tuple(refused), took_s)
        for reporter in self._reporters:
            reporter.on_tick(tick)

    def _observe(self) -> Observation | None:
        try:
            seen = self.backend.observe()
        except BackendError as error:
            self._failed(Happening.BLIND, error)
            return None
        unseen = set(self.core.served) - set(seen.functions)
        if unseen != self._unseen:
            self._unseen = unseen
            self._say(Happening.UNSEEN, f"{', '.join(sorted(unseen)) or 'none'}: they are left as they are")
        first, self._is_first = self._is_first, False
        if first and (seen.instances or any(view.arrivals for view in seen.functions.values())):
            # What came before belongs to no tick: taken for a tick's, it would be far too much or too little.
            views = {name: replace(view, arrivals=None) for name, view in seen.functions.items()}
            return replace(seen, functions=views)
        return seen

    def _step(self, seen: Observation) -> tuple[dict[str, Any], Decision]:
        try:
            with without_collection():
                return self.core.step(self._state, seen)
        except StateError as error:
            self._say(Happening.STATE_DROPPED, str(error))
            return self.core.step(None, seen)

    def _took_over(self) -> bool:
        """Tell the backend who leads, before it is looked at; whether that was possible."""
        mode, _ = self._apply(Decision(()))
        self._is_new_leader = mode != Mode.APPLIED
        return not self._is_new_leader

    def _act(self, decision: Decision) -> tuple[Mode, list[tuple[str, str]]]:
        if not self.may_apply:
            return Mode.ADVICE, []
        if not self.leads:
            return Mode.STANDBY, []
        if not decision.actions:
            return Mode.APPLIED, []
        # Observing may have taken so long that another leads by now: ask once more, as late as can be.
        if not self._ask_for_lease():
            return Mode.STANDBY, []
        return self._apply(decision)

    def _apply(self, decision: Decision) -> tuple[Mode, list[tuple[str, str]]]:
        fence = UNFENCED if self._lease is None else Fence(self._lease.term, self._still_leads)
        try:
            return Mode.APPLIED, self.backend.apply(decision, fence)
        except FencedError as error:
            if self.leads:
                # Not by its own lease: there is another one for the same backend, and a person has to look.
                self.leads = False
                self._failed(Happening.LOST_LEASE, error)
            return Mode.STANDBY, []
        except BackendError as error:
            self._failed(Happening.NOT_APPLIED, error)
            return Mode.FAILED, []

    def _still_leads(self) -> bool:
        if self.leads and self._lease is not None:
            if self._clock.now_s() - self._led_s < FRESH * self._lease.duration_s:
                return True
            # Standing still for longer than the lease lasts shows here: the clock went on.
            return self._ask_for_lease()
        return self.leads

    def _ask_for_lease(self) -> bool:
        if not self.may_apply:
            return False
        before, detail, asked_s = self.leads, "", self._clock.now_s()
        try:
            self.leads = self._lease is None or self._lease.lead()
        except BackendError as error:
            self.leads, detail = False, f": {error}"
            self._say(Happening.NO_LEASE, str(error))
        if self.leads:
            self._led_s = asked_s
        if self.leads and not before:
            self._is_new_leader = True
            self._say(Happening.LEADS, "alone" if self._lease is None else self._lease.holder)
        if before and not self.leads:
            self._say(Happening.LOST_LEASE, f"changes nothing until it leads again{detail}")
        return self.leads

    def _failed(self, what: Happening, error: BackendError) -> None:
        wait_s = self._backoff.failed(self._clock.now_s())
        self._say(what, f"{error}; next try in {wait_s:g} s")

    def _keep(self) -> None:
        """Keep the state, unless it is the leader's file and another leads."""
        if self._state_file is None or self._state is None or not self._is_ours:
            return
        self._kept_s = self._clock.now_s()
        try:
            self._state_file.write(self._state)
        except RappError as error:
            self._say(Happening.STATE_NOT_KEPT, str(error))

    def _end(self) -> None:
        try:
            self._keep()
            if self._lease is not None and self.leads:
                self._lease.release()
        except BackendError as error:
            self._say(Happening.NO_LEASE, f"it is not released, and expires: {error}")
        finally:
            self.leads = False
            # Before the backend is closed, as it may be told, too.
            self._say(Happening.STOPPED, f"after {self._made} ticks; instances serve on")
            self.backend.close()

    def _say(self, what: Happening, detail: str, number: int = 1) -> None:
        for reporter in self._reporters:
            reporter.on_happening(what, detail, number)
