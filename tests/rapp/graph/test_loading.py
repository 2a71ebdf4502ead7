"""Files: what is not ONNX, what is cut short, and data in other files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from rapp.errors import GraphError
from rapp.graph import OperatorGraph, with_batch

node = helper.make_node
Make = Callable[..., ModelProto]


@pytest.fixture
def network(make_model: Make) -> ModelProto:
    """Batch 1, with a Reshape target in an initializer, so that external data matter for shapes."""
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Reshape", ["a", "s"], ["y"])]
    return make_model(nodes, {"x": [1, 600]}, ["y"], {"w": np.ones((600, 6)), "s": [1, 2, 3]})


def save(model: ModelProto, path: Path, location: str = "weights.bin") -> Path:
    onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def test_external_data(network: ModelProto, tmp_path: Path) -> None:
    whole = OperatorGraph.from_onnx(network).graph_hash
    path = save(network, tmp_path / "net.onnx")
    graph = OperatorGraph.from_onnx(path)
    assert graph.graph_hash == whole
    assert graph.params == 3600
    (made,) = with_batch(path, 2).graph.initializer
    assert np.array_equal(onnx.numpy_helper.to_array(made), np.ones((600, 6)))


def test_weights_that_are_missing_do_not_matter_but_shapes_do(network: ModelProto, tmp_path: Path) -> None:
    path = save(network, tmp_path / "net.onnx")
    model = onnx.load(path, load_external_data=False)
    weight, target = model.graph.initializer
    assert (weight.name, target.name) == ("w", "s")
    entries = {entry.key: entry for entry in weight.external_data}
    entries["location"].value = "elsewhere.bin"
    path.write_bytes(model.SerializeToString())
    assert OperatorGraph.from_onnx(path).params == 3600
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(GraphError, match="initializer s: external data: No such file"):
        OperatorGraph.from_onnx(path)


@pytest.mark.parametrize(
    "location", ["../secret.bin", "/etc/hostname", "inner/../../secret.bin", "", "link.bin", "."]
)
@pytest.mark.parametrize("name", ["s", "w"])
def test_data_outside_the_folder_are_refused(
    network: ModelProto, tmp_path: Path, location: str, name: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(np.array([1, 2, 3]).tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    tensor = next(tensor for tensor in network.graph.initializer if tensor.name == name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path = folder / "net.onnx"
    path.write_bytes(network.SerializeToString())
    for read in (OperatorGraph.from_onnx, lambda p: with_batch(p, 2)):
        with pytest.raises(GraphError, match=f"initializer {name}: external data at '.*' lie outside"):
            read(path)


def test_external_data_too_short(network: ModelProto, tmp_path: Path) -> None:
    path = save(network, tmp_path / "net.onnx")
    (tmp_path / "weights.bin").write_bytes(b"12")
    with pytest.raises(GraphError, match="initializer s"):
        OperatorGraph.from_onnx(path)


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"not a network", b"\x89PNG\r\n\x1a\n", b"{}"])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(GraphError) as caught:
        OperatorGraph.from_onnx(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_every_truncation_is_an_error_or_the_network(light: Path, tmp_path: Path) -> None:
    """Wherever a file is cut, the reader says so or finds a network that is whole: it never crashes."""
    data = (light / "light_squeezenet.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    whole = OperatorGraph.from_onnx(light / "light_squeezenet.onnx")
    for end in [*range(0, len(data), 1499), len(data) - 1, len(data) - 5]:
        path.write_bytes(data[:end])
        try:
            found = OperatorGraph.from_onnx(path)
        except GraphError:
            continue
        assert found.graph_hash == whole.graph_hash


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="No such file"):
        OperatorGraph.from_onnx(tmp_path / "none.onnx")
    with pytest.raises(GraphError, match="Is a directory"):
        OperatorGraph.from_onnx(tmp_path)


def test_old_opset(make_model: Make) -> None:
    model = make_model([node("Relu", ["x"], ["y"])], {"x": ["N", 4]}, ["y"], opset=6)
    with pytest.raises(GraphError, match="opset 6"):
        OperatorGraph.from_onnx(model)


def test_weights_listed_as_inputs(make_model: Make, run: Callable[..., list[list[Any]]]) -> None:
    """Before IR version 4 every initializer had to be an input too."""
    model = make_model([node("Reshape", ["x", "s"], ["y"])], {"x": [1, 4]}, ["y"], {"s": [1, 2, 2]}, opset=9)
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info("s", TensorProto.INT64, [3]))
    graph = OperatorGraph.from_onnx(model)
    assert [spec.name for spec in graph.inputs] == ["x"]
    rewritten = with_batch(model, 3)
    assert [value.name for value in rewritten.graph.input] == ["x"]
    ((made,),) = run(rewritten, {"x": np.ones((3, 4), np.float32)})
    assert made.shape == (3, 2, 2)
