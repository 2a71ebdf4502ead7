"""The controller over the replay's cluster: what it decides, when, and what it does when things go wrong."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from live_parts import END_S, RPS, After, Moved, Told, cluster, core_of, simulated, spec

from scaler.backends.fencing import UNFENCED, Fence
from scaler.backends.simulated import Simulated
from scaler.core.codec import decision_to_json, observation_from_json
from scaler.core.decision import Decision, Reason
from scaler.core.observation import Observation, Phase
from scaler.errors import BackendError
from scaler.live.advice import Advice, FullLog
from scaler.live.clock import Backoff, Ticks
from scaler.live.controller import Controller
from scaler.live.tick import Happening, Mode
from scaler.policies.base import Policy
from scaler.replay.runner import Run
from scaler.replay.setup import Gpus, ReplaySetup
from scaler.sources.constant import ConstantSource
from scaler.testing.simple_policy import SimplePolicy


class Breaking(Simulated):
    """Fails while `breaks` says so: at observing, or at applying."""

    breaks: str | None = None

    def observe(self) -> Observation:
        if self.breaks == "observe":
            raise BackendError("it cannot be seen")
        return super().observe()

    def apply(self, decision: Decision, fence: Fence = UNFENCED) -> list[tuple[str, str]]:
        if self.breaks == "apply" and decision.actions:
            raise BackendError("it cannot be changed")
        return super().apply(decision, fence)


@pytest.mark.parametrize("policy", ["simple", "hybrid"])
def test_live_and_replay_decide_alike(tmp_path: Path, policy: str) -> None:
    """Two equal clusters, one under the replay's loop and one under a controller that reads the clock."""
    source = ConstantSource(8.0, 1.5)
    one = spec(slo_ms=120.0, memory_mib=1500.0)
    times_s = np.concatenate([np.arange(0, 15, 0.1), np.arange(15, 30, 0.002), np.arange(30, 40, 0.1)])
    arrivals = {one.name: times_s}
    setup = ReplaySetup([one], arrivals, source, source, end_s=40.0, gpus=Gpus(3))
    replayed: list[tuple[Observation, Decision]] = []

    def new_policy() -> Policy:
        return SimplePolicy() if policy == "simple" else setup.policy(policy)

    first = Run(setup, new_policy(), watch=lambda seen, decision: replayed.append((seen, decision)))
    for _ in first.ticks():
        pass
    second, clock, told = Run(setup, new_policy()), Moved(), Told()
    log = FullLog(tmp_path / "log.jsonl")
    controller = Controller(
        second.core, Simulated(second.cluster, clock.now_s), apply=True, reporters=[told, log], clock=clock
    )
    for seen, _ in replayed:
        clock.s = seen.now_s
        controller.tick()
    assert [(tick.seen, tick.decision) for tick in told.ticks] == replayed
    assert sum(len(decision.actions) for _, decision in replayed) >= 5
    # And a third time from what the log kept: the core alone, on the observations as JSON.
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    state, third = None, Run(setup, new_policy()).core
    for line in (line for line in lines if line["event"] == "decision"):
        state, decision = third.step(state, observation_from_json(json.dumps(line["observation"])))
        assert json.loads(decision_to_json(decision)) == line["decision"]


def test_with_apply_it_serves_what_comes() -> None:
    clock, told = Moved(), Told()
    backend = simulated(clock.now_s)
    Controller(core_of(), backend, apply=True, reporters=[told], clock=clock).run(After(40))
    ready = [one for one in told.ticks[-1].seen.instances if one.phase == Phase.READY]
    assert ready
    assert told.ticks[-1].decision.outlook["f"].capacity_rps > RPS
    assert {tick.mode for tick in told.ticks} == {Mode.APPLIED}
    assert told.happened(Happening.LEADS) == ["alone"]
    assert [what for what, _, _ in told.happenings[-1:]] == [Happening.STOPPED]


def test_advice_changes_nothing_and_is_the_same_each_tick() -> None:
    clock, told, out = Moved(), Told(), io.StringIO()
    backend = simulated(clock.now_s)
    Controller(core_of(), backend, reporters=[told, Advice(out)], clock=clock).run(After(40))
    assert backend.cluster.instances == {}
    assert {tick.mode for tick in told.ticks} == {Mode.ADVICE}
    # What it advised is not on its way: it does not wait for it, and nothing was lost.
    first_s = 5
    kinds = [[action.kind for action in tick.decision.actions] for tick in told.ticks[first_s:]]
    assert all("start" in one for one in kinds)
    assert all(tick.decision.outlook["f"].unmet_rps == 0 for tick in told.ticks[first_s:])
    reasons = {action.reason for tick in told.ticks for action in tick.decision.actions}
    assert Reason.LOST not in reasons
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    decisions = [line for line in lines if line["event"] == "decision"]
    assert len(decisions) == len(told.ticks)
    start = decisions[-1]["actions"][0]
    assert (start["kind"], start["function"], decisions[-1]["mode"]) == ("start", "f", "advice")
    assert start["reason"] in {one.value for one in Reason}


