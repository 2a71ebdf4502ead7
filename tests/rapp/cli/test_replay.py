"""`rapp replay` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

FUNCTION = "{name: f, network: net, slo_ms: 60, cold_start_s: 2, memory_mib: 1000}"


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    file = tmp_path / "functions.yaml"
    file.write_text(f"version: 1\nfunctions:\n  - {FUNCTION}\n")
    return file


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    file = tmp_path / "trace.csv"
    file.write_text("t_s,rps\n0,20\n15,60\n30,0\n31,0\n")
    return file


@pytest.fixture
def replay(rapp, functions, trace):
    """`replay("--policy", "has-gpu", ...)` with functions, trace and truth; later options win."""

    def run(*options: object):
        given = ("--functions", functions, "--trace", trace, "--truth", "constant:8,1", "--to", 30)
        return rapp("replay", *given, *options)

    return run


def test_a_table_of_policies_for_people(replay, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = Path("out")
    ended = replay(
        "--policy", "has-gpu,whole-gpu", "--seeds", "0,1", "--slo-multipliers", "2,4", "--out", out,
        "--lose-gpu", "10:1", "--crash-every", 12,
    )  # fmt: skip
    printed = ended.printed()
    assert printed.startswith("trace.csv\n")
    assert "2 seeds" in printed
    assert "out: report.html" in printed
    assert printed.count("has-gpu") == printed.count("whole-gpu") == 4
    for heading in ("GPU-s/1,000", "violations", "at 2x", "at 4x", "p99 ms", "host-core h", "resizes"):
        assert heading in printed
    assert "6 disturbances; recovered after" in printed
    assert "a GPU is lost, gpu-1" in printed
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    assert json.loads((out / "summary.json").read_text())["seeds"] == [0, 1]
    assert "give --force" in replay("--out", out).line()


def test_json_for_a_program(replay):
    ended = replay("--policy", "has-gpu", "--json", "--arrivals", "even", "--scale", 2, "--cold-start", 3)
    content = json.loads(ended.out)
    assert (content["arrivals"], content["scale"], content["plan"]) == ("even", 2, "constant 8 ms, host 1 ms")
    assert content["functions"]["f"]["cold_start_s"] == 3
    (one,) = content["results"]
    assert one["total"]["arrivals"] == 2 * 15 * (20 + 60)
    assert one["functions"]["f"]["slo_ms"] == 60


def test_options_reach_the_replay(replay, tmp_path):
    pairs = tmp_path / "pairs.csv"
    ended = replay(
        "--policy", "has-gpu", "--json", "--plan", "constant:9,1", "--forecaster", "last-value",
        "--risk", "mean", "--tick", 0.5, "--quantile", 0.9,
        "--gpus", 2, "--gpu-memory-mib", 8000, "--gpu-host-cores", 4,
        "--beside", 1.3, "--blind", "5:8", "--model-factor", 1.5, "--crash-at", "3,4",
    )  # fmt: skip
    content = json.loads(ended.out)
    assert (content["truth"], content["plan"]) == ("constant 8 ms, host 1 ms", "constant 9 ms, host 1 ms")
    assert (content["forecaster"], content["risk"], content["tick_s"], content["quantile"]) == (
        "last-value", "mean", 0.5, 0.9,
    )  # fmt: skip
    assert content["gpus"] == {"count": 2, "memory_mib": 8000, "host_cores": 4}
    assert content["physics"]["beside"] == 1.3
    assert content["chaos"] == {
        "crash_every_s": None, "crash_at_s": [3, 4], "lost_gpus": [],
        "blind": [{"from_s": 5, "to_s": 8}], "model_factor": 1.5,
    }  # fmt: skip
    assert "pairs.csv" in replay("--pairs", pairs).line()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--policy", "hybird"], "no policy 'hybird' (near: hybrid)"),
        (["--policy", ","], "--policy names none"),
        (["--policy", "has-gpu,has-gpu"], "names has-gpu twice"),
        (["--seeds", "0,0"], "--seeds 0,0"),
        (["--seeds", "x"], "--seeds: 'x'"),
        (["--slo-multipliers", "2,y"], "--slo-multipliers: 'y'"),
        (["--slo-multipliers", "0.5"], "multiplier is 0.5"),
        (["--lose-gpu", "10"], "write T:GPU"),
        (["--lose-gpu", "10:gpu-7"], "no GPU 'gpu-7' to lose: there are gpu-0 to gpu-3"),
        (["--blind", "10"], "write FROM:TO"),
        (["--blind", "20:10"], "from 20 to 10 s"),
        (["--crash-every", "0"], "crash_every_s is 0"),
        (["--model-factor", "0"], "model_factor is 0"),
        (["--tick", "0"], "tick_s is 0"),
        (["--cold-start", "0"], "--cold-start is 0"),
        (["--quantile", "0.2"], "quantile is 0.2"),
        (["--forecaster", "kalmann"], "no forecaster 'kalmann' (near: kalman)"),
        (["--truth", "constant:x"], "write constant:DEVICE_MS"),
        (["--truth", "constant:70"], "objective of 60 ms is below the fastest configuration"),
        (["--plan", "constant:70"], "objective of 60 ms is below the fastest configuration"),
        (["--truth", "nowhere.parquet"], "nowhere.parquet"),
        (["--plan", "nowhere"], "nowhere"),
        (["--prior", "somewhere"], "a prior artifact goes with a profile table"),
        (["--quota-semantics", "launch_gate"], "leave --quota-semantics launch_gate out"),
        (["--gpu-memory-mib", "0"], "memory_mib of a GPU is 0"),
        (["--scale", "-1"], "scale is -1"),
        (["--from", "40"], "nothing of it lies"),
    ],
)
def test_bad_options_are_one_clear_line(replay, options, message):
    assert message in replay(*options).line()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("t_s,rps\n0,1\n5,2\n3,1\n", "line 4: t_s 3 does not come after 5: sort the rows by time"),
        ("t_s,rps\n0,1\n5,-2\n", "line 3: rps is -2"),
        ("t_s,rps,function\n0,1,g\n5,1,g\n", "unknown function 'g'"),
        ("t_s,rsp\n0,1\n5,1\n", "unknown column 'rsp' (near: rps)"),
    ],
)
def test_a_bad_trace_is_one_clear_line(replay, tmp_path, content, message):
    file = tmp_path / "bad.csv"
    file.write_text(content)
    assert message in replay("--trace", file, "--policy", "has-gpu").line()


def measured(file: Path, kind: str) -> Path:
    """A profile table of a network `net`: 8 ms x batch / SM share, twice that at quota 50 %."""
    from rapp.profiles import ProfileTable

    rows = [
        {
            "network": "net", "device": "closed", "runtime": "closed", "precision": "fp32", "batch": batch,
            "sm_pct": sm_pct, "quota_pct": quota_pct, "quota_kind": kind, "idle_ms": 0.0, "window_ms": 40.0,
            "status": "ok", "derived": False, "campaign_id": "closed", "anchor": False,
            "latency_ms": 8.0 * batch * 100 / sm_pct * 100 / quota_pct,
        }
        for batch in (1, 2, 4, 8)
        for sm_pct in (25, 50, 100)
        for quota_pct in (50, 100)
    ]  # fmt: skip
    ProfileTable.from_rows(rows, str(file)).write(file)
    return file


def test_an_unknown_key_and_a_function_without_a_latency_source_are_one_clear_line(replay, tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("version: 1\nfunctions:\n  - {name: f, network: net, slo_ms: 60, max_bacth: 4}\n")
    assert "unknown key 'max_bacth' (near: max_batch" in replay("--functions", file).line()
    file.write_text("version: 1\nfunctions:\n  - {name: f, network: nett, slo_ms: 60}\n")
    table = measured(tmp_path / "table.parquet", "gpu_time")
    said = replay("--functions", file, "--truth", table, "--plan", "constant:8").line()
    assert "has no measured row of 'nett' (near: net)" in said


def test_a_table_whose_quota_gates_launches_needs_to_be_asked_for(replay, tmp_path):
    table = measured(tmp_path / "gated.parquet", "launch_gate")
    plain = replay("--truth", table, "--policy", "whole-gpu").printed()
    assert "launch_gate" not in plain
    gated = replay("--truth", table, "--policy", "whole-gpu", "--quota-semantics", "launch_gate").printed()
    assert "quotas gate launches: costs do not compare with those under gpu_time" in gated


def test_an_interrupted_run_leaves_nothing(replay, tmp_path, monkeypatch):
    from scaler.replay.cluster import Cluster

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Cluster, "observe", interrupt)
    ended = replay("--policy", "has-gpu", "--out", tmp_path / "out")
    assert (ended.code, ended.err) == (130, "interrupted\n")
    assert not (tmp_path / "out").exists()
