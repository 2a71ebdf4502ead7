"""`Simulated`: the replay's cluster as a live backend, on a clock that may be real, faster, or a test's."""

from __future__ import annotations

from collections.abc import Callable

from scaler.backends.fencing import UNFENCED, Fence
from scaler.core.decision import Action, Decision, Drain, Start
from scaler.core.observation import Observation
from scaler.errors import BackendError
from scaler.replay.cluster import Cluster


class Simulated:
    """Requests come, and instances work, whenever it is looked at.

    Args:
        cluster: what is driven; it outlives the backend, as real instances would.
        clock: time of the cluster, s; it may not go back. Default: the cluster's own, which somebody else
            moves by `Cluster.run_until`.
    """

    def __init__(self, cluster: Cluster, clock: Callable[[], float] | None = None) -> None:
        self.cluster = cluster
        self._clock = clock
        self._is_open = True

    @property
    def name(self) -> str:
        """What it is."""
        return "simulated"

    def observe(self) -> Observation:
        """As `Backend.observe`."""
        self._move()
        return self.cluster.observe()

    def apply(self, decision: Decision, fence: Fence = UNFENCED) -> list[tuple[str, str]]:
        """As `Backend.apply`; the cluster itself refuses what was made already, as a replay should know."""
        self._move()
        refused = []
        for action in decision.actions:
            fence.check()
            if not self._is_made(action):
                refused += self.cluster.apply(Decision((action,)))
        return refused

    def close(self) -> None:
        """As `Backend.close`."""
        self._is_open = False

    def _move(self) -> None:
        if not self._is_open:
            raise BackendError("simulated: it was closed")
        if self._clock is not None:
            self.cluster.run_until(max(self._clock(), self.cluster.now_s))

    def _is_made(self, action: Action) -> bool:
        there = self.cluster.instances.get(action.id)
        if isinstance(action, Start):
            return there is not None and (there.function, there.gpu, there.row) == (
                action.function, action.gpu, action.row,
            )  # fmt: skip
        return isinstance(action, Drain) and there is None
