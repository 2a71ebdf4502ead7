"""Chains of sessions answer as the whole network does, and let a gate in between."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from rapp.errors import ConfigError, DataError, GraphError
from rapp.runtime import GateClosedError, QuotaBlock, QuotaGate, cpu_session
from rapp.runtime.cut_session import CutSession, ProviderError
from rapp.runtime.cuts import CutOutcome, CuttableNetwork

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
CPU = ["CPUExecutionProvider"]
node = helper.make_node


def model(
    nodes: Sequence[NodeProto], inputs: dict[str, Any], outputs: Sequence[str], **weights: NDArray[Any]
) -> ModelProto:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "made",
        [info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def residual(blocks: int, channels: int = 16, size: int | str = 32, batch: int | str = 1) -> ModelProto:
    """Blocks of two convolutions with batch normalisation and a shortcut; seeded random weights."""
    rng = np.random.default_rng(3)
    nodes, weights, last = [], {}, "x"
    for block in range(blocks):
        inner = last
        for layer in range(2):
            tag = f"{block}_{layer}"
            weights[f"w{tag}"] = rng.normal(0, (9 * channels) ** -0.5, (channels, channels, 3, 3))
            names = [f"{kind}{tag}" for kind in ("scale", "bias", "mean", "var")]
            weights |= {name: 1 + 0.1 * rng.random(channels) for name in names}
            nodes.append(node("Conv", [inner, f"w{tag}"], [f"conv{tag}"], pads=[1, 1, 1, 1]))
            nodes.append(node("BatchNormalization", [f"conv{tag}", *names], [f"norm{tag}"]))
            inner = f"norm{tag}"
            if layer == 0:
                nodes.append(node("Relu", [inner], [f"relu{tag}"]))
                inner = f"relu{tag}"
        nodes += [
            node("Add", [last, inner], [f"add{block}"]),
            node("Relu", [f"add{block}"], [f"block{block}"]),
        ]
        last = f"block{block}"
    arrays = {name: value.astype(np.float32) for name, value in weights.items()}
    return model(nodes, {"x": (batch, channels, size, size)}, [last], **arrays)


def light(name: str) -> ModelProto:
    """A network of the onnx package with seeded random weights, without its last softmax, which would hide
    differences."""
    source = onnx.load(LIGHT / f"light_{name}.onnx")
    rng = np.random.default_rng(5)
    shapes = {one.name: numpy_helper.to_array(one) for one in source.graph.initializer if one.data_type == 7}
    kept = []
    for one in source.graph.node[:-1]:
        if one.op_type != "ConstantOfShape":
            kept.append(one)
            continue
        dims = shapes[one.input[0]].tolist()
        fan_in = np.prod(dims[1:]) if len(dims) > 1 else 100
        values = rng.normal(0, (2 / fan_in) ** 0.5, dims).astype(np.float32)
        if len(dims) == 1:
            values = 1 + np.abs(values)  # scales and variances among them
        source.graph.initializer.append(numpy_helper.from_array(values, one.output[0]))
    assert source.graph.node[-1].op_type == "Softmax"
    last = source.graph.node[-1].input[0]
    del source.graph.node[:], source.graph.output[:]
    source.graph.node.extend(kept)
    source.graph.output.append(helper.make_tensor_value_info(last, TensorProto.FLOAT, None))
    return source


def inputs(source: ModelProto, seed: int = 0, **dims: int) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    session = cpu_session(source.SerializeToString())
    return {
        one.name: rng.standard_normal([dims.get(dim, dim) for dim in one.shape]).astype(np.float32)
        for one in session.get_inputs()
    }


def cut(source: Path | ModelProto, parts: int) -> CutSession:
    network = CuttableNetwork.load(source)
    plan = network.plan(parts)
    assert len(plan) == parts
    return CutSession(network, plan, providers=CPU)


def assert_same(found: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]]) -> None:
    """But for rounding: what a runtime fuses and how it lays tensors out may differ at a cut."""
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6 * np.abs(other).max())


@pytest.mark.parametrize("parts", [2, 5])
@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "residual"])
def test_the_parts_answer_as_the_whole(name: str, parts: int) -> None:
    source = residual(6) if name == "residual" else light(name)
    whole, chain = cpu_session(source.SerializeToString()), cut(source, parts)
    answers = []
    for seed in (1, 2):
        feeds = inputs(source, seed)
        expected, found = whole.run(None, feeds), chain.run(feeds)
        assert_same(found, expected)
        answers.append(found[0])
    assert np.abs(answers[0] - answers[1]).max() > 0.01 * np.abs(answers[0]).max()


def test_an_open_batch_stays_open() -> None:
    source = residual(4, batch="batch")
    whole, chain = cpu_session(source.SerializeToString()), cut(source, 3)
    for batch in (1, 3):
        feeds = inputs(source, batch=batch)
        assert_same(chain.run(feeds), whole.run(None, feeds))


def test_masks_early_outputs_and_outputs_that_nobody_computes() -> None:
    w = np.random.default_rng(1).standard_normal((8, 8)).astype(np.float32)
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Mul", ["a", "mask"], ["early"]),
        node("Constant", [], ["c"], value=numpy_helper.from_array(2 * w)),
        node("MatMul", ["early", "c"], ["b"]),
        node("Neg", ["b"], ["unused"]),
        node("MatMul", ["b", "c"], ["d"]),
        node("Mul", ["d", "mask"], ["late"]),
    ]
    shape = (8, 8)
    source = model(nodes, {"x": shape, "mask": shape, "spare": shape}, ["late", "x", "w", "early"], w=w)
    chain, feeds = cut(source, 3), inputs(source)
    x, mask = feeds["x"], feeds["mask"]
    early = x @ w * mask
    late = early @ (2 * w) @ (2 * w) * mask
    assert_same(chain.run(feeds), (late, x, w, early))


def test_what_a_branch_reads_from_outside_comes_along() -> None:
    w = np.random.default_rng(1).standard_normal((8, 8)).astype(np.float32)
    info = [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)]
    branches = [
        helper.make_graph([node("MatMul", ["b", weight], ["out"])], weight, [], info) for weight in ("w", "v")
    ]
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("MatMul", ["a", "v"], ["b"]),
        node("ReduceSum", ["b"], ["total"], keepdims=0),
        node("Cast", ["total"], ["positive"], to=TensorProto.BOOL),
        node("If", ["positive"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    source = model(nodes, {"x": (8, 8)}, ["y"], w=w, v=2 * w)
    chain, feeds = cut(source, 3), inputs(source)
    assert_same(chain.run(feeds), [feeds["x"] @ w @ (2 * w) @ w])


def test_external_data_stay_where_they_are(tmp_path: Path) -> None:
    source, path = residual(4), tmp_path / "network.onnx"
    feeds, expected = inputs(source), cpu_session(source.SerializeToString())
    weights_bytes = sum(len(one.raw_data) for one in source.graph.initializer)
    onnx.save(source, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    network = CuttableNetwork.load(path)
    assert network.graph.part(0, len(network.graph.nodes)).ByteSize() < weights_bytes / 10
    chain = CutSession(network, network.plan(3), providers=CPU)
    assert_same(chain.run(feeds), expected.run(None, feeds))
    (tmp_path / "weights.bin").unlink()
    with pytest.raises((GraphError, DataError), match=r"network\.onnx"):
        cut(path, 3)


@pytest.mark.parametrize("seed", range(4))
def test_open_cuts_by_the_times_that_it_measures(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine where each operator takes a time that nothing foretells, and each part 0.1 ms more."""
    source = residual(8)
    operators_ms = np.random.default_rng(seed).lognormal(0, 1, len(source.graph.node))
    operators_ms *= 30 / operators_ms.sum()
    made: list[CutSession] = []

    def measured_ms(self: CutSession, feeds: object) -> tuple[float, ...]:
        made.append(self)
        return tuple(0.1 + float(operators_ms[part.first : part.end].sum()) for part in self.plan.parts)

    monkeypatch.setattr(CutSession, "_measured_ms", measured_ms)
    chain = CutSession.open(source, inputs(source), providers=CPU, part_ms=5, least_ms=2)
    assert chain.part_ms is not None
    assert [len(one.plan) for one in made[:2]] == [1, 6]
    assert len(chain.part_ms) == len(chain.plan) in (4, 5, 6)
    assert min(chain.part_ms) >= 2
    # Seven cut points, one a block, and a network whose costs were guessed: the first cuts are less even.
    assert max(chain.part_ms) <= max(made[1].part_ms or ())
    assert (
        chain.summary == f"{len(chain.plan)} parts of {min(chain.part_ms):.1f} to {max(chain.part_ms):.1f} ms"
    )


