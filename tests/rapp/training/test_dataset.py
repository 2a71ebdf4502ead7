"""From profile rows and graph files to the arrays of a training."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from rapp.errors import ConfigError, GraphError
from rapp.graph import OperatorGraph
from rapp.profiles import ProfileTable
from rapp.training.dataset import TrainingSet, load_training_set, observations
from rapp.types import QuotaKind

Rows = Callable[..., list[dict[str, Any]]]
GATE, LIMIT = QuotaKind.LAUNCH_GATE, QuotaKind.GPU_TIME


def test_points_stand_on_the_knots_of_their_configuration(rows_of: Rows, limited: TrainingSet) -> None:
    rows = [row for row in rows_of(limited.names, LIMIT) if row["network"] == "vgg11"]
    points, knots = limited.points["vgg11"], limited.knots
    assert len(points) == len(rows) == 24
    for column, axis, index in (
        ("batch", knots.batch, points.batch),
        ("sm_pct", knots.sm_pct, points.sm),
        ("quota_pct", knots.quota_pct, points.quota),
    ):
        assert axis[index].tolist() == [row[column] for row in rows]
    np.testing.assert_allclose(np.exp(points.log_latency), [row["latency_ms"] for row in rows])
    np.testing.assert_allclose(100 * points.quota_share, [row["quota_pct"] for row in rows])
    assert points.gpu_time.all()
    assert points.credit == 2.0
    assert limited.rows == 5 * 24


def test_a_training_set_knows_its_graphs(gated: TrainingSet, zoo: Path) -> None:
    graph = OperatorGraph.from_onnx(zoo / "resnet18.onnx")
    assert gated.graph_hashes["resnet18"] == graph.graph_hash
    assert len(gated.features["resnet18"].operators) == len(graph.operators)
    assert {"Conv", "Relu", "MaxPool", "HardSwish", "Gemm"} <= set(gated.operator_types)
    assert list(gated.operator_types) == sorted(set(gated.operator_types))
    assert gated.campaign.quota_kinds == ("launch_gate",)


def test_a_part_keeps_the_knots(gated: TrainingSet) -> None:
    part = gated.only(["vgg11", "alexnet"])
    assert part.names == ("vgg11", "alexnet")
    assert part.rows == 48
    assert part.knots is gated.knots


def test_mixed_kinds_share_a_training(rows_of: Rows, zoo: Path) -> None:
    rows = rows_of(["alexnet"], GATE) + rows_of(["alexnet"], LIMIT)
    data = load_training_set(ProfileTable.from_rows(rows), zoo)
    assert data.campaign.quota_kinds == ("gpu_time", "launch_gate")
    assert data.points["alexnet"].gpu_time.sum() == 24


@pytest.mark.parametrize("column", ["device", "runtime", "precision"])
def test_rows_of_two_devices_are_refused(rows_of: Rows, zoo: Path, column: str) -> None:
    rows = rows_of(["alexnet"], GATE) + rows_of(["vgg11"], GATE, **{column: "another"})
    with pytest.raises(ConfigError, match=f"several values of {column} .*another"):
        load_training_set(ProfileTable.from_rows(rows), zoo)


@pytest.mark.parametrize("column", ["idle_ms", "window_ms"])
def test_rows_of_two_loops_are_refused(rows_of: Rows, zoo: Path, column: str) -> None:
    rows = rows_of(["alexnet"], LIMIT) + rows_of(["vgg11"], LIMIT, **{column: 7.0})
    with pytest.raises(ConfigError, match=f"several values of {column}"):
        load_training_set(ProfileTable.from_rows(rows), zoo)


def test_a_loop_that_is_not_known_gives_no_credit(rows_of: Rows, zoo: Path) -> None:
    unknown = rows_of(["alexnet"], LIMIT, idle_ms=None, window_ms=None)
    assert load_training_set(ProfileTable.from_rows(unknown), zoo).campaign.credit == 0.0
    # A window that is not known is taken to be no shorter than the pause; a shorter one caps the credit.
    for window, credit in ((None, 2.0), (0.5, 0.5)):
        rows = rows_of(["alexnet"], LIMIT, window_ms=window)
        assert load_training_set(ProfileTable.from_rows(rows), zoo).campaign.credit == credit


def test_a_missing_graph_names_its_file(rows_of: Rows, zoo: Path, tmp_path: Path) -> None:
    shutil.copy(zoo / "alexnet.onnx", tmp_path)
    table = ProfileTable.from_rows(rows_of(["alexnet", "vgg11"], GATE))
    with pytest.raises(GraphError, match=r"vgg11\.onnx: there is no graph for the network vgg11"):
        load_training_set(table, tmp_path)
    assert load_training_set(table, tmp_path, ["alexnet"]).names == ("alexnet",)


def test_the_graph_must_be_that_of_the_profiled_network(rows_of: Rows, zoo: Path, gated: TrainingSet) -> None:
    right = rows_of(["vgg11"], GATE, graph_hash=gated.graph_hashes["vgg11"])
    load_training_set(ProfileTable.from_rows(right), zoo)
    wrong = rows_of(["vgg11"], GATE, graph_hash=gated.graph_hashes["alexnet"])
    with pytest.raises(GraphError, match=r"vgg11\.onnx: its graph hash is .*it is another network"):
        load_training_set(ProfileTable.from_rows(wrong), zoo)


def test_an_unknown_network_gets_the_nearest_name(rows_of: Rows, zoo: Path) -> None:
    table = ProfileTable.from_rows(rows_of(["alexnet", "vgg11"], GATE))
    with pytest.raises(ConfigError, match="no network vgg12; near: vgg11"):
        load_training_set(table, zoo, ["vgg12"])


def test_nothing_to_train_on_is_told(rows_of: Rows, zoo: Path) -> None:
    with pytest.raises(ConfigError, match="no measured rows"):
        load_training_set(ProfileTable.from_rows([]), zoo)
    with pytest.raises(ConfigError, match="no measured rows"):
        load_training_set(ProfileTable.from_rows(rows_of(["alexnet"], GATE)), zoo, [])
    rows = rows_of(["alexnet"], GATE) + rows_of(["vgg11"], GATE, derived=True)
    with pytest.raises(ConfigError, match="no measured point of the network 'vgg11'"):
        load_training_set(ProfileTable.from_rows(rows), zoo)


def test_a_graph_without_operators_is_refused(rows_of: Rows, tmp_path: Path) -> None:
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])
    model = helper.make_model(
        helper.make_graph([], "empty", [info], [info]), opset_imports=[helper.make_opsetid("", 20)]
    )
    model.ir_version = 10
    onnx.save(model, tmp_path / "alexnet.onnx")
    with pytest.raises(GraphError, match="alexnet"):
        load_training_set(ProfileTable.from_rows(rows_of(["alexnet"], GATE)), tmp_path)


def test_rows_beside_the_knots_go_to_the_nearest(rows_of: Rows, gated: TrainingSet) -> None:
    rows = rows_of(["alexnet"], GATE)
    moved = [row | {"sm_pct": row["sm_pct"] * 0.97} for row in rows]
    found = observations(ProfileTable.from_rows(moved), "alexnet", gated.knots, 0.0)
    np.testing.assert_array_equal(found.sm, gated.points["alexnet"].sm)
