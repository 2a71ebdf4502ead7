"""`Backend`: the two doors between the core and whatever runs the instances.

The replay's simulated cluster (`scaler.replay.cluster.Cluster`) has the same two, so that one loop
drives all.
`scaler.testing.BackendContract` is the test that each backend passes.
"""

from __future__ import annotations

from typing import Protocol

from scaler.core.decision import Decision
from scaler.core.observation import Observation


class Backend(Protocol):
    """Runs instances of functions on GPUs (or on cores, in place of GPUs)."""

    @property
    def name(self) -> str:
        """What it is, for people and for the leader's lease."""

    def observe(self) -> Observation:
        """What there is now; counts are those since the call before.

        Times are seconds on a clock that never goes back, also not over a restart of the controller. What
        could not be seen is None or absent, never a guess.

        Raises:
            BackendError: nothing at all could be seen; the controller waits and asks again.
        """

    def apply(self, decision: Decision) -> list[tuple[str, str]]:
        """Make the changes of a decision in their order.

        A change that was made already is no error: a controller that was restarted may decide it again.

        Returns:
            Those that could not be made: (id of the instance, why).

        Raises:
            BackendError: the backend cannot be reached; some of the changes may have been made.
        """

    def close(self) -> None:
        """Let go of connections; instances serve on."""
