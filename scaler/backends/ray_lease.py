"""`RayLease`: the right to make changes in a Ray cluster, kept by an actor on its head node.

An actor does one call at a time, so taking and renewing are compare-and-swap by themselves, and one clock
tells how old the lease is. It is not the router: a router that is started anew must not let two lead.
"""

from __future__ import annotations

import time
from typing import Any

from rapp.runtime.ray_cluster import join
from scaler.backends.ray_names import ANSWER_TIMEOUT_S, LEASE, NAMESPACE, ON_HEAD
from scaler.errors import BackendError
from scaler.live.lease import holder_name, next_term


class LeaseKeeper:
    """The actor: who leads, until when if it is not renewed; the term grows with each leader."""

    def __init__(self) -> None:
        self._holder, self._until_s, self._term = "", 0.0, 0

    def lead(self, holder: str, duration_s: float, term: int) -> int:
        """Take or renew the lease for `duration_s`.

        Args:
            term: in which `holder` led when it asked last; 0: it did not.

        Returns:
            The term, from 1 on; 0: another one leads, or has led since that term.
        """
        now_s = time.monotonic()
        if self._holder != holder:
            if now_s < self._until_s or term not in (0, self._term):
                return 0
            self._holder, self._term = holder, next_term(self._term)
        self._until_s = now_s + duration_s
        return self._term

    def release(self, holder: str) -> None:
        """Let the next one lead, if `holder` does."""
        if self._holder == holder:
            self._until_s = 0.0


class RayLease:
    """A `Lease` for the controllers of one cluster, wherever they run.

    Args:
        address: of the cluster: `auto`, HOST:PORT or ray://HOST:PORT.
        duration_s: a leader that has not renewed for so long does not lead any more, s.
        holder: see `Lease.holder`.

    Raises:
        MissingExtraError: Ray is not installed.
        RappError: there is no such cluster.
    """

    def __init__(self, address: str, duration_s: float = 5.0, *, holder: str | None = None) -> None:
        self._ray, _ = join(address)
        self._address, self._duration_s = address, duration_s
        self._holder = holder_name() if holder is None else holder
        self._term = 0

    @property
    def holder(self) -> str:
        """As `Lease.holder`."""
        return self._holder

    @property
    def term(self) -> int:
        """As `Lease.term`."""
        return self._term

    @property
    def duration_s(self) -> float:
        """As `Lease.duration_s`."""
        return self._duration_s

    def lead(self) -> bool:
        """As `Lease.lead`."""
        # Also where nobody answers it does not lead.
        term, self._term = self._term, 0
        self._term = self._ask("lead", self._holder, self._duration_s, term)
        return self._term > 0

    def release(self) -> None:
        """As `Lease.release`."""
        self._term = 0
        self._ask("release", self._holder)

    def _ask(self, method: str, *arguments: Any) -> Any:
        remote: Any = self._ray.remote(LeaseKeeper)
        try:
            keeper = remote.options(
                name=LEASE, namespace=NAMESPACE, get_if_exists=True, lifetime="detached",
                num_cpus=0, resources=ON_HEAD, max_restarts=0,
            ).remote()  # fmt: skip
            return self._ray.get(getattr(keeper, method).remote(*arguments), timeout=ANSWER_TIMEOUT_S)
        except (self._ray.exceptions.RayError, ConnectionError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BackendError(
                f"ray:{self._address}: the lease's actor does not answer ({reason})"
            ) from error
