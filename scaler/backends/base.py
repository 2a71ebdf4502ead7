"""`Backend`: the two doors between the core and whatever runs the instances.

The replay's simulated cluster (`scaler.replay.cluster.Cluster`) has the same two, so that one loop
drives all.
`scaler.testing.BackendContract` is the test that each backend passes.
"""

from __future__ import annotations

from typing import Protocol

from scaler.backends.fencing import UNFENCED, Fence
from scaler.core.decision import Decision
from scaler.core.observation import Observation


class Backend(Protocol):
    """Runs instances of functions on GPUs (or on cores, in place of GPUs).

    A backend remembers nothing that a new one could not find out: the controller may be killed at any time,
    and the next one opens the backend anew and goes on from what it observes.
    """

    @property
    def name(self) -> str:
        """What it is, for people and for the leader's lease."""

    def observe(self) -> Observation:
        """What there is now; counts are those since the call before.

        Each backend that is opened counts for itself, so that several controllers see the same. The first
        observation has `arrivals` None, or counts over a time that nobody knows, which a controller does not
        use. Where counts could not be had and the call answered all the same, `arrivals` is None until there
        are two to subtract: what came in between belongs to no tick. After a call that raised, they are those
        since the last one that did not.

        Times are seconds on a clock that never goes back, also not over a restart of the controller. What
        could not be seen is None or absent, never a guess.

        Raises:
            BackendError: nothing at all could be seen; the controller waits and asks again.
        """

    def apply(self, decision: Decision, fence: Fence = UNFENCED) -> list[tuple[str, str]]:
        """Make the changes of a decision in their order; one that cannot be made does not stop the others.

        It returns once the changes are ordered: an instance that is started is observed as starting until it
        serves, one that is drained as draining until it is gone. A change that was made already is no
        error, as a controller that was restarted may decide it again: to start what is there, to drain what
        goes or is gone. The first to use an empty row of a GPU gives it its SM partition.

        The fence is checked right before each call that changes something. Where what runs the instances can
        tell terms apart, it refuses those below the highest that it was told. A controller that begins to
        lead applies an empty decision before it observes: from then on nobody who led before changes what it
        sees, and a backend can finish what an earlier one began.

        Args:
            fence: the lease under which the changes are made.

        Returns:
            Those that could not be made: (id of the instance, why).

        Raises:
            FencedError: the lease is another's; some of the changes may have been made.
            BackendError: the backend cannot be reached; some of the changes may have been made.
        """

    def close(self) -> None:
        """Let go of connections; instances serve on. A second call does nothing."""
