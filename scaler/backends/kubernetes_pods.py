"""Instances as pods: what a pod says of its instance, and the pod of a new one.

A pod carries all that is known of its instance, so that a controller needs no memory of it:

    label       app.kubernetes.io/managed-by=rapp   rapp/app   rapp/function   rapp/instance
    annotation  rapp/id  rapp/function  rapp/gpu  rapp/row  rapp/sm-pct  rapp/quota-pct  rapp/batch
                rapp/draining-since

SM partition and memory go to whoever enforces them, under the names that they know:

    CUDA_MPS_ACTIVE_THREAD_PERCENTAGE, CUDA_MPS_PINNED_DEVICE_MEM_LIMIT
                      NVIDIA's Multi-Process Service (docs.nvidia.com/deploy/mps, environment variables)
    nvidia.com/gpumem (MiB), nvidia.com/gpucores (%), nvidia.com/use-gpuuuid
                      HAMi (project-hami.io, docs/userguide/nvidia-device)

Which GPU of a node it is, NVIDIA's container runtime is told by NVIDIA_VISIBLE_DEVICES (UUID or index). A
template that asks for `nvidia.com/gpu` leaves that to the device plugin instead: HAMi's keeps to the UUID,
others choose by themselves, which is right only on nodes with one GPU.

HAMi's two resources are filled in where the template has them. They are fixed for the life of a pod, and a
quota is not: so gpucores is the SM partition, the most that an instance of it may ever use. The quota itself
is kept by the worker in the pod, which reads it from the annotation.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rapp.errors import ConfigError
from rapp.types import ResourceConfig
from scaler.backends.kubernetes_api import Json
from scaler.backends.kubernetes_nodes import NodeGpu
from scaler.core.decision import Start
from scaler.core.observation import InstanceView, Phase

MANAGED_BY = {"app.kubernetes.io/managed-by": "rapp"}
SAME_APP, FUNCTION, INSTANCE = "rapp/app", "rapp/function", "rapp/instance"
ID, GPU, ROW = "rapp/id", "rapp/gpu", "rapp/row"
SM, QUOTA, BATCH = "rapp/sm-pct", "rapp/quota-pct", "rapp/batch"
DRAINING = "rapp/draining-since"
HAMI_UUID, HAMI_MEMORY, HAMI_CORES = "nvidia.com/use-gpuuuid", "nvidia.com/gpumem", "nvidia.com/gpucores"

MOST_NAME = 63
"""Length of a pod's name that is its host name too, and of a label's value."""


def selector(app: str) -> str:
    """Of the pods of one application."""
    return ",".join(f"{key}={value}" for key, value in (MANAGED_BY | {SAME_APP: app}).items())


def pod_name(id_: str) -> str:
    """Name of the pod of an instance: its id where that is a name for a pod, else one made of it."""
    if re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", id_) and len(id_) <= MOST_NAME:
        return id_
    readable = re.sub(r"[^a-z0-9]+", "-", id_.lower()).strip("-")[:40].rstrip("-")
    return f"{readable or 'instance'}-{hashlib.sha256(id_.encode()).hexdigest()[:12]}"


def instance_of(pod: Json) -> InstanceView | None:
    """The instance of a pod, without counts; None: the pod does not say which it is."""
    notes = pod["metadata"].get("annotations") or {}
    try:
        config = ResourceConfig(float(notes[SM]), float(notes[QUOTA]), int(notes[BATCH]))
        function, gpu, row = notes[FUNCTION], notes[GPU], int(notes[ROW])
        phase, since_s = _phase(pod)
        return InstanceView(notes[ID], function, gpu, row, config, phase, since_s)
    except (KeyError, ValueError, TypeError, ConfigError):
        return None


def _phase(pod: Json) -> tuple[Phase, float]:
    metadata, status = pod["metadata"], pod.get("status") or {}
    created_s = seconds(metadata["creationTimestamp"])
    if notes := (metadata.get("annotations") or {}).get(DRAINING):
        return Phase.DRAINING, seconds(notes)
    if metadata.get("deletionTimestamp"):
        # Somebody else deletes it; the timestamp is when its grace ends.
        return Phase.DRAINING, seconds(metadata["deletionTimestamp"]) - (
            metadata.get("deletionGracePeriodSeconds") or 0
        )
    if status.get("phase") in ("Failed", "Succeeded"):
        ends = [
            seconds(state["terminated"]["finishedAt"])
            for one in status.get("containerStatuses") or ()
            if (state := one.get("state") or {}).get("terminated", {}).get("finishedAt")
        ]
        return Phase.LOST, max(ends, default=created_s)
    ready = next((one for one in status.get("conditions") or () if one["type"] == "Ready"), None)
    if ready is None:
        return Phase.STARTING, created_s
    changed_s = seconds(ready["lastTransitionTime"]) if ready.get("lastTransitionTime") else created_s
    # One that was ready and is no more starts again: its container was restarted, or its probe fails.
    return (Phase.READY if ready["status"] == "True" else Phase.STARTING), changed_s


def pod_of(start: Start, app: str, gpu: NodeGpu, template: Mapping[str, Any], memory_mib: float) -> Json:
    """The pod of a new instance, made from a template.

    Args:
        start: the instance. app: the application. gpu: where it goes.
        template: a pod; its first container is the one that serves.
        memory_mib: device memory that it may take, MiB.
    """
    pod: Json = copy.deepcopy(dict(template))
    name, config = pod_name(start.id), start.config
    metadata = pod.setdefault("metadata", {})
    for key in ("generateName", "uid", "resourceVersion", "creationTimestamp"):
        metadata.pop(key, None)
    metadata["name"] = name
    # Labels are to select by; a label's value cannot end as a function's name may.
    labels = MANAGED_BY | {SAME_APP: app, FUNCTION: start.function.rstrip("._-"), INSTANCE: name}
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    notes = {
        ID: start.id,
        FUNCTION: start.function,
        GPU: start.gpu,
        ROW: str(start.row),
        SM: exact(config.sm_pct),
        QUOTA: exact(config.quota_pct),
        BATCH: str(config.batch),
    }
    if gpu.uuid is not None:
        notes[HAMI_UUID] = gpu.uuid
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **notes}
    pod["spec"]["affinity"] = _on_node(pod["spec"].get("affinity"), gpu.node)
    _fill(pod["spec"]["containers"][0], start, gpu, memory_mib)
    return pod


def _fill(container: Json, start: Start, gpu: NodeGpu, memory_mib: float) -> None:
    """Environment and resources of the container that serves."""
    config = start.config
    resources = container.setdefault("resources", {})
    limits = resources.get("limits") or {}
    for part in (limits, resources.get("requests") or {}):
        if HAMI_MEMORY in part:
            part[HAMI_MEMORY] = str(round(memory_mib))
        if HAMI_CORES in part:
            part[HAMI_CORES] = str(round(config.sm_pct))
    environment = {
        "RAPP_FUNCTION": start.function,
        "RAPP_INSTANCE": start.id,
        "RAPP_SM_PCT": exact(config.sm_pct),
        "RAPP_QUOTA_PCT": exact(config.quota_pct),
        "RAPP_BATCH": str(config.batch),
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": f"{config.sm_pct:g}",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": f"0={round(memory_mib)}M",
    }
    if "nvidia.com/gpu" not in limits:
        environment["NVIDIA_VISIBLE_DEVICES"] = gpu.uuid or str(gpu.index)
    given = [one for one in container.get("env") or () if one["name"] not in environment]
    container["env"] = given + [{"name": name, "value": value} for name, value in environment.items()]


def _on_node(affinity: Json | None, node: str) -> Json:
    """The affinity with this node required, as DaemonSet pods have it.

    `spec.nodeName` would pass over the scheduler, and with it over HAMi's, which writes down the GPU.
    """
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    required = {"nodeSelectorTerms": [term]}
    return {**(affinity or {}), "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def exact(value: float) -> str:
    """A number as text that is read as the same number again."""
    return repr(float(value)).removesuffix(".0")


def seconds(text: str) -> float:
    """Unix time of an RFC 3339 timestamp."""
    return datetime.fromisoformat(text).timestamp()


def timestamp(now_s: float) -> str:
    """RFC 3339 of a Unix time."""
    return datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
