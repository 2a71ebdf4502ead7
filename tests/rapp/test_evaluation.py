"""The evaluation of an artifact, on values worked out by hand."""

from __future__ import annotations

import math

import pytest

from rapp.errors import CalibrationError, ConfigError, GraphError, ProfileError
from rapp.evaluation import artifact_folder, evaluate
from rapp.profiles import ProfileTable
from rapp.types import ResourceConfig, ResourceGrid


def test_an_evaluation_has_the_error_that_was_put_in(predictor, table, graphs):
    found = evaluate(predictor(), table({"alpha": 1.25, "beta": 0.8, "gamma": 1.0}), graphs, seed=3)
    content = found.to_dict()
    assert list(content) == [
        "mape_rows", "mape_mean", "mape_median", "mape_p95", "coverage_90", "interval_score", "points",
        "seed", "per_network",
    ]  # fmt: skip
    # Measured 1.25 x predicted: off by 20 %; 0.8 x: by 25 %; the interval reaches 10 % to either side.
    assert content["mape_rows"] == pytest.approx(15)
    assert content["mape_mean"] == pytest.approx(15)
    assert content["mape_median"] == pytest.approx(20)
    assert content["mape_p95"] == pytest.approx(24.5)
    assert content["coverage_90"] == pytest.approx(100 / 3)
    outside = 20 * (math.log(1.25 / 1.1) + math.log(1.25 / 1.1)) / 3
    assert content["interval_score"] == pytest.approx(100 * (2 * math.log(1.1) + outside))
    assert (content["points"], content["seed"]) == (0, 3)
    assert {name: one["mape"] for name, one in content["per_network"].items()} == pytest.approx(
        {"alpha": 20, "beta": 25, "gamma": 0}
    )
    beta = content["per_network"]["beta"]
    assert (beta["n_rows"], beta["bias"], beta["coverage"]) == (24, pytest.approx(25), 0)
    assert beta["width"] == pytest.approx(100 * (1.1 - 1 / 1.1))
    assert (beta["trained"], beta["scored"], beta["measured"]) == (False, True, [])


def test_rows_and_networks_are_weighed_apart(predictor, table, graphs):
    small = table({"alpha": 1.25}, ResourceGrid([50], [100], [1]))
    both = ProfileTable.concat([small, table({"beta": 1.0})])
    found = evaluate(predictor(), both, graphs).to_dict()
    assert found["mape_rows"] == pytest.approx(20 / 25)
    assert found["mape_mean"] == pytest.approx(10)


def test_measured_points_calibrate_and_are_not_scored(predictor, table, graphs):
    """alpha is 25 % slower than predicted, but at the two points of the list twice as slow."""
    listed = {ResourceConfig(100, 100, 1), ResourceConfig(100, 10, 1)}
    measured = table({"alpha": lambda config: 2.0 if config in listed else 1.25})
    before = evaluate(predictor(), measured, graphs)
    assert before.to_dict()["mape_rows"] == pytest.approx((22 * 20 + 2 * 50) / 24)
    found = evaluate(predictor(), measured, graphs, points=2)
    alpha = found.to_dict()["per_network"]["alpha"]
    assert alpha["n_rows"] == 22
    assert alpha["mape"] == pytest.approx(60)  # predictions doubled against 1.25
    assert [(p["sm_pct"], p["quota_pct"], p["batch"]) for p in alpha["measured"]] == [
        (100, 100, 1), (100, 10, 1),
    ]  # fmt: skip
    assert alpha["measured"][0]["latency_ms"] == pytest.approx(16)
    assert [p["instead_of"] for p in alpha["measured"]] == [None, None]
    scored = set(zip(found.rows.sm_pct, found.rows.quota_pct, found.rows.batch, strict=True))
    assert not scored & {(100, 100, 1), (100, 10, 1)}


def test_a_listed_point_that_the_table_lacks_is_replaced_and_said(predictor, table, graphs):
    measured = table({"alpha": 1.0}, ResourceGrid([50, 80], [100], [1, 2]))
    found = evaluate(predictor(), measured, graphs, points=1).to_dict()["per_network"]["alpha"]
    assert found["measured"][0]["instead_of"] == [100, 100, 1]
    assert (found["measured"][0]["sm_pct"], found["n_rows"]) == (80, 3)


def test_networks_trained_on_are_left_out_and_marked(predictor, table, graphs):
    trained = predictor(["alpha"])
    measured = table({"alpha": 3.0, "beta": 1.0})
    (graphs / "alpha.onnx").unlink()  # it is not needed for what is left out
    found = evaluate(trained, measured, graphs)
    assert found.to_dict()["mape_rows"] == 0
    assert set(found.rows.network) == {"beta"}
    alpha = found.to_dict()["per_network"]["alpha"]
    assert (alpha["trained"], alpha["scored"], alpha["n_rows"], alpha["mape"]) == (True, False, 0, None)
    assert "trained on" in alpha["reason"]
    (graphs / "alpha.onnx").write_text("alpha")
    found = evaluate(trained, measured, graphs, include_trained=True).to_dict()
    alpha = found["per_network"]["alpha"]
    assert (alpha["trained"], alpha["scored"], alpha["mape"]) == (True, True, pytest.approx(200 / 3))
    assert found["per_network"]["beta"]["trained"] is False


def test_a_trained_network_is_found_under_another_name_and_without_a_hash_in_the_table(
    predictor, table, graphs
):
    measured = ProfileTable.from_rows(
        [row | {"network": "other", "graph_hash": None} for row in table({"alpha": 1.0}).arrow.to_pylist()]
        + table({"beta": 1.0}).arrow.to_pylist()
    )
    (graphs / "other.onnx").write_text("alpha")
    found = evaluate(predictor(["alpha"]), measured, graphs).to_dict()["per_network"]
    assert (found["other"]["trained"], found["other"]["scored"]) == (True, False)
    assert found["beta"]["scored"]


