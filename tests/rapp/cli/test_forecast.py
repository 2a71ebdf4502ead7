"""`rapp forecast backtest` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    file = tmp_path / "trace.csv"
    file.write_text("t_s,rps\n" + "".join(f"{second},{10 + second % 2}\n" for second in range(100)))
    return file


def test_a_table_for_people(rapp, trace):
    ended = rapp("forecast", "backtest", "--trace", trace, "--arrivals", "even")
    out = ended.printed()
    assert "5 s ahead · upper end at 0.95 · even arrivals" in out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.split()}
    # One rps up or down each second, and five is odd.
    assert rows["last-value"][1:3] == ["10.5", "1.000"]
    assert float(rows["kalman"][2]) < 0.9
    assert "95 forecasts each" in out


def test_json_for_a_program(rapp, trace):
    ended = rapp(
        "forecast", "backtest", "--trace", trace, "--scale", 10, "--forecasters", "kalman", "--from", 20,
        "--score-from", 50, "--quantile", 0.9, "--seed", 3, "--json",
    )  # fmt: skip
    content = json.loads(ended.out)
    assert (content["version"], content["quantile"], content["seed"], content["scale"]) == (1, 0.9, 3, 10)
    (score,) = content["scores"]
    assert (score["forecaster"], score["forecasts"]) == ("kalman", 50)
    assert score["rate_rps"] == pytest.approx(105)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arrivals", "odd"], "--arrivals odd: it is even or poisson"),
        (["--forecasters", "kalmann"], "no forecaster 'kalmann' (near: kalman)"),
        (["--forecasters", ","], "--forecasters names none"),
        (["--horizon-s", "200"], "hold no forecast 200 s ahead"),
        (["--scale", "0"], "scale is 0"),
        (["--from", "500"], "nothing of it lies from 500"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(rapp, trace, options, message):
    ended = rapp("forecast", "backtest", "--trace", trace, *options)
    assert ended.code == 2
    assert message in ended.err


def test_a_trace_that_is_not_there(rapp, tmp_path):
    ended = rapp("forecast", "backtest", "--trace", tmp_path / "none.csv")
    assert ended.code == 2
    assert "cannot be read" in ended.err
