"""`KubernetesLease`: one leads, by a Lease of coordination.k8s.io and the rules of client-go.

A follower compares no clocks: it takes a lease over once it has not seen it change for `leaseDurationSeconds`
of its own time. Each write is of the version that was read, so of two who take it one gets a conflict.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from scaler.backends.kubernetes_api import CONFLICT, NOT_FOUND, ApiError, Json, KubernetesApi
from scaler.live.lease import holder_name

USABLE = 2 / 3
"""Part of the duration in which a renewal has to be answered: client-go gives up after 10 s of 15."""


class KubernetesLease:
    """A lease of one name in the API's namespace.

    Args:
        api: the cluster. name: of the Lease.
        duration_s: a leader that has not renewed for so long does not lead any more, whole s.
        clock: monotonic time, s. holder: see `Lease.holder`.
    """

    def __init__(
        self,
        api: KubernetesApi,
        name: str,
        duration_s: float = 15.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        holder: str | None = None,
    ) -> None:
        self._api, self._name, self._duration_s = api, name, max(round(duration_s), 1)
        self._clock = clock
        self._holder = holder_name() if holder is None else holder
        self._seen: tuple[object, ...] | None = None
        self._seen_s = 0.0
        self._leads, self._term = False, 0

    @property
    def holder(self) -> str:
        """As `Lease.holder`."""
        return self._holder

    @property
    def term(self) -> int:
        """As `Lease.term`: from `leaseTransitions`, which the object counts."""
        return self._term if self._leads else 0

    @property
    def duration_s(self) -> float:
        """As `Lease.duration_s`."""
        return self._duration_s

    def lead(self) -> bool:
        """As `Lease.lead`."""
        led, self._leads = self._leads, False
        begin_s = self._clock()
        try:
            try:
                lease = self._api.read_lease(self._name)
            except ApiError as error:
                if error.status != NOT_FOUND:
                    raise
                if led:
                    return False
                spec = self._spec(0, self._holder)
                self._api.create_lease(self._record({}, spec))
            else:
                if not self._may_take(lease, led):
                    return False
                spec = self._renewed(lease)
                self._api.replace_lease(self._name, self._record(lease["metadata"], spec))
        except ApiError as error:
            if error.status != CONFLICT:
                raise
            return False
        # An answer that took long is of a lease that may be another's by now.
        self._leads = self._clock() - begin_s < USABLE * self._duration_s
        self._term = int(spec.get("leaseTransitions") or 0) + 1
        return self._leads

    def release(self) -> None:
        """As `Lease.release`."""
        if not self._leads:
            return
        self._leads = False
        try:
            lease = self._api.read_lease(self._name)
            if lease["spec"].get("holderIdentity") == self._holder:
                spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                self._api.replace_lease(self._name, self._record(lease["metadata"], spec))
        except ApiError as error:
            if error.status not in (CONFLICT, NOT_FOUND):
                raise

    def _may_take(self, lease: Json, led: bool) -> bool:
        spec = lease["spec"]
        holder = spec.get("holderIdentity") or ""
        if holder == self._holder:
            return True
        if led:
            # Lost; what was decided as a leader must not be made as the next one.
            return False
        seen = (holder, spec.get("renewTime"), spec.get("leaseTransitions"))
        if seen != self._seen:
            self._seen, self._seen_s = seen, self._clock()
        return not holder or self._clock() - self._seen_s >= float(spec.get("leaseDurationSeconds") or 0)

    def _renewed(self, lease: Json) -> Json:
        spec = lease["spec"]
        changes = int(spec.get("leaseTransitions") or 0)
        if spec.get("holderIdentity") == self._holder:
            return {**spec, "renewTime": _micro_time(), "leaseDurationSeconds": self._duration_s}
        return self._spec(changes + 1, self._holder)

    def _spec(self, changes: int, holder: str) -> Json:
        now = _micro_time()
        return {
            "holderIdentity": holder,
            "leaseDurationSeconds": self._duration_s,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": changes,
        }

    def _record(self, metadata: Json, spec: Json) -> Json:
        kept = {key: metadata[key] for key in ("resourceVersion", "labels", "annotations") if key in metadata}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, **kept},
            "spec": spec,
        }


def _micro_time() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
