"""`rapp profile` as a user runs it, on a replayed table."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from replayed import AXES, EXACT, folder, places, wanted, write_table

from rapp.graph import OperatorGraph
from rapp.profiles import ProfileTable

__all__ = ["folder"]

Run = Callable[..., Any]
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def test_a_campaign_measures_the_whole_table(rapp: Run, folder: Path) -> None:
    done = rapp("profile", "--device", EXACT, "--out", "p.parquet", *AXES)
    printed = done.printed()
    table = ProfileTable.read("p.parquet")
    assert places(table) == wanted("alpha", "beta")
    assert len(table.filter(anchor=True)) == 6
    for row in table.arrow.to_pylist():
        assert row["latency_ms"] == pytest.approx(400 * row["batch"] / row["sm_pct"] * 100 / row["quota_pct"])
    assert "alpha" in printed
    assert "p.parquet: 42 rows" in printed
    assert "next: rapp train --profiles p.parquet --graphs FOLDER_OF_NETWORKS --out run" in printed
    assert "drift" in printed
    assert "warning" not in done.err
    again = rapp("profile", "--device", EXACT, "--out", "p.parquet", *AXES)
    assert "every point was measured before: nothing was run" in again.printed()
    assert ProfileTable.read("p.parquet") == table


def test_networks_by_name_by_option_and_by_file(rapp: Run, folder: Path) -> None:
    rapp("profile", "beta", "--device", EXACT, "--out", "one.parquet", *AXES).printed()
    assert ProfileTable.read("one.parquet").networks() == ["beta"]
    rapp("profile", "beta", "--networks", "alpha", "--device", EXACT, "--out", "two.parquet", *AXES).printed()
    assert ProfileTable.read("two.parquet").networks() == ["alpha", "beta"]
    file = LIGHT / "light_squeezenet.onnx"
    graph_hash = OperatorGraph.from_onnx(file).graph_hash
    write_table(folder / "table.parquet", graph_hash=graph_hash)
    done = rapp("profile", file, "--device", EXACT, "--out", "three.parquet", *AXES)
    assert ProfileTable.read("three.parquet").networks() == ["alpha"]
    assert f"--graphs {file.parent}" in done.printed() or "FOLDER_OF_NETWORKS" in done.printed()


def test_anchors_that_move_are_warned_of(rapp: Run, folder: Path) -> None:
    done = rapp("profile", "alpha", "--device", "replay:table.parquet?process=0.2", "--out", "p", *AXES)
    assert "warning: alpha: its anchors moved by" in done.err
    rows = ProfileTable.read("p")
    assert all('"anchor_drift_pct": 0' not in text for text in rows.column("software"))


def test_a_plan_measures_nothing(rapp: Run, folder: Path) -> None:
    printed = rapp("profile", "--device", EXACT, "--out", "p", *AXES, "--plan-only").printed()
    assert "36 points and 6 anchors to measure" in printed
    assert "assumed: 4 s a point" in printed
    assert sorted(path.name for path in folder.iterdir()) == ["table.parquet"]
    rapp("profile", "--device", EXACT, "--out", "p", *AXES)
    printed = rapp("profile", "--device", EXACT, "--out", "p", *AXES, "--plan-only").printed()
    assert "42 of them are in the journal" in printed
    assert "from 42 points of the journal" in printed


def test_quotas_are_derived_and_verified(rapp: Run, folder: Path) -> None:
    axes = ("--sm", "25,50,100", "--quota", "20,60,100", "--batch", "1,2", "--quota-mode", "derive")
    plan = rapp("profile", "alpha", "--device", EXACT, "--out", "p", *axes, "--plan-only").printed()
    assert "10 points and 3 anchors" in plan
    printed = rapp("profile", "alpha", "--device", EXACT, "--out", "p", *axes).printed()
    assert "derived off" in printed
    assert "0.0 %" in printed
    table = ProfileTable.read("p")
    assert places(table) == wanted("alpha")
    assert len(table.filter(derived=True)) == 8
    for row in table.arrow.to_pylist():
        assert row["latency_ms"] == pytest.approx(400 * row["batch"] / row["sm_pct"] * 100 / row["quota_pct"])


def test_derived_quotas_that_are_off_are_warned_of(rapp: Run, folder: Path) -> None:
    write_table(folder / "table.parquet", device_ms=30.0)
    done = rapp("profile", "alpha", "--device", EXACT, "--out", "p", *AXES, "--quota-mode", "derive")
    assert done.code == 0
    assert "warning: alpha: what was derived is off by" in done.err
    assert "consider --quota-mode measure" in done.err


def test_a_budget_ends_cleanly_and_the_rest_comes_later(rapp: Run, folder: Path) -> None:
    done = rapp("profile", "--device", EXACT, "--out", "p", *AXES, "--budget-minutes", "0.2")
    assert done.code == 0
    assert "stopped (budget) with" in done.err
    assert "the same command goes on" in done.err
    table = ProfileTable.read("p")
    assert places(table) == wanted("alpha", "beta")
    assert set(table.filter(status="skipped").column("reason")) == {"not measured: budget"}
    rapp("profile", "--device", EXACT, "--out", "p", *AXES).printed()
    assert set(ProfileTable.read("p").column("status")) == {"ok"}


def test_a_budget_for_nothing_leaves_nothing(rapp: Run, folder: Path) -> None:
    done = rapp("profile", "--device", EXACT, "--out", "p", *AXES, "--budget-minutes", "0")
    assert done.code == 0
    assert "budget: nothing was measured, so there is no table" in done.err
    assert sorted(path.name for path in folder.iterdir()) == ["table.parquet"]


def test_points_that_the_table_lacks_fail_and_say_so(rapp: Run, folder: Path) -> None:
    axes = ("--sm", "25,30,100", "--quota", "20,30,100", "--batch", "1,4")
    done = rapp("profile", "alpha", "--device", EXACT, "--out", "p", *axes)
    assert done.code == 0
    assert "failed: alpha, SM 100 %, quota 30 %, batch 1: unsupported: the table has no point" in done.err
    table = ProfileTable.read("p").filter(anchor=False)
    assert Counter(table.column("status")) == {"ok": 4, "failed": 8, "skipped": 6}
    assert set(table.filter(status="skipped").column("reason")) == {"the table has no point at SM 30 %"}
    before = rapp("profile", "alpha", "--device", EXACT, "--out", "p", *axes)
    assert "nothing was run" in before.out
    again = rapp("profile", "alpha", "--device", EXACT, "--out", "p", *axes, "--retry-failed")
    assert "nothing was run" not in again.out
    assert Counter(ProfileTable.read("p").filter(anchor=False).column("status")) == {
        "ok": 4, "failed": 8, "skipped": 6,
    }  # fmt: skip


def test_adaptive_measures_what_the_rule_of_the_predictor_asks_for(
    rapp: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a rule in place of the predictor's: the first three candidates of each network."""
    asked: list[tuple[object, ...]] = []

    class FirstThree:
        def next_point(self, measured: list[object], candidates: list[object]) -> object:
            return candidates[0] if len(measured) < 3 else None

    def predictor_rule(*arguments: object) -> FirstThree:
        asked.append(arguments)
        return FirstThree()

    module = types.ModuleType("profiler.adaptive")
    module.__spec__ = importlib.machinery.ModuleSpec("profiler.adaptive", None)
    module.predictor_rule = predictor_rule  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "profiler.adaptive", module)
    artifact = folder / "run" / "artifact"
    artifact.mkdir(parents=True)
    (artifact / "card.json").write_text("{}")
    options = ("--adaptive", "--predictor", folder / "run", "--target-pct", "2.5", "--max-points", "5")
    plan = rapp("profile", "--device", EXACT, "--out", "p", *AXES, *options, "--plan-only").printed()
    assert "at most 10 points and 6 anchors to measure" in plan
    ended = rapp("profile", "--device", EXACT, "--out", "p", *AXES, *options)
    assert ended.code == 0
    assert f"next: rapp calibrate {folder / 'run'} NET.onnx --points p" in ended.out
    table = ProfileTable.read("p")
    assert Counter(table.filter(anchor=False).column("network")) == {"alpha": 3, "beta": 3}
    artifact_, network, quota_kind, idle_ms, target_pct, max_points = asked[0]
    assert (artifact_, getattr(network, "name", None)) == (artifact, "alpha")
    assert (quota_kind, idle_ms, target_pct, max_points) == ("gpu_time", 0.0, 2.5, 5)
    other = rapp("profile", "--device", EXACT, "--out", "p", *AXES, *options[:-1], "6").line()
    assert "options.adaptive.most_points was 5 and is 6" in other