def test_if_nothing_is_left_it_says_why(predictor, table, graphs):
    with pytest.raises(ConfigError, match=r"trained on all 2 networks.*--include-trained"):
        evaluate(predictor(["alpha", "beta"]), table({"alpha": 1.0, "beta": 1.0}), graphs)
    tiny = table({"alpha": 1.0}, ResourceGrid([50], [100], [1, 2]))
    with pytest.raises(ConfigError, match="every row is one of the 3 measured points"):
        evaluate(predictor(), tiny, graphs, points=3)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("device", "T4", "its device is T4, the artifact's is NVIDIA V100-16GB"),
        ("runtime", "ort-cuda", "its runtime is ort-cuda, the artifact's is pytorch-eager"),
        ("precision", "fp16", "its precision is fp16, the artifact's is fp32"),
        ("quota_kind", "gpu_time", "its quota_kind is gpu_time, the artifact's is launch_gate"),
    ],
)
def test_a_table_that_does_not_fit_the_artifact(predictor, table, graphs, column, value, message):
    other = table({"alpha": 5.0}, **{column: value, "campaign_id": "c2"})
    with pytest.raises(ProfileError, match=message):
        evaluate(predictor(), other, graphs)
    both = ProfileTable.concat([table({"alpha": 1.0}), other])
    found = evaluate(predictor(), both, graphs)
    assert (len(found.rows), found.other_rows) == (24, 24)
    assert found.pooled.mape == 0


def test_rows_that_are_no_measured_points_are_not_scored(predictor, table, graphs):
    good = table({"alpha": 1.0})
    extra = [
        table({"alpha": 9.0}, campaign_id="anchors", anchor=True),
        table({"alpha": 9.0}, campaign_id="derived", derived=True),
        table({"alpha": 1.0}, campaign_id="failed", status="failed", latency_ms=None, reason="no memory"),
    ]
    found = evaluate(predictor(), ProfileTable.concat([good, *extra]), graphs)
    assert (len(found.rows), found.pooled.mape, found.other_rows) == (24, 0, 0)
    with pytest.raises(ProfileError, match="no measured point"):
        evaluate(predictor(), ProfileTable.concat(extra), graphs)


def test_the_pause_of_the_rows_reaches_the_predictor(predictor, table, graphs):
    gpu_time = predictor()
    gpu_time.card.quota_kinds = ["gpu_time"]
    rows = table({"beta": 1.0}, ResourceGrid([100], [50], [1]), quota_kind="gpu_time").arrow.to_pylist()
    # D = 12 ms at quota 50 %: 24 ms, with 5 ms between two batches 19 ms.
    latency = {5.0: 19.0, 0.0: 24.0, None: 24.0}
    measured = ProfileTable.from_rows(
        [row | {"idle_ms": idle, "latency_ms": ms} for row in rows for idle, ms in latency.items()]
    )
    found = evaluate(gpu_time, measured, graphs)
    assert (len(found.rows), found.pooled.mape) == (3, pytest.approx(0))


def test_graph_files(predictor, table, graphs, tmp_path):
    (graphs / "beta.onnx").rename(graphs / "betta.onnx")
    with pytest.raises(GraphError, match=r"beta\.onnx: no such file.*near: betta\.onnx"):
        evaluate(predictor(), table({"alpha": 1.0, "beta": 1.0}), graphs)
    with pytest.raises(GraphError, match="no such folder"):
        evaluate(predictor(), table({"alpha": 1.0}), tmp_path / "none")
    (graphs / "alpha.onnx").write_text("gamma")
    with pytest.raises(GraphError, match=r"alpha\.onnx: its graph hash is .* it is another network"):
        evaluate(predictor(), table({"alpha": 1.0}), graphs)


def test_networks_are_chosen_by_name(predictor, table, graphs):
    measured = table({"alpha": 1.25, "beta": 1.0})
    assert evaluate(predictor(), measured, graphs, networks=["beta"]).pooled.mape == 0
    with pytest.raises(ConfigError, match=r"no network 'alhpa' \(near: alpha\); it has 2"):
        evaluate(predictor(), measured, graphs, networks=["alhpa"])
    with pytest.raises(ConfigError, match="empty"):
        evaluate(predictor(), measured, graphs, networks=[])


def test_numbers_out_of_range(predictor, table, graphs):
    measured = table({"alpha": 1.0})
    with pytest.raises(ConfigError, match="points is -1"):
        evaluate(predictor(), measured, graphs, points=-1)
    with pytest.raises(ConfigError, match="seed is -1"):
        evaluate(predictor(), measured, graphs, seed=-1)
    with pytest.raises(CalibrationError):
        evaluate(predictor(), measured, graphs, points=99)


def test_progress_names_each_network_that_is_predicted(predictor, table, graphs):
    told: list[tuple[str, int, int]] = []
    measured = table({"alpha": 1.0, "beta": 1.0, "gamma": 1.0})
    evaluate(predictor(["beta"]), measured, graphs, progress=lambda *args: told.append(args))
    assert told == [("alpha", 0, 2), ("gamma", 1, 2)]


def test_the_artifact_of_a_run(tmp_path):
    assert artifact_folder(tmp_path) == tmp_path
    (tmp_path / "artifact").mkdir()
    assert artifact_folder(tmp_path) == tmp_path / "artifact"
