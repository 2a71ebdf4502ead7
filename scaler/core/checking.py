"""Checking: each change that a policy wants, against what there is, in order.

A policy cannot overcommit a GPU, change what is not there, or touch a function that was not observed: such a
change is dropped, and the decision says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from rapp.types import ResourceConfig
from scaler.core.decision import Action, Drain, Resize, Start
from scaler.core.reconcile import Fleet, Served
from scaler.packing import TOLERANCE, Pool

MOST_ROWS = 100
"""Rows that a GPU can have: SM partitions are at least 1 %."""


@dataclass(slots=True)
class Checker:
    """Takes changes one after the other; what drains keeps its place.

    Args:
        pool: what is on the GPUs; changed as changes are taken.
        served: the functions that may be changed.
        members: function of each instance that serves or will, by id.
        taken: ids that are no member and may not be given either: what drains or was lost.
    """

    pool: Pool
    served: Mapping[str, Served]
    members: dict[str, str]
    taken: set[str] = field(default_factory=set)

    @staticmethod
    def of(fleet: Fleet, served: Mapping[str, Served], observed: Set[str]) -> Checker:
        """For a fleet, of which the functions `observed` may be changed; its pool is copied."""
        members = {member.id: f for f, listed in fleet.members.items() for member in listed}
        may_change = {name: one for name, one in served.items() if name in observed}
        return Checker(fleet.pool.copy(), may_change, members, fleet.going | fleet.gone)

    def take(self, action: Action) -> str | None:
        """Take a change; why it cannot be made, and then nothing is changed here."""
        if action.function not in self.served:
            return f"{action.function} is unknown or was not observed"
        if isinstance(action, Start):
            return self._start(action)
        if action.id in self.taken:
            return "it drains already, or was lost"
        if action.id not in self.members:
            return "there is no such instance"
        if self.members[action.id] != action.function:
            return f"it serves {self.members[action.id]}"
        if isinstance(action, Drain):
            del self.members[action.id]
            self.taken.add(action.id)
            return None
        return self._resize(action)

    def _start(self, action: Start) -> str | None:
        served = self.served[action.function]
        if action.id in self.members or action.id in self.taken:
            return "there is an instance of this name"
        if not 0 <= action.row < MOST_ROWS:
            return f"row {action.row}: a GPU has rows 0 to {MOST_ROWS - 1}"
        fault = _batch_fault(action.config.batch, served)
        fault = fault or self.pool.why_not(action.id, action.gpu, action.row, served.need(action.config))
        if fault is None:
            self.pool.force(action.id, action.gpu, action.row, served.need(action.config))
            self.members[action.id] = action.function
        return fault

    def _resize(self, action: Resize) -> str | None:
        served = self.served[action.function]
        if not (math.isfinite(action.quota_pct) and 0 < action.quota_pct <= 100):
            return f"quota {action.quota_pct:g} %"
        fault = _batch_fault(action.batch, served)
        if fault is not None:
            return fault
        before = self.pool.need(action.id)
        after = served.need(ResourceConfig(before.sm_pct, action.quota_pct, action.batch))
        fault = self.pool.why_not_resize(action.id, after)
        if fault is not None and _is_less(after.quota_pct, before.quota_pct):
            # In a row that holds too much already giving back is right, even if it is not enough.
            fault = None
        if fault is None:
            place = self.pool.where(action.id)
            assert place is not None
            self.pool.force(action.id, *place, after)
        return fault


def check(
    actions: Iterable[Action], checker: Checker, most: int
) -> tuple[list[Action], list[tuple[Action, str]]]:
    """The changes that can be made, in their order, `most` of them; and those that are dropped, with why.

    Where there are too many, drains of what is there are kept first, then the others in their order.
    """
    kept: list[Action] = []
    dropped: list[tuple[Action, str]] = []
    for action in actions:
        fault = checker.take(action)
        if fault is None:
            kept.append(action)
        else:
            dropped.append((action, fault))
    if len(kept) > most:
        # Drains first, the rest in order: cutting the end takes no room from what comes before it. The drain
        # of an instance that starts in the same list stays behind its start.
        new = {action.id for action in kept if isinstance(action, Start)}
        early = [isinstance(action, Drain) and action.id not in new for action in kept]
        first = sorted(range(len(kept)), key=lambda i: (not early[i], i))[:most]
        chosen = set(first)
        why = f"more than {most} changes in a tick"
        dropped += [(action, why) for i, action in enumerate(kept) if i not in chosen]
        kept = [action for i, action in enumerate(kept) if i in chosen]
    return kept, dropped


def _batch_fault(batch: int, served: Served) -> str | None:
    if isinstance(batch, int) and 1 <= batch <= served.spec.max_batch:
        return None
    return f"batch {batch}: {served.spec.name} has batches of 1 to {served.spec.max_batch}"


def _is_less(after: float, before: float) -> bool:
    return after < before - TOLERANCE
