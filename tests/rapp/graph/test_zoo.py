"""The committed operator graphs of torchvision against the figures that torchvision publishes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

ZOO = Path(__file__).resolve().parents[3] / "datasets" / "graphs"
NAMES = sorted(path.stem for path in ZOO.glob("*.onnx"))
ROWS = json.loads((ZOO / "torchvision_published.json").read_text())["rows"]
Parsed = Callable[[Path], Any]

# Published with an auxiliary head that eval() does not run: 3,326,696 parameters.
AUXILIARY = {"inception_v3": 3_326_696}
# In Swin's files the attention masks count as parameters, and in Swin v2's the ones that pad a bias.
SWIN_CONSTANTS = {"swin_b": 201_684, "swin_s": 201_684, "swin_t": 201_684}

# The 57 networks of the public V100 profiles are among these.
FAMILIES = {
    "alexnet": 1, "convnext": 4, "densenet": 4, "efficientnet": 11, "googlenet": 1, "inception_v3": 1,
    "maxvit": 1, "mnasnet": 4, "mobilenet": 3, "regnet_x": 7, "regnet_y": 8, "resnet": 5, "resnext": 3,
    "shufflenet": 4, "squeezenet": 2, "vgg": 8, "wide_resnet": 2,
}  # fmt: skip


def test_every_family_is_complete() -> None:
    assert sum(FAMILIES.values()) == 69
    for family, count in FAMILIES.items():
        assert len([name for name in NAMES if name.startswith(family)]) == count, family
    assert sum(path.stat().st_size for path in ZOO.iterdir()) < 8e6


@pytest.mark.parametrize("name", NAMES)
def test_graph(zoo: Path, parsed: Parsed, name: str) -> None:
    graph = parsed(zoo / f"{name}.onnx")
    assert graph.fixed_batch == 1
    assert graph.only_batch is None
    # The batch is the only thing that grows: work is proportional to it.
    assert graph.macs(8) == 8 * graph.macs(1)
    assert [spec.shape[0](5) for spec in (*graph.inputs, *graph.outputs)] == [5, 5]
    source, target = graph.edges
    assert np.all(source < target)
    assert set(range(1, len(graph))) <= set(target.tolist()), "an operator that reads nothing"
    assert set(range(len(graph) - 1)) <= set(source.tolist()), "an operator that nothing reads"
    for quantity in ("macs", "flops", "input_bytes", "weight_bytes", "output_bytes"):
        values = graph.array(quantity, 4)
        assert values.shape == (len(graph),)
        assert values.sum() == graph.total(quantity, 4)
    weights = graph.array("weight_bytes", 1)
    assert np.array_equal(weights, graph.array("weight_bytes", 8)) or name.startswith("vit"), (
        "class token expands"
    )
    row = next((row for row in ROWS if (row["network"], row["size_px"]) == (name, 224)), None)
    if row is not None:
        assert graph.macs(1) / 1e9 == pytest.approx(row["published_gmacs"], rel=0.02)
        assert graph.macs(1) / 1e9 == pytest.approx(row["measured_gmacs"], abs=1e-6)
        assert graph.params == row["published_params"] + SWIN_CONSTANTS.get(name, 0)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['network']}-{row['size_px']}")
def test_measured_at_the_size_of_the_weights(row: dict[str, Any]) -> None:
    """At other sizes than 224 the script measures, since that needs torchvision, and leaves its figures."""
    assert row["measured_gmacs"] == pytest.approx(row["published_gmacs"], rel=0.02)
    name = row["network"]
    if not name.startswith("swin"):
        assert row["measured_params"] == row["published_params"] - AUXILIARY.get(name, 0)


def test_published_figures_cover_every_network() -> None:
    assert {row["network"] for row in ROWS} == set(NAMES)


def test_hashes_tell_all_networks_apart(zoo: Path, parsed: Parsed) -> None:
    hashes = {parsed(zoo / f"{name}.onnx").graph_hash for name in NAMES}
    assert len(hashes) == len(NAMES)


def test_files_hold_structure_only(zoo: Path) -> None:
    model = onnx.load(zoo / "resnet18.onnx")
    weights = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    assert len(weights) == 102  # 20 convolutions, 4 tensors of 20 normalisations, 2 of the last layer
    assert not any(tensor.raw_data or tensor.float_data for tensor in weights)


def test_operators_are_those_of_eager_mode(zoo: Path, parsed: Parsed) -> None:
    """Nothing is fused that PyTorch launches apart, and nothing is split that it launches at once."""
    counts = parsed(zoo / "resnet18.onnx").op_counts
    assert counts == {
        "Conv": 20, "BatchNormalization": 20, "Relu": 17, "Add": 8, "MaxPool": 1, "GlobalAveragePool": 1,
        "Flatten": 1, "Gemm": 1,
    }  # fmt: skip
    assert parsed(zoo / "mobilenet_v3_large.onnx").op_counts["HardSwish"] == 21
    convnext = parsed(zoo / "convnext_tiny.onnx").op_counts
    assert (convnext["LayerNormalization"], convnext["Gelu"]) == (23, 18)
    assert not {"Constant", "Shape", "Identity", "Cast"} & set(parsed(zoo / "maxvit_t.onnx").op_counts)
