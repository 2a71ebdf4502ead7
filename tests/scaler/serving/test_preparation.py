"""Networks are prepared once for all functions that share them, and what is wrong names a function."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

pytest.importorskip("uvicorn", reason="needs the extra serve")

from scaler.functions import FunctionSpec
from scaler.serving.network import ServedNetwork
from scaler.serving.preparation import PrepareError, prepare_all
from scaler.serving.testing import random_network


def spec(name: str, network: Path | str, **given: Any) -> FunctionSpec:
    return FunctionSpec(**{"name": name, "network": str(network), "slo_ms": 100.0, "max_batch": 1} | given)


def unbatched(file: Path) -> Path:
    """Write a network whose answer is one number for all of its input."""
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["x"], ["y"], keepdims=0)],
        "mean",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    return file


def prepared(folder: Path, *functions: FunctionSpec) -> dict[str, ServedNetwork]:
    made = folder / "prepared"
    made.mkdir()
    return asyncio.run(prepare_all(functions, made))


def test_functions_of_one_file_share_what_is_prepared(tmp_path: Path) -> None:
    first, second = random_network(tmp_path / "a.onnx"), random_network(tmp_path / "b.onnx", seed=1)
    (tmp_path / "deeper").mkdir()
    link = tmp_path / "deeper" / "link.onnx"
    link.symlink_to(first)
    functions = [
        spec("one", first), spec("other", second), spec("two", first, max_batch=4), spec("three", link),
    ]  # fmt: skip
    networks = prepared(tmp_path, *functions)
    assert list(networks) == ["one", "other", "two", "three"]
    assert networks["one"] is networks["two"] is networks["three"]
    assert networks["other"].file.read_bytes() != networks["one"].file.read_bytes()
    assert len(list((tmp_path / "prepared").iterdir())) == 2
    assert all(one.batched for one in networks.values())


def test_of_functions_that_share_a_network_the_one_that_cannot_be_served_is_named(tmp_path: Path) -> None:
    file = unbatched(tmp_path / "mean.onnx")
    fine, wrong = spec("fine", file), spec("wrong", file, max_batch=2)
    assert not prepared(tmp_path, fine)["fine"].batched
    (tmp_path / "prepared").rename(tmp_path / "before")
    with pytest.raises(PrepareError, match=r"^function wrong: .*set max_batch: 1"):
        prepared(tmp_path, fine, wrong)


def test_a_name_in_a_table_cannot_be_served(tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match="function f: network resnet50 is a name"):
        prepared(tmp_path, spec("f", "resnet50"))