def test_open_measures_on_this_machine() -> None:
    source = residual(10, channels=32, size=40)
    feeds = inputs(source)
    chain = CutSession.open(source, feeds, providers=CPU, part_ms=2, least_ms=0.5)
    assert chain.part_ms is not None
    assert min(chain.part_ms) >= 0.5
    assert_same(chain.run(feeds), cpu_session(source.SerializeToString()).run(None, feeds))


def test_open_says_why_there_is_one_part() -> None:
    source = residual(2)
    short = CutSession.open(source, inputs(source), providers=CPU, part_ms=1000)
    assert (len(short.plan), short.plan.outcome) == (1, CutOutcome.TOO_SHORT)
    assert short.summary.startswith("one part: any cut would leave a part that is too short, ")
    single = model([node("Relu", ["x"], ["y"])], {"x": (8, 8)}, ["y"])
    whole = CutSession.open(single, inputs(single), providers=CPU, part_ms=1e-6, least_ms=0)
    assert (len(whole.plan), whole.plan.outcome) == (1, CutOutcome.NO_CUT_POINT)
    for part_ms, least_ms in ((0, 0), (1, 2), (5, -1), (float("nan"), 0), (float("inf"), 0)):
        with pytest.raises(ConfigError, match="least_ms"):
            CutSession.open(single, {}, providers=CPU, part_ms=part_ms, least_ms=least_ms)