def test_advice_beside_a_fleet_that_suffices_is_to_leave_it() -> None:
    clock, told = Moved(), Told()
    backend = simulated(clock.now_s)
    Controller(core_of(), backend, apply=True, clock=clock).run(After(30))
    before = {id_: placed.config for id_, placed in backend.cluster.instances.items()}
    again = Simulated(backend.cluster, clock.now_s)
    Controller(core_of(), again, reporters=[told], clock=clock).run(After(15))
    assert {id_: placed.config for id_, placed in backend.cluster.instances.items()} == before
    assert not told.ticks[0].decision.actions
    assert sum(not tick.decision.actions for tick in told.ticks) >= len(told.ticks) // 2


def test_ticks_do_not_drift_and_late_ones_are_skipped() -> None:
    ticks = Ticks(100.0, 0.1)
    times = []
    for _ in range(1000):
        times.append(ticks.next_s)
        assert ticks.done(ticks.next_s + 0.04) == 0
    assert times[-1] == pytest.approx(100.0 + 99.9, abs=1e-9)
    assert ticks.done(ticks.next_s + 0.35) == 3
    assert ticks.next_s == pytest.approx(200.4, abs=1e-9)
    # Exactly in time is not late.
    assert ticks.done(ticks.next_s + 0.1) == 0


def test_a_tick_that_takes_too_long_costs_the_next_ones_and_that_is_said() -> None:
    clock, told = Moved(), Told()

    class Slow(Simulated):
        def observe(self) -> Observation:
            seen = super().observe()
            clock.s += 2.5 if len(told.ticks) == 3 else 0.01
            return seen

    Controller(core_of(), Slow(cluster(), clock.now_s), reporters=[told], clock=clock).run(After(10))
    assert [number for what, _, number in told.happenings if what == Happening.SKIPPED] == [2]
    assert [tick.number for tick in told.ticks][:6] == [0, 1, 2, 3, 6, 7]
    assert [round(tick.seen.now_s, 2) for tick in told.ticks][:6] == [0, 1, 2, 3, 6, 7]


def test_a_backend_that_cannot_be_seen_is_asked_again_ever_more_rarely() -> None:
    clock, told = Moved(), Told()
    backend = Breaking(cluster(), clock.now_s)
    controller = Controller(core_of(), backend, apply=True, reporters=[told], clock=clock)
    asked = []
    for second in range(70):
        clock.s = float(second)
        backend.breaks = "observe" if 20 <= second < 52 else None
        before = len(told.happened(Happening.BLIND))
        controller.tick()
        if len(told.happened(Happening.BLIND)) > before:
            asked.append(second)
    assert asked == [20, 21, 23, 27, 35, 51]
    assert told.happened(Happening.BLIND)[1].endswith("next try in 2 s")
    assert told.ticks[-1].decision.outlook["f"].rate_rps == pytest.approx(RPS, rel=0.5)
    # What it served with meanwhile is what there is: nothing was lost by not looking.
    reasons = [action.reason for tick in told.ticks[20:] for action in tick.decision.actions]
    assert Reason.LOST not in reasons


def test_what_could_not_be_applied_is_decided_anew() -> None:
    clock, told = Moved(), Told()
    backend = Breaking(cluster(), clock.now_s)
    controller = Controller(core_of(), backend, apply=True, reporters=[told], clock=clock)
    backend.breaks = "apply"
    for second in range(12):
        clock.s = float(second)
        controller.tick()
    assert backend.cluster.instances == {}
    assert {tick.mode for tick in told.ticks if tick.decision.actions} == {Mode.FAILED}
    backend.breaks = None
    for second in range(12, 30):
        clock.s = float(second)
        controller.tick()
    assert backend.cluster.instances
    assert told.ticks[-1].decision.outlook["f"].capacity_rps > RPS
    reasons = [action.reason for tick in told.ticks for action in tick.decision.actions]
    assert Reason.LOST not in reasons


def test_backoff_grows_up_to_its_limit_and_begins_anew() -> None:
    backoff = Backoff(1.0, 8.0)
    assert [backoff.failed(0.0) for _ in range(6)] == [1, 2, 4, 8, 8, 8]
    backoff.worked()
    assert backoff.failed(5.0) == 1.0
    assert backoff.until_s == 6.0


def test_the_log_goes_on_after_a_line_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"event":"decisi')
    log = FullLog(path)
    log.on_happening(Happening.STARTED, "it")
    log.close()
    lines = path.read_text().splitlines()
    assert lines[0] == '{"event":"decisi'
    assert json.loads(lines[1])["event"] == "started"


def test_the_trace_is_long_enough() -> None:
    assert END_S >= 70


def test_what_is_refused_is_not_counted_on() -> None:
    clock, told = Moved(), Told()

    class Refusing(Simulated):
        def apply(self, decision: Decision, fence: Fence = UNFENCED) -> list[tuple[str, str]]:
            return [(action.id, "not of a size that there is") for action in decision.actions]

    controller = Controller(
        core_of(), Refusing(cluster(), clock.now_s), apply=True, reporters=[told], clock=clock
    )
    controller.run(After(30))
    assert all(tick.refused for tick in told.ticks[1:])
    # Each tick it wants them anew, as nothing came of them; and nothing is lost that never was.
    assert all(tick.decision.actions for tick in told.ticks[1:])
    assert Reason.LOST not in {action.reason for tick in told.ticks for action in tick.decision.actions}
