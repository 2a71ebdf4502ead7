"""The state of a fake API server of Kubernetes: pods, nodes, leases; and a kubelet that starts pods.

It does what the real one promises where the backend relies on it: versions that grow and conflicts (409),
RFC 7386 patches, names taken (409), deletion with a time of grace, watches from a version with bookmarks, and
410 Gone for versions that are forgotten. `fake_kubernetes_http` answers for it.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

Json = dict[str, Any]
KINDS = {"pods": "Pod", "nodes": "Node", "leases": "Lease"}


class Answer(NamedTuple):
    """An answer that is no object: its status and message."""

    status: int
    message: str


def node(name: str, gpus: int = 2, **labels: str) -> Json:
    """A node with GPUs of 16 GiB, as GPU feature discovery labels it."""
    return {
        "metadata": {
            "name": name,
            "labels": {"nvidia.com/gpu.count": str(gpus), "nvidia.com/gpu.memory": "16384"} | labels,
        },
        "spec": {},
        "status": {
            "allocatable": {"cpu": "15920m", "nvidia.com/gpu": str(gpus)},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


class FakeKubernetes:
    """The objects, by kind and name, and what happens to them.

    Args:
        ready_s: time from a pod's making until it is ready. gone_s: from its deletion until it is gone.
    """

    def __init__(self, ready_s: float = 0.1, gone_s: float = 0.1) -> None:
        self.ready_s, self.gone_s = ready_s, gone_s
        self.objects: dict[str, dict[str, Json]] = {kind: {} for kind in KINDS}
        self.lock = threading.Condition()
        self.version = 100
        self.events: dict[str, list[tuple[int, str, Json]]] = {kind: [] for kind in KINDS}
        self.oldest = 0
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Answer] = []
        """Answers to the next writes, before they are looked at."""
        self.beside: list[tuple[str, str]] = []
        """Annotations that somebody else makes to a pod right before the next patch of it."""
        self._due: list[tuple[float, str, str]] = []
        self.ends = False
        self.ahead_s = 0.0
        """How far its clock, as its answers have it, is ahead of this machine's, s."""
        threading.Thread(target=self._kubelet, daemon=True).start()

    def close(self) -> None:
        """End it; open watches end too."""
        with self.lock:
            self.ends = True
            self.lock.notify_all()

    # --- what tests do to it --------------------------------------------------------------------------------

    def put(self, kind: str, one: Json) -> Json:
        """Make or change an object, as if by somebody else."""
        with self.lock:
            name = one["metadata"]["name"]
            known = self.objects[kind].get(name)
            return self._store(kind, one, "ADDED" if known is None else "MODIFIED")

    def remove(self, kind: str, name: str) -> None:
        """Take an object away at once."""
        with self.lock:
            one = self.objects[kind].pop(name)
            self._tell(kind, "DELETED", one)

    def forget(self) -> None:
        """Versions up to now cannot be watched from any more; open watches end, as when etcd compacts."""
        with self.lock:
            self.version += 10
            self.oldest = self.version
            self.lock.notify_all()

    def pod(self, name: str) -> Json:
        """A pod as it is."""
        with self.lock:
            found: Json = json.loads(json.dumps(self.objects["pods"][name]))
            return found

    def kill(self, name: str) -> None:
        """Let the container of a pod end with an error, for good."""
        with self.lock:
            one = self.pod(name)
            ended = {"terminated": {"exitCode": 137, "finishedAt": now()}}
            one["status"] = {"phase": "Failed", "containerStatuses": [{"name": "worker", "state": ended}]}
            self._store("pods", one, "MODIFIED")

    # --- what it does itself --------------------------------------------------------------------------------

    def _store(self, kind: str, one: Json, event: str) -> Json:
        one = json.loads(json.dumps(one))
        self.version += 1
        one["metadata"].setdefault("uid", str(uuid.uuid4()))
        one["metadata"].setdefault("creationTimestamp", now())
        one["metadata"]["resourceVersion"] = str(self.version)
        self.objects[kind][one["metadata"]["name"]] = one
        self._tell(kind, event, one)
        return one

    def _tell(self, kind: str, event: str, one: Json) -> None:
        if event == "DELETED":
            self.version += 1
            one = {**one, "metadata": {**one["metadata"], "resourceVersion": str(self.version)}}
        self.events[kind].append((self.version, event, one))
        self.lock.notify_all()

    def _kubelet(self) -> None:
        while not self.ends:
            time.sleep(0.01)
            with self.lock:
                due = [one for one in self._due if one[0] <= time.monotonic()]
                self._due = [one for one in self._due if one not in due]
                for _, what, name in due:
                    one = self.objects["pods"].get(name)
                    if one is None:
                        continue
                    if what == "gone":
                        self.remove("pods", name)
                    elif "deletionTimestamp" not in one["metadata"] and one["status"]["phase"] == "Pending":
                        one = self.pod(name)
                        ready = {"type": "Ready", "status": "True", "lastTransitionTime": now()}
                        one["status"] = {"phase": "Running", "conditions": [ready]}
                        self._store("pods", one, "MODIFIED")

    def create(self, kind: str, one: Json) -> Json | Answer:
        """POST."""
        name = one["metadata"]["name"]
        if name in self.objects[kind]:
            return Answer(409, f'{kind} "{name}" already exists')
        if kind == "pods":
            one["status"] = {"phase": "Pending"}
            self._due.append((time.monotonic() + self.ready_s, "ready", name))
        return self._store(kind, one, "ADDED")

    def patch(self, kind: str, name: str, change: Json) -> Json | Answer:
        """PATCH by RFC 7386."""
        if name not in self.objects[kind]:
            return Answer(404, f'{kind} "{name}" not found')
        if self.beside:
            key, value = self.beside.pop(0)
            other = self.pod(name)
            other["metadata"].setdefault("annotations", {})[key] = value
            self._store(kind, other, "MODIFIED")
        return self._if_current(kind, name, change, merged(self.objects[kind][name], change))

    def replace(self, kind: str, name: str, one: Json) -> Json | Answer:
        """PUT."""
        if name not in self.objects[kind]:
            return Answer(404, f'{kind} "{name}" not found')
        kept = {key: self.objects[kind][name]["metadata"][key] for key in ("uid", "creationTimestamp")}
        return self._if_current(kind, name, one, {**one, "metadata": {**one["metadata"], **kept}})

    def _if_current(self, kind: str, name: str, given: Json, after: Json) -> Json | Answer:
        wanted = given["metadata"].get("resourceVersion")
        if wanted not in (None, self.objects[kind][name]["metadata"]["resourceVersion"]):
            return Answer(
                409, "the object has been modified; please apply your changes to the latest version"
            )
        return self._store(kind, after, "MODIFIED")

    def delete(self, kind: str, name: str, options: Json) -> Json | Answer:
        """DELETE, with its time of grace."""
        one = self.objects[kind].get(name)
        if one is None:
            return Answer(404, f'{kind} "{name}" not found')
        uid = options.get("preconditions", {}).get("uid")
        if uid not in (None, one["metadata"]["uid"]):
            return Answer(409, "Precondition failed: UID in precondition differs")
        one = json.loads(json.dumps(one))
        grace_s = options.get("gracePeriodSeconds", 30)
        ends = datetime.fromtimestamp(time.time() + grace_s, UTC).isoformat(timespec="seconds")
        one["metadata"].setdefault("deletionTimestamp", ends.replace("+00:00", "Z"))
        one["metadata"]["deletionGracePeriodSeconds"] = grace_s
        self._due.append((time.monotonic() + self.gone_s, "gone", name))
        return self._store(kind, one, "MODIFIED")

    def watch(self, kind: str, version: int, timeout_s: float, selector: str) -> Iterator[Json]:
        """Events after a version, until the time is over; at the end a bookmark."""
        end_s = time.monotonic() + timeout_s
        while True:
            with self.lock:
                if version < self.oldest:
                    yield {
                        "type": "ERROR",
                        "object": {
                            "kind": "Status", "status": "Failure", "code": 410, "reason": "Expired",
                            "message": f"too old resource version: {version} ({self.oldest})",
                        },
                    }  # fmt: skip
                    return
                events = [one for one in self.events[kind] if one[0] > version]
                if not events:
                    self.lock.wait(min(end_s - time.monotonic(), 0.2))
            for number, event, one in events:
                version = number
                if matches(one, selector):
                    yield {"type": event, "object": one}
            if self.ends or time.monotonic() >= end_s:
                yield {
                    "type": "BOOKMARK",
                    "object": {"kind": KINDS[kind], "metadata": {"resourceVersion": str(version)}},
                }
                return


def matches(one: Json, selector: str) -> bool:
    """Whether an object has the labels."""
    labels = one["metadata"].get("labels") or {}
    return all(
        labels.get(key) == value
        for key, _, value in (part.partition("=") for part in selector.split(",") if part)
    )


def merged(target: Any, change: Any) -> Any:
    """RFC 7386."""
    if not isinstance(change, dict):
        return change
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def now() -> str:
    """RFC 3339, in whole seconds, as the API server writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
