"""What the core remembers of changes that were not made."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from scaler.core.decision import Decision, Drain, Start
from scaler.core.observation import Observation, Phase
from scaler.core.state import CoreState


def unmade(
    state: Mapping[str, Any], seen: Observation, decision: Decision, only: Collection[str] | None = None
) -> dict[str, Any]:
    """The state after a step whose changes were not made: nothing is on its way because of them.

    Without this a core that only advises would wait for instances that nobody starts, count on them, and
    miss them as lost in the end. What the policy remembers stays: it decided, whether or not somebody acted.

    Args:
        state: that after the step. seen, decision: of the step.
        only: ids of instances whose changes were not made; None: none was made.
    """
    known = CoreState.of_json(state)
    live = {one.id: one for one in seen.instances if one.phase in (Phase.STARTING, Phase.READY)}
    actions = [action for action in decision.actions if only is None or action.id in only]
    for action in actions:
        if isinstance(action, Start):
            known.ordered.pop(action.id, None)
        elif isinstance(action, Drain):
            known.draining.pop(action.id, None)
            if action.id in live:
                known.alive[action.id] = action.function
    starting = {one.function for one in live.values() if one.phase == Phase.STARTING}
    for name in {action.function for action in actions} & set(known.functions):
        known.functions[name].disturbed = name in starting
    return known.to_json()
