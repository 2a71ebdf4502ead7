"""Cut points and plans: where a network may be cut, how evenly, and what each part takes along."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from rapp.errors import ConfigError, GraphError
from rapp.runtime.cuts import CutOutcome, CuttableNetwork, _balanced

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
node = helper.make_node


def model(
    nodes: Sequence[NodeProto], inputs: dict[str, Any], outputs: Sequence[str], **weights: Any
) -> ModelProto:
    """A float32 network."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "made",
        [info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def matmul(left: str, right: str, output: str) -> NodeProto:
    return node("MatMul", [left, right], [output])


def chain(*operators: str) -> ModelProto:
    """x -> t0 -> t1 ... over (8, 8); MatMul and Add have a weight of their own."""
    nodes, weights, last = [], {}, "x"
    for place, operator in enumerate(operators):
        extra = [f"w{place}"] if operator in ("MatMul", "Add") else []
        weights |= {name: np.full((8, 8), 0.1, np.float32) for name in extra}
        nodes.append(node(operator, [last, *extra], [f"t{place}"]))
        last = f"t{place}"
    return model(nodes, {"x": (8, 8)}, [last], **weights)


def points(source: ModelProto) -> list[int]:
    return CuttableNetwork.load(source).points.tolist()


def test_a_chain_is_cut_where_nothing_is_fused() -> None:
    assert points(chain("MatMul", "MatMul", "MatMul")) == [1, 2]
    assert points(chain("MatMul", "Add", "Relu", "MatMul", "Sigmoid", "MatMul")) == [3, 5]
    assert points(chain("MatMul", "Transpose", "MatMul")) == [1]


def test_three_tensors_may_cross_a_cut_and_four_may_not() -> None:
    def fan(width: int) -> ModelProto:
        branches = [node("MatMul", ["x", "w"], [f"b{place}"]) for place in range(width)]
        ends = [node("MatMul", [f"b{place}", "w"], [f"c{place}"]) for place in range(width)]
        join = node("Sum", [f"c{place}" for place in range(width)], ["y"])
        return model([*branches, *ends, join], {"x": (8, 8)}, ["y"], w=np.eye(8, dtype=np.float32))

    assert 3 in points(fan(3))
    assert set(points(fan(6))).isdisjoint(range(4, 9))


def test_a_mask_crosses_beside_the_data() -> None:
    eye = np.eye(8, dtype=np.float32)
    nodes = [matmul("x", "w", "a"), node("Mul", ["a", "mask"], ["b"])]
    nodes += [matmul("b", "w", "c"), node("Mul", ["c", "mask"], ["y"])]
    network = CuttableNetwork.load(model(nodes, {"x": (8, 8), "mask": (8, 8)}, ["y"], w=eye))
    assert network.points.tolist() == [2]
    assert network.graph.ends(0, 2) == (["x", "mask"], ["b"])
    assert network.graph.ends(2, 4) == (["b", "mask"], ["y"])


def test_large_weights_that_both_sides_need_forbid_the_cut() -> None:
    def tied(width: int) -> list[int]:
        weight = np.zeros((width, width), np.float32)
        nodes = [matmul("x", "w", "a"), matmul("a", "v", "b"), matmul("b", "u", "c")]
        nodes += [node("Transpose", ["w"], ["wt"]), matmul("c", "wt", "d"), matmul("d", "v", "y")]
        return points(model(nodes, {"x": (1, width)}, ["y"], w=weight, v=weight, u=weight))

    # 4 * 513^2 bytes are just above 1 MiB. w is needed first and fourth, v second and last.
    assert tied(512) == [1, 4]
    assert tied(513) == []
    assert tied(64) == [1, 2, 3, 4]


def test_weights_are_in_one_part_each() -> None:
    path = LIGHT / "light_resnet50.onnx"
    network = CuttableNetwork.load(path)
    parts = [network.graph.part(part.first, part.end) for part in network.plan(8).parts]
    names = [one.name for part in parts for one in part.graph.initializer]
    made = [value for part in parts for one in part.graph.node for value in one.output]
    assert len(names) == len(set(names))
    assert len(made) == len(set(made))
    whole = network.graph.part(0, len(network.graph.nodes))
    assert set(names) == {one.name for one in whole.graph.initializer}
    assert set(made) == {value for one in whole.graph.node for value in one.output}


def test_weights_that_may_be_overridden_stay_so() -> None:
    """Listed among the inputs, they are not constant to a runtime, which then folds nothing into them."""
    source = chain("MatMul", "MatMul")
    listed = helper.make_tensor_value_info("w1", TensorProto.FLOAT, (8, 8))
    source.graph.input.append(listed)
    graph = CuttableNetwork.load(source).graph
    assert [one.name for one in graph.part(0, 1).graph.input] == ["x"]
    assert [one.name for one in graph.part(1, 2).graph.input] == ["t0", "w1"]


def test_parts_are_even() -> None:
    for name in ("light_resnet50", "light_shufflenet"):
        network = CuttableNetwork.load(LIGHT / f"{name}.onnx")
        for count in (2, 4, 8):
            plan = network.plan(count)
            assert (len(plan), plan.outcome) == (count, CutOutcome.CUT)
            assert sum(part.share for part in plan.parts) == pytest.approx(1)
            assert max(part.share for part in plan.parts) < 1.25 / count
            assert [a.end for a in plan.parts[:-1]] == [b.first for b in plan.parts[1:]]
            assert (plan.parts[0].first, plan.ends[-1]) == (0, len(network.graph.nodes))


@example([0, 1], 2, 0.0)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=8).filter(any), st.integers(1, 5), st.floats(0, 0.4))
def test_no_other_choice_of_cuts_is_more_even(sizes: list[int], parts: int, least: float) -> None:
    reached = np.concatenate([[0], np.cumsum(sizes)]) / sum(sizes)
    found = _balanced(reached, parts, least)

    def price(ends: Sequence[int]) -> float:
        steps = [reached[b] - reached[a] for a, b in pairwise(ends)]
        return sum(step**2 for step in steps) if all(s > 0 and s >= least for s in steps) else np.inf

    last = len(sizes)
    choices = [[0, *inside, last] for n in range(parts) for inside in combinations(range(1, last), n)]
    most = max(len(one) for one in choices if np.isfinite(price(one)))
    assert len(found) == most
    assert price(found) == pytest.approx(min(price(one) for one in choices if len(one) == most))


