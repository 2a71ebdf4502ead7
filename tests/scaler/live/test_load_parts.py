"""Figures, options and URLs of a load."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapp.errors import ConfigError
from scaler.errors import BackendError
from scaler.live.load import LoadOptions, run_load
from scaler.live.load_plan import functions_of, objectives
from scaler.live.load_records import LoadRecords
from scaler.live.load_report import report_of
from scaler.live.load_target import SPREAD, kserve_target
from scaler.live.load_url import Server
from scaler.trace import RateSteps, Trace


def records(status: list[int], latency_ms: list[float], function: list[int] | None = None) -> LoadRecords:
    intended = np.arange(len(status)) / 10
    return LoadRecords(
        ("a", "b"), np.array(function or [0] * len(status)), intended, intended + 0.0005,
        np.array(latency_ms), np.array(status, np.int16),
    )  # fmt: skip


def report(of: LoadRecords, slo_ms: dict[str, float] | None = None, passed_s: float = 1.0):
    return report_of(of, slo_ms or {}, passed_s=passed_s, waited=0, cpu_s=0.2, wall_s=1.0, interrupted=False)


def test_violations_are_late_refused_failed_but_not_unfinished():
    seen = report(records([200, 200, 429, -1, 503, 0], [5, 15, 1, 30, 1, np.nan]), {"a": 10.0, "b": 20.0})
    one = seen.functions["a"]
    assert (one.requests, one.answered, one.refused, one.unfinished) == (6, 2, 1, 1)
    assert one.errors == {"timeout": 1, "503": 1}
    assert one.violations == 4
    assert one.violation_share == pytest.approx(4 / 5)
    assert seen.functions["b"].requests == 0
    assert seen.functions["b"].p99_ms is None
    assert seen.total.violations == 4
    assert json.loads(json.dumps(seen.to_json()))["total"]["slo_ms"] is None, "two objectives are none"


def test_each_function_has_its_own_objective():
    seen = report(records([200] * 4, [15, 15, 15, 15], [0, 1, 0, 1]), {"a": 10.0, "b": 20.0})
    assert [one.violations for one in seen.functions.values()] == [2, 0]
    assert seen.total.violations == 2


def test_a_backlog_shows_in_the_rate_answered():
    seen = report(records([200] * 10, list(np.linspace(0, 4100, 10))))
    assert seen.total.intended_rps == seen.total.sent_rps == 10
    assert seen.total.answered_rps == pytest.approx(2), "the last of ten came after 5 s"


def test_a_generator_that_is_late_says_so():
    late = records([200] * 10, [5] * 10)
    late.sent_s[3] += 0.01
    assert report(late).lag_p99_ms == pytest.approx(10.5)
    assert "10.5 ms late" in report(late).warning
    assert report(records([200] * 10, [5] * 10)).warning is None


@given(st.lists(st.sampled_from([200, 204, 429, 500, -1, -2, -3, -4, 0]), max_size=40), st.floats(0.1, 100))
def test_every_request_is_in_one_count(status, slo_ms):
    latency = [np.nan if one == 0 else float(place) for place, one in enumerate(status)]
    total = report(records(status, latency), {"a": slo_ms, "b": slo_ms}).total
    parts = total.answered + total.refused + sum(total.errors.values()) + total.unfinished
    assert parts == total.requests == len(status)
    late = sum(latency[place] > slo_ms for place, one in enumerate(status) if one in (200, 204))
    assert total.violations == total.requests - total.unfinished - total.answered + late


def test_functions_are_those_chosen_or_those_of_the_trace():
    steps = RateSteps(np.array([0.0, 1.0]), np.array([5.0]))
    named, open_ = Trace.of({"a": steps, "b": steps}), Trace.of({None: steps})
    assert functions_of(named, []) == ["a", "b"]
    assert functions_of(named, ["b"]) == ["b"]
    assert functions_of(open_, ["x", "x"]) == ["x"]
    with pytest.raises(ConfigError, match="say --function NAME"):
        functions_of(open_, [])
    with pytest.raises(ConfigError, match=r"--function c: .*a, b alone"):
        functions_of(named, ["c"])


def test_an_objective_for_one_wins_over_that_for_all():
    assert objectives(["b=7.5", "60"], ["a", "b"]) == {"a": 60, "b": 7.5}
    assert objectives([], ["a"]) == {}
    for wrong in ("0", "x", "a=", "a=nan", "c=5"):
        with pytest.raises(ConfigError, match=f"--slo-ms {wrong}"):
            objectives([wrong], ["a", "b"])


@pytest.mark.parametrize("url", ["ftp://x:1", "http://", "http://x:99999"])
def test_an_address_that_is_none(url):
    with pytest.raises(ConfigError, match="--url"):
        Server.at(url)


def test_options_out_of_range():
    with pytest.raises(ConfigError, match="timeout_ms"):
        LoadOptions(timeout_ms=0)
    with pytest.raises(ConfigError, match="connections"):
        LoadOptions(connections=0)
    with pytest.raises(ConfigError, match="does not allow so many"):
        run_load("http://127.0.0.1:1", {"a": np.array([0.0])}, 1.0, options=LoadOptions(connections=1 << 40))
    with pytest.raises(ConfigError, match="no request"):
        run_load("http://127.0.0.1:1", {"a": np.array([])}, 1.0)


class Described(Server):
    """A server that only describes a model."""

    def get_json(self, path):
        return {"inputs": METADATA[path.rpartition("/")[2]]}


METADATA = {
    "two": [
        {"name": "ids", "datatype": "INT64", "shape": [-1, 16]},
        {"name": "mask", "datatype": "BOOL", "shape": [-1, 16]},
    ],
    "open": [{"name": "x", "datatype": "FP32", "shape": [-1, 3, -1]}],
    "text": [{"name": "x", "datatype": "BYTES", "shape": [1]}],
    "none": [],
}


@pytest.fixture
def described() -> Server:
    return Described("http://h", "127.0.0.1", 80, "h", "h", "/base", False)


def test_several_inputs_follow_one_another(described):
    target = kserve_target(described, "two")
    head, ids, mask = target.parts(SPREAD - 1)
    assert head.startswith(b"POST /base/v2/models/two/infer HTTP/1.1\r\nHost: h\r\n")
    assert (len(ids), len(mask)) == (16 * 8, 16)
    lines, _, header = head.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(header) + 144}".encode() in lines
    assert set(np.frombuffer(ids, np.int64)) <= {0, 1}
    assert bytes(target.parts(0)[1]) != bytes(ids)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("open", ConfigError, "beside the batch are open"),
        ("text", BackendError, "only numbers"),
        ("none", BackendError, "no inputs"),
    ],
)
def test_inputs_that_cannot_be_made(described, name, error, message):
    with pytest.raises(error, match=message):
        kserve_target(described, name)
