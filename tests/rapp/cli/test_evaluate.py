"""`rapp evaluate` as a user runs it."""

from __future__ import annotations

import json

import pytest

from rapp.types import ResourceGrid

KEYS = {
    "mape_rows", "mape_mean", "mape_median", "mape_p95", "coverage_90", "interval_score", "points", "seed",
    "per_network",
}  # fmt: skip


@pytest.fixture
def profiles(table, tmp_path):
    """alpha is 25 % slower than predicted, beta right; gamma is in the artifact's training."""
    file = tmp_path / "table.parquet"
    table({"alpha": 1.25, "beta": 1.0, "gamma": 2.0}).write(file)
    return file


def test_scores_on_the_terminal_in_json_and_as_a_page(rapp, artifact, graphs, profiles, tmp_path):
    scores, page = tmp_path / "o.json", tmp_path / "o.html"
    out = rapp(
        "evaluate", artifact, "--profiles", profiles, "--graphs", graphs, "--json", scores, "--report", page,
        "--seed", 5,
    )  # fmt: skip
    content = json.loads(scores.read_text())
    assert set(content) == KEYS
    assert content["mape_mean"] == pytest.approx(10)
    assert (content["seed"], content["points"]) == (5, 0)
    gamma = content["per_network"]["gamma"]
    assert (gamma["trained"], gamma["scored"], gamma["mape"]) == (True, False, None)
    assert out.code == 0
    rows = {cells[0]: cells[1:] for cells in map(str.split, out.out.splitlines()) if cells}
    assert rows["alpha"][:7] == ["24", "20.0", "20.0", "20.0", "-20.0", "0", "19"]
    assert rows["beta"][:7] == ["24", "0.0", "0.0", "0.0", "+0.0", "100", "19"]
    assert "gamma" not in rows
    assert "48 rows of 2 networks; no measured points" in out.out
    assert "left out: 1 network, 1 trained on" in out.out
    assert "predicts 2 networks" in page.read_text()


def test_measured_points_correct_the_scale(rapp, artifact, graphs, profiles, tmp_path):
    scores = tmp_path / "o.json"
    options = ("--points", 3, "--networks", " alpha,", "--json", scores)
    out = rapp("evaluate", artifact, "--profiles", profiles, "--graphs", graphs, *options).printed()
    content = json.loads(scores.read_text())
    assert "21 rows of 1 network; calibrated by 3 points of each, not scored" in out
    assert content["mape_rows"] == pytest.approx(0)
    assert content["per_network"]["alpha"]["n_rows"] == 21
    assert len(content["per_network"]["alpha"]["measured"]) == 3


def test_what_was_trained_on_is_scored_when_asked_and_marked(rapp, artifact, graphs, profiles):
    out = rapp(
        "evaluate", artifact, "--profiles", profiles, "--graphs", graphs, "--include-trained"
    ).printed()
    assert "gamma †" in out
    assert "alpha †" not in out
    assert "† trained on" in out


def test_a_training_run_stands_for_its_artifact(rapp, artifact, graphs, profiles, tmp_path):
    (tmp_path / "run").mkdir()
    artifact.rename(tmp_path / "run" / "artifact")
    assert rapp("evaluate", tmp_path / "run", "--profiles", profiles, "--graphs", graphs).code == 0


def test_expected_outcomes_are_one_line_and_write_nothing(rapp, artifact, graphs, profiles, table, tmp_path):
    scores = tmp_path / "o.json"

    def line(*options, table_file=profiles, folder=graphs):
        ended = rapp(
            "evaluate", artifact, "--profiles", table_file, "--graphs", folder, "--json", scores, *options
        )  # fmt: skip
        return ended.line()

    assert "trained on its network; give profiles of others" in line("--networks", "gamma")
    assert "no network 'aplha' (near: alpha)" in line("--networks", "aplha")
    assert "the list of networks is empty" in line("--networks", ",")
    assert "no such file" in line(table_file=tmp_path / "none.parquet")
    assert "no such folder" in line(folder=tmp_path / "none")
    assert "lists 5 points, not 6" in line("--points", 6)
    other = tmp_path / "other.parquet"
    table({"alpha": 1.0}, device="T4").write(other)
    assert "its device is T4, the artifact's is NVIDIA V100-16GB" in line(table_file=other)
    (graphs / "beta.onnx").unlink()
    assert f"{graphs / 'beta.onnx'}: no such file: the graph of beta is needed" in line()
    tiny = tmp_path / "tiny.parquet"
    table({"alpha": 1.0}, ResourceGrid([50], [50], [1])).write(tiny)
    assert "every row is one of the 1 measured points" in line("--points", 1, table_file=tiny)
    assert not scores.exists()
