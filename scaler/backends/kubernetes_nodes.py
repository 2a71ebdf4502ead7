"""Nodes of a cluster as GPUs.

What a node says of its GPUs, in this order:
  - `hami.io/node-nvidia-register`, an annotation of HAMi's device plugin: one JSON object a GPU with `id`
    (its UUID), `devmem` (MiB) and `health` (Project-HAMi, docs/develop/protocol; format of HAMi 2.x);
  - the labels `nvidia.com/gpu.count` and `nvidia.com/gpu.memory` (MiB) of NVIDIA's GPU feature discovery.
`nvidia.com/gpu` among the allocatable resources alone says neither how many GPUs there are, as plugins that
share them count replicas, nor how much memory they have: such a node is left out, and that is said.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass

from scaler.backends.kubernetes_api import Json
from scaler.core.observation import GpuView

RESOURCE = "nvidia.com/gpu"
HAMI_REGISTER = "hami.io/node-nvidia-register"
GFD_COUNT, GFD_MEMORY = "nvidia.com/gpu.count", "nvidia.com/gpu.memory"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeGpu:
    """A GPU and where it is.

    Args:
        view: as the core sees it; its id is the UUID if that is known, else `<node>:<index>`.
        node: name of its node. index: which of that node's. uuid: None: not known.
    """

    view: GpuView
    node: str
    index: int
    uuid: str | None


def gpus_of(nodes: list[Json], warned: set[str]) -> dict[str, NodeGpu]:
    """The GPUs that instances may be put on, by id, in the order of the nodes' names.

    Nodes that are not ready, or cordoned, have none: what runs there is replaced elsewhere.

    Args:
        warned: names of nodes of which it was said that they are left out; more are added.
    """
    there: dict[str, NodeGpu] = {}
    for node in sorted(nodes, key=lambda node: str(node["metadata"]["name"])):
        name = node["metadata"]["name"]
        if not _is_usable(node):
            continue
        found = _devices(node)
        if not found:
            if name not in warned and RESOURCE in node.get("status", {}).get("allocatable", {}):
                warned.add(name)
                _log.warning(
                    "node %s has %s, but neither %s nor %s say how many and of what memory: it is left out:"
                    " install GPU feature discovery or HAMi",
                    name, RESOURCE, HAMI_REGISTER, GFD_COUNT,
                )  # fmt: skip
            continue
        warned.discard(name)
        cores = _cores(str(node.get("status", {}).get("allocatable", {}).get("cpu", "0"))) / len(found)
        for number, (uuid, memory_mib) in enumerate(found):
            view = GpuView(uuid or f"{name}:{number}", memory_mib, cores)
            there[view.id] = NodeGpu(view, name, number, uuid)
    return there


def _is_usable(node: Json) -> bool:
    if node.get("spec", {}).get("unschedulable") or node["metadata"].get("deletionTimestamp"):
        return False
    conditions = node.get("status", {}).get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _devices(node: Json) -> list[tuple[str | None, float]]:
    """UUID and memory, MiB, of each GPU; none: not known."""
    metadata = node["metadata"]
    registered = (metadata.get("annotations") or {}).get(HAMI_REGISTER)
    if registered is not None:
        try:
            return [
                (str(one["id"]), float(one["devmem"]))
                for one in json.loads(registered)
                if one.get("health", True)
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("node %s: %s cannot be read: %s", metadata["name"], HAMI_REGISTER, error)
            return []
    labels = metadata.get("labels") or {}
    try:
        return [(None, float(labels[GFD_MEMORY]))] * int(labels[GFD_COUNT])
    except (KeyError, ValueError):
        return []


def _cores(quantity: str) -> float:
    """Cores of a quantity: `8`, `7910m`, `1.5`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(m?)", quantity)
    if match is None:
        return 0.0
    return float(match[1]) / (1000.0 if match[2] else 1.0)
