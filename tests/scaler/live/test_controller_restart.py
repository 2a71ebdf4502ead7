"""A controller that ends and begins anew: with its state, without it, and with one that is of no use."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from live_parts import RPS, After, Moved, Told, core_of, simulated

from rapp.errors import RappError
from scaler.backends.simulated import Simulated
from scaler.core.decision import Reason
from scaler.live.controller import Controller
from scaler.live.state_file import StateFile
from scaler.live.tick import Happening, Mode


def run(clock: Moved, backend: Simulated, ticks: int, path: Path | None = None, owner: str = "it") -> Told:
    told = Told()
    state = None if path is None else StateFile(path, owner)
    Controller(
        core_of(), backend, apply=True, state_file=state, reporters=[told], clock=clock
    ).run(After(ticks))  # fmt: skip
    return told


@pytest.mark.parametrize("keeps", [True, False])
def test_it_goes_on_from_what_it_observes(tmp_path: Path, keeps: bool) -> None:
    path = tmp_path / "state.json" if keeps else None
    clock = Moved()
    backend = simulated(clock.now_s)
    run(clock, backend, 30, path)
    before = dict(backend.cluster.instances)
    # Instances serve on while there is no controller.
    clock.s += 10.0
    told = run(clock, Simulated(backend.cluster, clock.now_s), 20, path)
    assert {one.id for one in told.ticks[0].seen.instances} == set(before)
    assert told.ticks[-1].decision.outlook["f"].capacity_rps > 0.9 * RPS
    reasons = [action.reason for tick in told.ticks for action in tick.decision.actions]
    assert Reason.LOST not in reasons
    assert not told.ticks[0].decision.actions


def test_with_its_state_it_knows_the_rate_at_once(tmp_path: Path) -> None:
    clock = Moved()
    backend = simulated(clock.now_s)
    run(clock, backend, 30, tmp_path / "state.json")
    clock.s += 10.0
    told = run(clock, Simulated(backend.cluster, clock.now_s), 3, tmp_path / "state.json")
    # What came meanwhile belongs to no tick: 10 s of requests are not the rate of a second.
    assert told.ticks[0].seen.functions["f"].arrivals is None
    assert told.ticks[1].decision.outlook["f"].forecast_rps == pytest.approx(RPS, rel=0.3)


def test_the_file_appears_whole_and_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    clock = Moved()
    run(clock, simulated(clock.now_s), 20, path)
    assert [one.name for one in tmp_path.iterdir()] == ["state.json"]
    state = StateFile(path, "it").read()
    assert state is not None
    assert state["policy"] == "simple"
    assert state["functions"]["f"]["forecast"]
    StateFile(path, "it").write(state)
    assert StateFile(path, "it").read() == state


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda text: text[: len(text) // 2], "Unterminated|Expecting"),
        (lambda text: "", "Expecting"),
        (lambda text: "[]", "version"),
        (lambda text: text.replace('"version": 1', '"version": 9', 1), "version"),
        (lambda text: text.replace('"owner": "it"', '"owner": "other"'), "belongs to 'other'"),
        (lambda text: text.replace('"busy_s": ', '"busy_s": 1'), "damaged"),
    ],
)
def test_a_state_that_is_of_no_use_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[str], str], why: str
) -> None:
    path = tmp_path / "state.json"
    clock = Moved()
    backend = simulated(clock.now_s)
    run(clock, backend, 20, path)
    path.write_text(spoil(path.read_text()))
    with caplog.at_level(logging.WARNING):
        told = run(clock, Simulated(backend.cluster, clock.now_s), 10, path)
    assert re.search(why, caplog.text), caplog.text
    assert {tick.mode for tick in told.ticks} == {Mode.APPLIED}
    assert StateFile(path, "it").read() is not None


def test_a_state_of_an_older_core_is_dropped_by_the_core(tmp_path: Path) -> None:
    clock = Moved()
    backend = simulated(clock.now_s)
    controller = Controller(core_of(), backend, apply=True, reporters=[told := Told()], clock=clock)
    controller._state = {"version": 0}
    controller.tick()
    assert told.happened(Happening.STATE_DROPPED)
    assert len(told.ticks) == 1


def test_a_state_that_cannot_be_kept_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    clock = Moved()
    told = run(clock, simulated(clock.now_s), 10, tmp_path / "folder")
    assert len(told.ticks) >= 8
    assert "cannot be written" in told.happened(Happening.STATE_NOT_KEPT)[0]
    with pytest.raises(RappError):
        StateFile(tmp_path / "folder", "it").write({})


def test_the_sum_is_of_the_state(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    StateFile(path, "it").write({"version": 1, "now_s": None})
    assert json.loads(path.read_text())["sha256"]