@pytest.mark.parametrize("parts", [1, 5])
def test_the_gate_charges_each_part_and_holds_back_no_more_than_one(parts: int) -> None:
    """20 ms of device time in all, on a virtual clock, at 50 %."""
    source = residual(6)
    feeds, chain = inputs(source), cut(source, parts)
    expected = chain.run(feeds)
    now_ns = [0]

    def pass_ms(duration_ms: float) -> float:
        now_ns[0] += round(duration_ms * 1e6)
        return duration_ms

    def sleep_s(duration_s: float) -> None:
        pass_ms(1e3 * duration_s)

    with QuotaBlock.anonymous(50, window_ms=1) as block:
        gate = QuotaGate(block, clock_ns=lambda: now_ns[0], sleep_s=sleep_s)
        gate.charge(0.5)
        found = chain.run(feeds, gate, device_ms=lambda: pass_ms(20 / parts))
        counted = block.statistics
    np.testing.assert_array_equal(found[0], expected[0])
    assert counted.groups == 1 + parts
    assert counted.max_debt_ms == pytest.approx(10 / parts)
    assert now_ns[0] == pytest.approx(40e6)


def test_the_callers_device_time_is_what_is_charged_and_a_closed_gate_ends_the_chain() -> None:
    source = residual(3)
    feeds, chain = inputs(source), cut(source, 3)
    with QuotaBlock.anonymous(100) as block:
        gate = QuotaGate(block)
        chain.run(feeds, gate, device_ms=lambda: 0.25)
        assert block.statistics.used_ms == 0.75
        gate.close()
        with pytest.raises(GateClosedError):
            chain.run(feeds, gate)


def test_feeds_and_providers_that_are_not_there() -> None:
    source = residual(2)
    chain, feeds = cut(source, 2), inputs(source)
    with pytest.raises(ConfigError, match="the feeds are nothing: the network's inputs are x"):
        chain.run({})
    with pytest.raises(ConfigError, match="the feeds are x, z: "):
        chain.run(feeds | {"z": feeds["x"]})
    network = CuttableNetwork.load(source)
    with pytest.raises(ProviderError, match=r"NoSuchProvider is not among .*CPUExecutionProvider"):
        CutSession(network, network.plan(2), providers=[("NoSuchProvider", {"device_id": 1}), *CPU])
    with pytest.raises(ProviderError, match="no provider was named"):
        CutSession(network, network.plan(2), providers=[])
    unknown = model([node("NoSuchOperator", ["x"], ["y"], domain="here")], {"x": (1,)}, ["y"])
    unknown.opset_import.append(helper.make_opsetid("here", 1))
    unknown.graph.output[0].type.CopyFrom(unknown.graph.input[0].type)
    with pytest.raises(DataError, match=r"operators 0 to 0: ONNX Runtime cannot load it: .*NoSuchOperator"):
        cut(unknown, 1)
