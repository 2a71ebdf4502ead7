"""What a replay leaves behind: tables that agree with its figures, and a page that stands alone."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rapp.errors import ConfigError
from scaler.replay.aggregate import Mean, by_policy, mean_of
from scaler.replay.chaos import Chaos
from scaler.replay.inputs import Inputs
from scaler.replay.outputs import check_folder, summary, write_outputs
from scaler.replay.report import duration, figure, replay_html
from scaler.replay.report_charts import Clock
from scaler.replay.result import ReplayResult
from scaler.replay.runner import replay

FUNCTIONS = """
version: 1
functions:
  - {name: fast, network: a, slo_multiplier: 3, cold_start_s: 2, memory_mib: 1000}
  - {name: "slow.one", network: b, slo_ms: 90, cold_start_s: 2, memory_mib: 1000}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[ReplayResult], dict]:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "functions.yaml").write_text(FUNCTIONS)
    (folder / "trace <1>.csv").write_text("t_s,rps\n0,20\n20,60\n40,10\n60,0\n")
    inputs = Inputs(
        functions=folder / "functions.yaml",
        trace=str(folder / "trace <1>.csv"),
        to_s=60.0,
        truth="constant:8,1",
        chaos=Chaos(crash_at_s=(30.0,)),
        slo_multipliers=(2.0, 3.0),
    )
    setups = inputs.setups([0, 1])
    results = [replay(one, one.policy(name)) for name in ("has-gpu", "whole-gpu") for one in setups]
    return results, inputs.about(setups[0], ["has-gpu", "whole-gpu"], [0, 1])


def test_the_tables_hold_what_the_summary_says(done, tmp_path: Path):
    results, about = done
    write_outputs(tmp_path / "out", results, about, "<html></html>")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "changes.parquet", "instances.parquet", "report.html", "series.parquet", "summary.json",
    ]  # fmt: skip
    content = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert content["version"] == 1
    series, instances, changes = (
        pq.read_table(tmp_path / "out" / f"{name}.parquet").to_pylist()
        for name in ("series", "instances", "changes")
    )
    assert len(series) == len(results) * 2 * 60
    for one in content["results"]:
        own = {"policy": one["policy"], "seed": one["seed"]}
        for name, figures in one["functions"].items():
            mine = own | {"function": name}
            ticks = [row for row in series if mine.items() <= row.items()]
            assert sum(row["violations"] for row in ticks) == figures["violations"]
            assert sum(row["arrivals"] for row in ticks) == figures["arrivals"]
            cost = sum(
                row["sm_pct"] / 100 * row["quota_pct"] / 100 * (row["to_s"] - row["from_s"])
                for row in instances
                if mine.items() <= row.items()
            )
            assert cost == pytest.approx(figures["gpu_seconds"])
        made = [row for row in changes if own.items() <= row.items() and row["outcome"] == "made"]
        for kind, count in (("start", "starts"), ("resize", "resizes"), ("drain", "drains")):
            assert sum(row["kind"] == kind for row in made) == one["total"][count]
        assert {row["sm_pct"] is None for row in made if row["kind"] != "start"} <= {True}
        assert all(row["reason"] for row in made)
        (had,) = one["recoveries"]
        assert (had["at_s"], had["fault"]) == (30.0, "an instance crashes")


def test_results_are_not_replaced_unasked_and_a_folder_without_a_summary_is_not_whole(done, tmp_path: Path):
    results, about = done
    check_folder(tmp_path / "new", force=False)
    write_outputs(tmp_path, results, about, "")
    with pytest.raises(ConfigError, match="--force"):
        check_folder(tmp_path, force=False)
    check_folder(tmp_path, force=True)
    with pytest.raises(UnicodeEncodeError):
        write_outputs(tmp_path, results, about, "\ud800")
    assert not (tmp_path / "summary.json").exists()
    assert not list(tmp_path.glob(".*"))
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="not a folder"):
        check_folder(tmp_path / "file", force=True)