def test_measured_times_move_the_cuts() -> None:
    network = CuttableNetwork.load(chain(*["MatMul"] * 12))
    plan = network.plan(2)
    assert plan.ends == (6, 12)
    weighed = network.weighed(plan, [30.0, 10.0])
    assert weighed.costs.sum() == pytest.approx(40)
    assert weighed.plan(2).ends == (4, 12)
    assert weighed.plan_by_time(part_ms=10, least_ms=2, most=99).ends == (2, 4, 6, 12)
    assert weighed.plan_by_time(part_ms=10, least_ms=2, most=2).ends == (4, 12)
    # Six steps of 5 ms and six of 10 / 6: seven parts would be asked for, if none had to have 5.5 ms.
    shares = [part.share for part in weighed.plan_by_time(part_ms=6, least_ms=5.5, most=99).parts]
    assert len(shares) < 7
    assert min(shares) >= 5.5 / 40


def test_one_part_says_why() -> None:
    network = CuttableNetwork.load(chain("MatMul", "MatMul"))
    assert network.plan(1).outcome is CutOutcome.ASKED
    assert network.plan(3).outcome is CutOutcome.CUT
    assert network.plan(2, least_share=0.6).outcome is CutOutcome.TOO_SHORT
    timed = network.weighed(network.plan(1), [3.0])
    assert timed.plan_by_time(5, 2, 9).outcome is CutOutcome.TOO_SHORT
    whole = CuttableNetwork.load(chain("MatMul", "Add", "Relu"))
    assert whole.points.size == 0
    assert whole.plan(4).outcome is CutOutcome.NO_CUT_POINT
    assert "no cut point" in whole.plan(4).outcome.value
    assert whole.weighed(whole.plan(1), [3.0]).plan_by_time(5, 2, 9).outcome is CutOutcome.NO_CUT_POINT
    with pytest.raises(ConfigError, match="parts is 0"):
        network.plan(0)


def test_the_source_is_left_as_it_is() -> None:
    source = chain("MatMul", "MatMul")
    before = source.SerializeToString()
    network = CuttableNetwork.load(source)
    network.graph.part(0, 1)
    assert source.SerializeToString() == before


def test_external_data_of_a_model_in_memory_are_refused(tmp_path: Path) -> None:
    onnx.save(chain("MatMul", "MatMul"), tmp_path / "a.onnx", save_as_external_data=True, size_threshold=0)
    source = onnx.load(tmp_path / "a.onnx", load_external_data=False)
    with pytest.raises(GraphError, match="external data, whose folder is not known: pass the path"):
        CuttableNetwork.load(source)
    with pytest.raises(GraphError, match="No such file"):
        CuttableNetwork.load(tmp_path / "none.onnx")
