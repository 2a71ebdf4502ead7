"""How much device memory a network needs at a batch, from its operator graph.

    need = weights + inputs + largest sum of the activations that live at once

An operator's output lives from the operator until the last operator that reads it, the outputs of the network
until the end. A view (Reshape, Split) is no memory of its own. Operators run in the order of the graph, as
they do in ONNX Runtime by default. Workspaces of kernels, the runtime's arena and the context of the driver
are not in it, and an operator may write over its input: it is an estimate, and a point is skipped only if it
exceeds the device's memory by `MARGIN`. What the estimate lets through may still run out of memory, which is
then that point's end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rapp.graph import OperatorGraph

MARGIN = 1.1
"""Activations that are written in place make the estimate too large; a tenth leaves room for that."""

MIB = 2.0**20

# Data types of ONNX that numpy itself does not know, bytes.
_OTHER_SIZES = {"bfloat16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1}


def estimated_memory_mib(graph: OperatorGraph, batch: int) -> float:
    """Device memory for one batch, MiB.

    Raises:
        BatchRewriteError: the network serves another batch only.
    """
    inputs = 0
    for spec in graph.inputs:
        elements = 1
        for dimension in spec.shape:
            elements *= dimension(batch)
        inputs += elements * _item_size(spec.dtype)
    return (weight_bytes(graph, batch) + inputs + peak_activation_bytes(graph, batch)) / MIB


def too_large(need_mib: float, memory_mib: float | None) -> str | None:
    """Why a network that needs so much cannot fit; None if it may, or if the device's memory is unknown."""
    if memory_mib is None or need_mib <= MARGIN * memory_mib:
        return None
    return f"needs about {need_mib:,.0f} MiB by its operators, and the device has {memory_mib:,.0f} MiB"


def weight_bytes(graph: OperatorGraph, batch: int) -> float:
    """Bytes of the weights; those that several operators share count once."""
    each = graph.array("weight_bytes", batch)
    own = np.array([op.params * _item_size(op.dtype) for op in graph.operators], dtype=np.float64)
    return float(np.minimum(each, own).sum())


def peak_activation_bytes(graph: OperatorGraph, batch: int) -> float:
    """The largest sum of the outputs of operators that live at once, bytes."""
    count = len(graph)
    if count == 0:
        return 0.0
    owner = _owners(graph)
    last = np.arange(count)
    read = np.zeros(count, dtype=bool)
    for source, target in graph.edges.T.tolist():
        read[source] = True
        if owner[source] >= 0:
            last[owner[source]] = max(last[owner[source]], target)
    for place in np.flatnonzero(~read):
        if owner[place] >= 0:
            last[owner[place]] = count - 1  # an output of the network
    size = np.where(owner == np.arange(count), graph.array("output_bytes", batch), 0.0)
    change = np.zeros(count + 1)
    np.add.at(change, np.arange(count), size)
    np.subtract.at(change, last + 1, size)
    return float(np.cumsum(change).max())


def _owners(graph: OperatorGraph) -> NDArray[np.int64]:
    """Which operator made the memory that an operator's output lies in, (V,): -1 is the network's input."""
    first: dict[int, int] = {}
    for source, target in graph.edges.T.tolist():
        first.setdefault(target, source)
    owner = np.arange(len(graph))
    for place, op in enumerate(graph.operators):
        if op.is_view:
            owner[place] = owner[first[place]] if place in first else -1
    return owner


def _item_size(dtype: str) -> int:
    """Bytes of one element; 0 if it has no fixed size, such as a string."""
    try:
        size = np.dtype(dtype).itemsize if dtype else 0
    except TypeError:
        return _OTHER_SIZES.get(dtype, 0)
    return 0 if dtype == "object" else size
