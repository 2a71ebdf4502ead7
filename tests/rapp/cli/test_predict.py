"""`rapp predict` as a user runs it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import pytest

from rapp.testing import ClosedFormModel
from rapp.types import QuotaKind, ResourceConfig

ALPHA = ClosedFormModel("alpha", 1.0, 8.0)


def test_a_table_for_people(rapp, artifact, graphs):
    ended = rapp(
        "predict", artifact, graphs / "alpha.onnx", "--sm", "50", "--quota", "25,100", "--batch", "1,16"
    )
    out = ended.printed()
    assert "alpha on NVIDIA V100-16GB" in out
    assert "launch_gate quota · new to the artifact" in out
    rows = [line.split() for line in out.splitlines() if line.split()[:1] == ["50"]]
    # H / q = 8 / 0.25 = 32 ms; D = 17 ms at batch 16, which is beyond what the artifact knows.
    assert rows == [
        ["50", "25", "1", "32.0", "29.1", "to", "35.2", "2.00", "8.00"],
        ["50", "25", "16", "32.0", "29.1", "to", "35.2", "17.0", "8.00", "*"],
        ["50", "100", "1", "8.00", "7.27", "to", "8.80", "2.00", "8.00"],
        ["50", "100", "16", "17.0", "15.5", "to", "18.7", "17.0", "8.00", "*"],
    ]
    assert "* extrapolated" in out
    assert "rapp calibrate" in ended.err


def test_a_network_of_the_training_needs_no_advice(rapp, artifact, graphs):
    ended = rapp("predict", artifact, graphs / "gamma.onnx")
    assert "in the artifact's training" in ended.printed()
    assert "* extrapolated" not in ended.out
    assert ended.err == ""


def test_json(rapp, artifact, graphs):
    ended = rapp(
        "predict", artifact, graphs / "alpha.onnx", "--sm", "5:100:5", "--quota", "10:100:10", "--json"
    )
    content = json.loads(ended.out)
    assert ended.err == ""
    assert (content["network"], content["quota_kind"], content["known"]) == ("alpha", "launch_gate", False)
    assert len(content["estimates"]) == 200
    for row in content["estimates"][::17]:
        answer = ALPHA.latency(ResourceConfig(row["sm_pct"], row["quota_pct"], row["batch"]))
        assert row["mean_ms"] == pytest.approx(answer.mean_ms)
        assert row["extrapolated"] is False


def test_csv_under_another_law_and_pause(rapp, artifact, graphs):
    options = ("--quota-kind", "gpu_time", "--idle-ms", "5", "--sm", "12.5", "--quota", "40", "--csv")
    ended = rapp("predict", artifact, graphs / "beta.onnx", *options)
    (row,) = csv.DictReader(io.StringIO(ended.out))
    beta = ClosedFormModel("beta", 12.0, 2.0)
    answer = beta.latency(ResourceConfig(12.5, 40), quota_kind=QuotaKind.GPU_TIME, idle_ms=5.0)
    assert float(row["mean_ms"]) == pytest.approx(answer.mean_ms) == pytest.approx(12 / 0.125 / 0.4 - 5)
    assert (row["sm_pct"], row["quota_kind"], row["extrapolated"]) == ("12.5", "gpu_time", "false")


def test_a_run_stands_for_its_artifact(rapp, artifact, graphs, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    artifact.rename(run / "artifact")
    assert "alpha on" in rapp("predict", run, graphs / "alpha.onnx").printed()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sm", "5:100:0"), "--sm 5:100:0: the step 0 must be above 0"),
        (("--quota", "x"), "--quota x: 'x' is not a number"),
        (("--batch", "0"), "--batch 0: 0 is no batch"),
        (("--json", "--csv"), "--json and --csv exclude each other"),
        (("--idle-ms", "-1"), "idle_ms is -1"),
    ],
)
def test_wrong_options_are_one_line(rapp, artifact, graphs, options, message):
    assert rapp("predict", artifact, graphs / "alpha.onnx", *options).line().startswith(message)


def test_files_that_are_not_there(rapp, artifact, graphs, tmp_path):
    assert rapp("predict", artifact, graphs / "no.onnx").line() == f"{graphs / 'no.onnx'}: no such file"
    assert rapp("predict", tmp_path / "no", graphs / "alpha.onnx").line().startswith(f"{tmp_path / 'no'}: ")


def test_help_loads_nothing_heavy():
    heavy = ("onnx", "onnxruntime", "pyarrow", "matplotlib", "pydantic", "torch", "pandas", "jinja2", "sympy")
    program = f"import sys, rapp.cli.main; print(set({heavy}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "set()\n"
