"""Fencing: changes of a controller that leads no more are not made.

A leader may stand still at any place, also within a decision of many changes, for longer than its lease
lasts; another one leads by then. Two things keep its changes out. Before each one is sent it looks at its
lease (`Fence.leads`). And whoever makes changes knows the highest term that it was told, and refuses those
of a lower one (`Terms`): what was on its way while the lease went to another.

M. Kleppmann, How to do distributed locking, 2016, "Making the lock safe with fencing".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scaler.errors import BackendError

TERM_HEADER = "x-rapp-lease-term"
"""Header of a change over HTTP: the term of the lease of who sends it."""


class FencedError(BackendError):
    """A change of a controller that leads no more; it was not made, nor those after it."""


@dataclass(frozen=True, slots=True)
class Fence:
    """Under which lease changes are made.

    Args:
        term: of the lease (`scaler.live.lease.Lease.term`); None: there is none.
        leads: asked right before each change that is sent: whether this one leads still.
    """

    term: int | None
    leads: Callable[[], bool]

    def check(self) -> None:
        """Go on only if it leads still.

        Raises:
            FencedError: it does not.
        """
        if not self.leads():
            raise FencedError("the lease was lost before all changes were made: the others are not")


UNFENCED = Fence(None, lambda: True)
"""Of one who changes something without a lease, as a person does: it is always let through."""


class Terms:
    """What one that makes changes knows of leases: the highest term that it was told."""

    def __init__(self) -> None:
        self.highest = 0

    def admit(self, term: int | None) -> bool:
        """Let a change of this term through, and from now on none of a lower one.

        Returns:
            Whether it is the first of its term.

        Raises:
            FencedError: a higher one was here.
        """
        if term is None or term == self.highest:
            return False
        if term < self.highest:
            raise FencedError(
                f"term {term} of the lease is over, {self.highest} leads: end the controller of the older one"
            )
        self.highest = term
        return True