def test_a_summary_is_json_without_nan(done):
    results, about = done
    text = json.dumps(summary(results, about), allow_nan=False)
    assert json.loads(text)["functions"]["slow.one"]["slo_ms"] == 90


class _Page(HTMLParser):
    """Counts elements by name and class; fails where they do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, int] = {}
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        for name in [tag, *dict(attrs).get("class", "").split()]:
            self.found[name] = self.found.get(name, 0) + 1
        if tag not in ("meta", "path", "circle", "rect", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in ("path", "circle", "rect"):
            assert self.open.pop() == tag


def test_the_report_stands_alone_and_holds_its_parts(done):
    page = replay_html(*done)
    assert not re.search(r"https?://|src=|@import|<link", page)
    parsed = _Page(page)
    assert parsed.open == []
    # For each policy a packing, and four plots for each of two functions.
    assert parsed.found["packing"] == 2
    assert [parsed.found[name] for name in ("latency", "allocation", "instances")] == [4, 4, 4]
    assert page.count('<figure class="load">') == 4
    assert page.count('id="front"') == 1
    assert parsed.found["reasons"] == 2
    assert parsed.found["recoveries"] == 2
    assert "trace &lt;1&gt;.csv" in page
    assert "trace <1>.csv" not in page
    for text in ("has-gpu", "whole-gpu", "slow.one", "demand rises", "an instance crashes", "at 2× base"):
        assert text in page
    # Where it was made is nobody's business.
    assert "/tmp" not in page


def test_boxes_of_the_packing_cover_what_was_paid_for(done):
    from scaler.replay.report_packing import _boxes

    (result, *_) = done[0]
    for gpu in ("gpu-0", "gpu-1"):
        own = [one for one in result.account.allotments if one.gpu == gpu]
        boxes = list(_boxes(own, 60.0))
        paid = [box for box in boxes if box.one is not None]
        area = sum((box.high - box.low) / 100 * (box.to_s - box.from_s) for box in paid)
        # To the moments at which it is looked at, a 240th of the trace each.
        assert area == pytest.approx(sum(one.gpu_seconds for one in own), rel=0.05, abs=0.3)
        assert all(0 <= box.low < box.high <= 100 + 1e-9 for box in boxes)


def test_ticks_are_taken_together_where_they_are_many():
    clock = Clock(np.arange(1.0, 7201.0), 7200.0)
    assert clock.unit == "min"
    assert len(clock.middle) == clock.ticks.size == 360
    values = np.tile([1.0, 3.0], 3600)
    assert np.allclose(clock.mean(values), 2.0)
    assert np.allclose(clock.greatest(values), 3.0)
    assert clock.total(values).sum() == values.sum()
    values[:40] = np.nan
    assert np.isnan(clock.mean(values)[:2]).all()
    few = Clock(np.array([1.0, 2.0, 2.5]), 2.5)
    assert few.middle.tolist() == [0.5, 1.5, 2.25]


def test_policies_are_compared_by_means_with_the_interval_of_student(done):
    results, _ = done
    grouped = by_policy(results)
    assert list(grouped) == ["has-gpu", "whole-gpu"]
    values = iter((1.0, 3.0))
    # Two values: t = 12.71 with one degree of freedom, standard error 1.
    assert mean_of(grouped["has-gpu"], lambda _: next(values)) == Mean(2.0, pytest.approx(12.71))
    assert mean_of(grouped["has-gpu"][:1], lambda _: 4.0) == Mean(4.0, None)


def test_figures_have_the_digits_that_count():
    assert [figure(value) for value in (0, 0.01234, 1.234, 12.34, 1234.5, float("nan"))] == [
        "0", "0.0123", "1.23", "12.3", "1,234", "–",
    ]  # fmt: skip
    assert [duration(seconds) for seconds in (90, 600, 86_400)] == ["90 s", "10 min", "24 h"]
