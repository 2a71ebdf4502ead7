"""`KubernetesBackend`: one pod an instance, on the GPUs of a cluster's nodes.

    start    create a pod from the template                       kubernetes_pods, kubernetes_template
    resize   merge quota and batch into its annotations, if it is still the version that was looked at
    drain    annotate it, so that the gateway sends it nothing more; then delete it with its time of grace
    fence    looked at before each of them, and again where a pod is another version than the one looked at
    observe  pods and nodes from copies that watches keep         kubernetes_mirror, kubernetes_nodes
             counts from the gateway                              kubernetes_counters

Tested against a fake API server over HTTP (tests/scaler/backends/fake_kubernetes.py), not on a real cluster.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from scaler.backends import kubernetes_pods as pods
from scaler.backends.fencing import UNFENCED, Fence
from scaler.backends.kubernetes_api import CONFLICT, NOT_FOUND, ApiError, Json, KubernetesApi
from scaler.backends.kubernetes_counters import FunctionCounters, Since
from scaler.backends.kubernetes_mirror import Mirror
from scaler.backends.kubernetes_nodes import NodeGpu, gpus_of
from scaler.backends.kubernetes_template import Templates
from scaler.core.decision import Action, Decision, Drain, Resize, Start
from scaler.core.observation import FunctionView, InstanceView, Observation, Phase
from scaler.errors import BackendError

MOST_CONFLICTS = 5
"""Versions of a pod that are looked at before a change of it is given up until the next tick."""

LOST_KEPT_S = 60.0
"""A pod that ended by itself is kept so long, for whoever wants to read its log, s."""

_log = logging.getLogger(__name__)


class KubernetesBackend:
    """Instances as pods of one namespace that belong to one application.

    Args:
        api: the cluster.
        memory_mib: by function that is served: device memory of an instance, MiB.
        templates: the pods to make.
        counters: where counts of requests come from.
        app: the application; a controller sees and changes its pods only.
        clock: time of day, s, by which pods are dated; default: this machine's, put right by what the API
            server says in its answers, or else new pods would seem to have been starting for long.
        nodes: labels of the nodes to use; empty: all that have GPUs.
    """

    def __init__(
        self,
        api: KubernetesApi,
        memory_mib: Mapping[str, float],
        templates: Templates,
        counters: FunctionCounters,
        *,
        app: str = "rapp",
        clock: Callable[[], float] | None = None,
        nodes: str = "",
    ) -> None:
        self.app, self._api, self._memory_mib, self._templates = app, api, memory_mib, templates
        self._counters, self._since = counters, Since()
        self._clock: Callable[[], float] = self._server_time_s if clock is None else clock
        self._now_s = -float("inf")
        chosen = pods.selector(app)
        self._pods = Mirror(
            "pods",
            lambda: api.list_pods(chosen),
            lambda version, s, stopped: api.watch_pods(chosen, version, s, stopped),
        )
        self._nodes = Mirror(
            "nodes",
            lambda: api.list_nodes(nodes),
            lambda version, s, stopped: api.watch_nodes(nodes, version, s, stopped),
        )
        self._warned: set[str] = set()
        self._is_open = True

    @property
    def name(self) -> str:
        """Server, namespace and application."""
        return f"kubernetes {self._api.host} {self._api.namespace}/{self.app}"

    def close(self) -> None:
        """As `Backend.close`."""
        if self._is_open:
            self._is_open = False
            self._pods.close()
            self._nodes.close()
            self._api.close()

    # --- observe --------------------------------------------------------------------------------------------

    def observe(self) -> Observation:
        """As `Backend.observe`. Times are of day, and stand still where that clock is set back.

        Without the gateway's counts no function is observed, so that nothing is decided of any; pods and GPUs
        are.
        """
        views = {one.id: one for one in map(self._view, self._pods.objects()) if one is not None}
        gpus = gpus_of(self._nodes.objects(), self._warned)
        functions: dict[str, FunctionView] = {}
        try:
            totals = self._counters.read()
        except BackendError as error:
            _log.warning("no function is observed: %s", error)
            self._since.forget()
        else:
            functions = {
                name: view for name, view in self._since.functions(totals).items() if name in self._memory_mib
            }
            views = {id_: self._since.instance(view, totals) for id_, view in views.items()}
            self._since.done(totals)
        listed = tuple(view for _, view in sorted(views.items()))
        return Observation(self._now(), functions, listed, tuple(gpu.view for gpu in gpus.values()))

    def _view(self, pod: Json) -> InstanceView | None:
        one, name = pods.instance_of(pod), pod["metadata"]["name"]
        if one is None and name not in self._warned:
            self._warned.add(name)
            _log.warning(
                "pod %s has our labels, and does not say which instance it is: it is left alone", name
            )
        return one

    def _server_time_s(self) -> float:
        return time.time() + self._api.ahead_s

    def _now(self) -> float:
        self._now_s = max(self._now_s, self._clock())
        return self._now_s

    # --- apply ----------------------------------------------------------------------------------------------

    def apply(self, decision: Decision, fence: Fence = UNFENCED) -> list[tuple[str, str]]:
        """As `Backend.apply`; first it finishes what an earlier controller began, and clears what ended.

        The API server knows of no terms. What another leader changed has another version, at which the fence
        is looked at again; a call that was on its way when the lease went over is made.
        """
        gpus = gpus_of(self._nodes.objects(), self._warned)
        fence.check()
        self._tidy()
        refused = []
        for action in decision.actions:
            try:
                why = self._make(action, gpus, fence)
            except ApiError as error:
                if not error.is_refusal:
                    raise
                why = str(error)
            if why is not None:
                refused.append((action.id, why))
        return refused

    def _make(self, action: Action, gpus: Mapping[str, NodeGpu], fence: Fence) -> str | None:
        if isinstance(action, Start):
            return self._start(action, gpus, fence)
        pod = self._pod(action.id)
        if isinstance(action, Drain):
            if pod is not None:
                self._drain(pod, fence)
            return None
        return "there is no such instance" if pod is None else self._resize(pod, action, fence)

    def _start(self, start: Start, gpus: Mapping[str, NodeGpu], fence: Fence) -> str | None:
        if start.function not in self._memory_mib:
            return f"there is no function {start.function}"
        gpu = gpus.get(start.gpu)
        if gpu is None:
            return f"there is no GPU {start.gpu}"
        template = self._templates.of(start.function)
        body = pods.pod_of(start, self.app, gpu, template, self._memory_mib[start.function])
        fence.check()
        try:
            self._pods.written(self._api.create_pod(body))
            return None
        except ApiError as error:
            if error.status != CONFLICT:
                raise
        there = self._api.read_pod(body["metadata"]["name"])
        self._pods.written(there)
        one = pods.instance_of(there)
        if one is None or one.id != start.id:
            return f"a pod {body['metadata']['name']} is there that is not of this instance"
        if one.phase in (Phase.DRAINING, Phase.LOST) or (one.function, one.gpu, one.row) != (
            start.function, start.gpu, start.row,
        ):  # fmt: skip
            return "there is an instance of this name"
        return None

    def _resize(self, pod: Json, resize: Resize, fence: Fence) -> str | None:
        for _ in range(MOST_CONFLICTS):
            one = pods.instance_of(pod)
            if one is None or one.phase in (Phase.DRAINING, Phase.LOST):
                return "it drains, or has ended"
            if (one.config.quota_pct, one.config.batch) == (resize.quota_pct, resize.batch):
                return None
            notes = {pods.QUOTA: pods.exact(resize.quota_pct), pods.BATCH: str(resize.batch)}
            fence.check()
            read = self._patched(pod, notes)
            if read is None:
                return "there is no such instance"
            if read[1]:
                return None
            pod = read[0]
        return f"others change its pod all the time: {MOST_CONFLICTS} conflicts"

    def _drain(self, pod: Json, fence: Fence) -> None:
        """Annotate and delete; whichever of the two was made already is not made again."""
        for _ in range(MOST_CONFLICTS):
            if pods.DRAINING in (pod["metadata"].get("annotations") or {}):
                break
            fence.check()
            read = self._patched(pod, {pods.DRAINING: pods.timestamp(self._now())})
            if read is None:
                return
            pod, is_made = read
            if is_made:
                break
        # Even if others kept the annotation from being written: deleting is what counts.
        if not pod["metadata"].get("deletionTimestamp"):
            fence.check()
            self._delete(pod)

    def _patched(self, pod: Json, notes: Mapping[str, str]) -> tuple[Json, bool] | None:
        """Annotate a pod if it is the version that was looked at; None: it is gone.

        Returns:
            The pod as it is now, and whether the annotation was made; else the pod has another version.
        """
        metadata = pod["metadata"]
        change: Json = {
            "metadata": {"resourceVersion": metadata["resourceVersion"], "annotations": dict(notes)}
        }
        try:
            try:
                after, is_made = self._api.patch_pod(metadata["name"], change), True
            except ApiError as error:
                if error.status != CONFLICT:
                    raise
                after, is_made = self._api.read_pod(metadata["name"]), False
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            self._pods.removed(pod)
            return None
        if after["metadata"]["uid"] != metadata["uid"]:
            self._pods.removed(pod)
            return None
        self._pods.written(after)
        return after, is_made

    def _delete(self, pod: Json) -> None:
        metadata = pod["metadata"]
        try:
            after = self._api.delete_pod(metadata["name"], metadata["uid"])
        except ApiError as error:
            # A conflict here is another pod of this name: ours is gone.
            if error.status not in (NOT_FOUND, CONFLICT):
                raise
            self._pods.removed(pod)
            return
        if after.get("kind") == "Pod" and after["metadata"].get("uid") == metadata["uid"]:
            self._pods.written(after)

    def _tidy(self) -> None:
        for pod in self._pods.objects():
            one, metadata = pods.instance_of(pod), pod["metadata"]
            if one is None or metadata.get("deletionTimestamp"):
                continue
            is_old = one.phase == Phase.LOST and self._now() - one.since_s > LOST_KEPT_S
            if one.phase == Phase.DRAINING or is_old:
                self._delete(pod)

    def _pod(self, id_: str) -> Json | None:
        name: Any = pods.pod_name(id_)
        for pod in self._pods.objects():
            if pod["metadata"]["name"] == name:
                one: InstanceView | None = pods.instance_of(pod)
                return pod if one is not None and one.id == id_ else None
        return None
