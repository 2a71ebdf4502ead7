"""Where a network can be cut into consecutive parts, and which cuts make parts that cost about the same.

A gate that charges between parts holds back less device time at once than one that charges whole runs. A cut
lies between two operators in an order of execution, where few tensors cross it. These are no cuts:

- where weights of more than `MOST_REPEATED_BYTES` would be needed on both sides (tied embeddings);
- where a runtime fuses the operators on both sides (a convolution and its activation): the parts would be
  slower, and their rounding another.

    network = CuttableNetwork.load("resnet50.onnx")
    plan = network.plan(4)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rapp.errors import ConfigError
from rapp.types import FloatArray

if TYPE_CHECKING:
    from onnx import ModelProto

    from rapp.runtime.cut_graph import CutGraph

MOST_TENSORS = 3
"""Tensors that may cross a cut: the data, and what accompanies it (a mask, a shape)."""

MOST_REPEATED_BYTES = 1 << 20
"""Weights that two parts may both hold, bytes."""

FLOPS_PER_BYTE = 17.0
"""Operations that take as long as moving one byte: V100, 15.7 TFLOP/s in fp32 and 900 GB/s (its data sheet).

Only a first guess of what an operator costs beside the others: `CuttableNetwork.weighed` puts in times."""

# Operators that runtimes fuse with the one before, and with the one after (ONNX Runtime, "Graph
# optimizations"), where nothing else reads the tensor between them.
_FUSED_WITH_MAKER = frozenset(
    ["Add", "BatchNormalization", "Cast", "Clip", "Div", "Dropout", "Elu", "Gelu", "HardSigmoid", "HardSwish",
     "Identity", "LeakyRelu", "Mish", "Mul", "PRelu", "QuantizeLinear", "Relu", "Selu", "Sigmoid", "Softplus",
     "Sub", "Tanh"]
)  # fmt: skip
_FUSED_WITH_READER = frozenset(["Cast", "DequantizeLinear", "Identity", "Pad", "Transpose"])


class CutOutcome(StrEnum):
    """Whether a network was cut, and why not. The value is for people."""

    CUT = "cut"
    NO_CUT_POINT = "one part: the network has no cut point"
    TOO_SHORT = "one part: any cut would leave a part that is too short"
    ASKED = "one part: asked for"


@dataclass(frozen=True, slots=True)
class Part:
    """Operators that run as one, without a look at the quota.

    Args:
        first, end: places of its operators in the order of execution, the end excluded.
        share: of the whole network's cost, in [0, 1].
    """

    first: int
    end: int
    share: float


@dataclass(frozen=True, slots=True)
class CutPlan:
    """Parts that follow each other and are the whole network; exactly one unless the outcome is `CUT`."""

    parts: tuple[Part, ...]
    outcome: CutOutcome

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def ends(self) -> tuple[int, ...]:
        """Where the parts end: two plans of one network with the same ends are the same."""
        return tuple(part.end for part in self.parts)


@dataclass(frozen=True, eq=False)
class CuttableNetwork:
    """A network, its cut points and what its operators cost.

    Args:
        graph: the network as operators in order.
        points: (C,) places between the operators, ascending: a part may end before that operator.
        costs: (V,) what each operator costs, in any unit.
    """

    graph: CutGraph
    points: NDArray[np.int64]
    costs: FloatArray

    @classmethod
    def load(
        cls, source: str | Path | ModelProto, *, batch: int = 1, dims: Mapping[str, int] | None = None
    ) -> CuttableNetwork:
        """Read a network and find its cut points; costs are guessed from operations and bytes.

        Args:
            source: the file, whose external data stay where they are, or a model in memory.
            batch: for the costs, where the network leaves it open.
            dims: numbers for other open dimensions, by their symbol; the parts will serve these alone.

        Raises:
            GraphError: as `OperatorGraph.from_onnx`; and external data of a model in memory.
        """
        from rapp.runtime.cut_graph import CutGraph

        graph = CutGraph.load(source, dims or {})
        return cls(graph, _cut_points(graph), _guessed_costs(graph, batch))

    def plan(self, parts: int, least_share: float = 0.0) -> CutPlan:
        """The cuts into at most `parts` parts for which the sum of the squared costs is the least.

        Args:
            parts: as many if the cut points allow it, >= 1.
            least_share: no part costs less than this share of the whole.

        Raises:
            ConfigError: `parts` below 1.
        """
        if parts < 1:
            raise ConfigError(f"parts is {parts}: it must be 1 or more")
        ends = [0, *self.points.tolist(), len(self.costs)]
        total = np.concatenate([[0.0], np.cumsum(self.costs)])
        reached = total[ends] / total[-1] if total[-1] > 0 else np.linspace(0, 1, len(ends))
        places = _balanced(reached, parts, least_share)
        found = tuple(
            Part(ends[first], ends[end], float(reached[end] - reached[first]))
            for first, end in pairwise(places)
        )
        if len(found) > 1:
            return CutPlan(found, CutOutcome.CUT)
        if parts == 1:
            return CutPlan(found, CutOutcome.ASKED)
        return CutPlan(found, CutOutcome.TOO_SHORT if len(self.points) else CutOutcome.NO_CUT_POINT)

    def plan_by_time(self, part_ms: float, least_ms: float, most: int) -> CutPlan:
        """At most `most` parts of about `part_ms`, none below `least_ms`. The costs must be times, ms."""
        whole_ms = float(self.costs.sum())
        parts = max(min(round(whole_ms / part_ms), most), 1)
        plan = self.plan(parts, least_ms / whole_ms)
        if plan.outcome is not CutOutcome.ASKED:
            return plan
        return replace(plan, outcome=CutOutcome.TOO_SHORT if len(self.points) else CutOutcome.NO_CUT_POINT)

    def weighed(self, plan: CutPlan, part_ms: Sequence[float]) -> CuttableNetwork:
        """The same network with times for costs: those of each part, scaled to what it was measured to take.

        Args:
            plan: of this network.
            part_ms: one time a part, ms, > 0.
        """
        costs = self.costs.copy()
        for part, time_ms in zip(plan.parts, part_ms, strict=True):
            inside = costs[part.first : part.end]
            inside += inside.sum() == 0  # an even share each, where nothing was known
            inside *= time_ms / inside.sum()
        return replace(self, costs=costs)


def _cut_points(graph: CutGraph) -> NDArray[np.int64]:
    """Places at which the network may be cut: `k` means between the operators k - 1 and k."""
    crossing = graph.crossing()
    repeated = graph.repeated_bytes()
    return np.array(
        [
            place
            for place in range(1, len(graph.nodes))
            if len(crossing[place]) <= MOST_TENSORS
            and repeated[place] <= MOST_REPEATED_BYTES
            and all(graph.is_tensor(name) and not _is_fused(graph, name) for name in crossing[place])
        ],
        dtype=np.int64,
    )


def _is_fused(graph: CutGraph, name: str) -> bool:
    """Whether a runtime would rather not make this tensor at all."""
    readers = graph.readers.get(name, [])
    if name not in graph.makers or len(readers) != 1:
        return False
    maker, reader = graph.nodes[graph.makers[name]], graph.nodes[readers[0]]
    return maker.op_type in _FUSED_WITH_READER or reader.op_type in _FUSED_WITH_MAKER


def _guessed_costs(graph: CutGraph, batch: int) -> FloatArray:
    """(V,) costs in operations: the longer of computing and of moving bytes (the roofline model)."""
    operators = graph.operator_graph()
    batch = operators.fixed_batch or batch
    costs = np.zeros(len(graph.nodes))
    moved = sum(operators.array(name, batch) for name in ("input_bytes", "weight_bytes", "output_bytes"))
    times = np.maximum(operators.array("flops", batch), FLOPS_PER_BYTE * moved)
    for operator, cost in zip(operators.operators, times, strict=True):
        if not operator.is_view:
            costs[int(operator.name)] += cost
    return costs


def _balanced(reached: FloatArray, parts: int, least: float) -> list[int]:
    """Indices into `reached` (P,), ascending from 0 to 1: ends of the parts, the first 0 and the last P - 1.

    Dynamic programming over the number of parts: O(parts P^2).
    """
    last = len(reached) - 1
    size = reached[None, :] - reached[:, None]
    price = np.where((size > 0) & (size >= least), size**2, np.inf)
    best = np.full(last + 1, np.inf)
    best[0] = 0.0
    origins: list[NDArray[np.int64]] = []
    chosen: list[int] = [0, last]
    for _ in range(min(parts, last)):
        through = best[:, None] + price
        origins.append(through.argmin(axis=0))
        best = through.min(axis=0)
        if np.isfinite(best[last]):
            chosen = [last]
            for origin in reversed(origins):
                chosen.append(int(origin[chosen[-1]]))
            chosen.reverse()
    return chosen
