"""`rapp recommend` as a user runs it."""

from __future__ import annotations

import json
import sys
import types
import xml.etree.ElementTree as ET

import pytest


def recommend(rapp, artifact, graphs, *options, slo=60, rps=200):
    return rapp("recommend", artifact, graphs / "beta.onnx", "--slo-ms", slo, "--rps", rps, *options)


def test_tables_for_people(rapp, artifact, graphs):
    ended = recommend(rapp, artifact, graphs)
    out = ended.printed()
    assert "200 requests/s within 60 ms · mean latency · gpu_time quota" in out
    assert "147 of 800 configurations meet it; the cheapest sets aside 2.00 GPUs" in out
    # D = 12 x 5/2 = 30 ms; 200 x 30 / 4000 / 0.8 = 1.9 -> 2; three more at 100/s take 30 ms.
    best = ["100", "100", "4", "2", "2.00", "0.1", "60.0", "30.0", "30.0", "27.3-33.0"]
    assert [line.split() for line in out.splitlines()].count(best) == 2  # among the choices, on the front
    assert "Pareto front of GPU share against latency (8 of 13 points)" in out
    assert ended.err == ""


@pytest.mark.parametrize(("rps", "slo"), [(0.5, 4000), (100_000, 60_000), (50, 20)])
def test_tables_fit_the_terminal(rapp, artifact, graphs, rps, slo):
    recommend(rapp, artifact, graphs, "--batch", "1,16", "--sm", "1:100", rps=rps, slo=slo).printed()


def test_json_has_the_choices_and_the_whole_front(rapp, artifact, graphs):
    content = json.loads(recommend(rapp, artifact, graphs, "--json", "--top", 3, "--risk", "upper").out)
    assert content["objective"] == {"slo_ms": 60.0, "rps": 200.0, "risk": "upper", "utilisation": 0.8}
    assert len(content["choices"]) == 3
    for one in content["choices"]:
        assert one["latency_ms"] == one["high_ms"] > one["mean_ms"]
        assert one["request_ms"] <= 60
        share = one["instances"] * one["sm_pct"] * one["quota_pct"] / 1e4
        assert one["gpu_share"] == pytest.approx(share)
    assert content["choices"][0]["gpu_share"] <= content["choices"][1]["gpu_share"]
    front = content["pareto_front"]
    assert all(one["meets"] == (one["request_ms"] <= 60) for one in front)
    assert {one["meets"] for one in front} == {True, False}


def test_options_reach_the_search(rapp, artifact, graphs):
    options = ("--sm", "50,100", "--quota", "100", "--batch", "1", "--utilisation", "1", "--json")
    content = json.loads(recommend(rapp, artifact, graphs, *options, slo=12, rps=250).out)
    assert content["configurations"] == 2
    # Batch 1 at SM 100 % takes 12 ms: 250 requests/s fill three instances to the last.
    assert [(one["sm_pct"], one["instances"]) for one in content["choices"]] == [(100, 3)]


def test_a_launch_gate_is_warned_of(rapp, artifact, graphs):
    ended = recommend(rapp, artifact, graphs, "--quota-kind", "launch_gate", "--json")
    assert json.loads(ended.out)["quota_kind"] == "launch_gate"
    assert "does not limit device time" in ended.err


def test_an_objective_out_of_reach_names_the_nearest(rapp, artifact, graphs, tmp_path):
    plot = tmp_path / "front.svg"
    line = recommend(rapp, artifact, graphs, "--plot", plot, slo=6).line()
    assert "the nearest is SM 100 %, quota 100 %, batch 1 on 3 instances, which meets 12 ms" in line
    assert not plot.exists()


def test_plot_and_report(rapp, artifact, graphs, tmp_path):
    plot, report = tmp_path / "front.svg", tmp_path / "out" / "page.html"
    ended = recommend(rapp, artifact, graphs, "--plot", plot, "--report", report)
    assert ended.out.splitlines()[-2:] == [f"written: {plot}", f"written: {report}"]
    assert ET.parse(plot).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert "200 requests/s within 60 ms" in report.read_text()
    pytest.importorskip("matplotlib")
    assert recommend(rapp, artifact, graphs, "--plot", tmp_path / "front.PNG").code == 0
    assert (tmp_path / "front.PNG").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--plot", "front.gif"), "--plot front.gif: its name must end in .svg or .png"),
        (("--utilisation", "2"), "utilisation is 2: it must lie in (0, 1]"),
        (("--sm", "0"), "--sm 0: 0 is no percentage in (0, 100]"),
    ],
)
def test_wrong_options_are_one_line(rapp, artifact, graphs, options, message):
    assert recommend(rapp, artifact, graphs, *options).line() == message


@pytest.mark.parametrize(("name", "value"), [("slo", 0), ("slo", "nan"), ("rps", -1), ("rps", "inf")])
def test_objectives_that_are_none(rapp, artifact, graphs, name, value):
    assert "must be a positive number" in recommend(rapp, artifact, graphs, **{name: value}).line()


def test_a_folder_that_cannot_be_written(rapp, artifact, graphs, tmp_path):
    (tmp_path / "file").write_text("")
    line = recommend(rapp, artifact, graphs, "--report", tmp_path / "file" / "page.html").line()
    assert "cannot be written" in line


def test_a_network_with_one_batch_is_asked_for_that(rapp, artifact, graphs, monkeypatch):
    """The default batches give way; batches that were asked for do not."""
    predictor = sys.modules["rapp.predictor"].Predictor
    network = predictor.network

    def fixed(self, *args, **kwargs):
        found = network(self, *args, **kwargs)
        object.__setattr__(found, "graph", types.SimpleNamespace(only_batch="its Reshape", fixed_batch=2))
        return found

    monkeypatch.setattr(predictor, "network", fixed)
    content = json.loads(recommend(rapp, artifact, graphs, "--json").out)
    assert {one["batch"] for one in content["pareto_front"]} == {2}
