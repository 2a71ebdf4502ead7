"""From a controller to the page: what `rapp autoscale` leaves with a server, and what that makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs the extra serve")

from scaler.core.decision import Decision, Drain, FunctionOutlook, Reason
from scaler.core.observation import Observation
from scaler.errors import BackendError
from scaler.live.recorder import Recorder
from scaler.live.tick import Happening, Mode, Tick
from scaler.serving import page_records
from scaler.serving.page_history import Outlook


class Kept:
    """Keeps records as the server does."""

    def __init__(self) -> None:
        self.now_s, self.records, self.is_there = 100.0, list[dict[str, Any]](), True

    def record(self, content: Mapping[str, Any]) -> None:
        if not self.is_there:
            raise BackendError("it is not there")
        self.records.append({**content, "number": len(self.records), "recorded_s": self.now_s})


def tick(now_s: float, *actions: Any, mode: Mode = Mode.APPLIED) -> Tick:
    decision = Decision(actions, {"f": FunctionOutlook(3.0, 4.0, 6.0, 9.0)})
    return Tick(0, Observation(now_s), decision, mode, (), 0.01)


DRAIN = Drain("f-1", "f", Reason.DEMAND_DOWN)


def test_the_page_knows_who_leads_what_it_decided_and_when_it_ends() -> None:
    kept = Kept()
    recorder = Recorder(kept, controller="host:7", policy="hybrid")
    recorder.on_happening(Happening.STARTED, "makes changes")
    recorder.on_happening(Happening.LEADS, "host:7")
    assert page_records.controllers(kept.records, 100.0)[0]["kind"] == "leads"
    recorder.on_tick(tick(100.0, DRAIN))
    (one,) = page_records.controllers(kept.records, 101.0)
    assert (one["name"], one["policy"], one["kind"]) == ("host:7", "hybrid", "leads")
    assert page_records.outlooks(kept.records, 101.0) == {"f": Outlook(6.0, 9.0)}
    changed = [change for one in page_records.decisions(kept.records, 0.0) for change in one["changes"]]
    assert [(one["id"], one["reason"]) for one in changed] == [("f-1", "demand falls")]
    recorder.on_happening(Happening.STOPPED, "after 2 ticks")
    assert page_records.controllers(kept.records, 101.0)[0]["kind"] == "ended"


def test_quiet_ticks_keep_it_from_being_silent() -> None:
    kept = Kept()
    recorder = Recorder(kept, controller="host:7", every_s=2.0)
    for second in range(10):
        kept.now_s = 100.0 + second
        recorder.on_tick(tick(kept.now_s))
    assert len(kept.records) == 5
    assert page_records.controllers(kept.records, 110.0)[0]["kind"] == "leads"
    assert page_records.controllers(kept.records, 115.0)[0]["kind"] == "silent"


def test_a_server_that_is_not_there_stops_nothing_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept()
    kept.is_there = False
    recorder = Recorder(kept)
    for _ in range(3):
        recorder.on_tick(tick(100.0, DRAIN))
    assert len(caplog.records) == 1
    kept.is_there = True
    recorder.on_tick(tick(100.0, DRAIN))
    assert kept.records[0]["controller"], "one without a name has that of its process"
