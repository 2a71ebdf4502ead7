"""A controller that leads no more makes no more changes: within a decision, and where another term leads."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from live_parts import Moved, Told, cluster, core_of

from scaler.backends.fencing import UNFENCED, Fence, FencedError, Terms
from scaler.backends.simulated import Simulated
from scaler.core.decision import Action, Decision, Reason, Start
from scaler.core.observation import Observation
from scaler.live.controller import FRESH, Controller
from scaler.live.lease import FileLease
from scaler.live.tick import Happening, Mode
from scaler.testing.simple_policy import SimplePolicy

DURATION_S = 6.0


class Slow(Simulated):
    """Something happens before each change; `calls` is what was asked of it."""

    def __init__(self, clock: Moved, before: Callable[[], None] = lambda: None) -> None:
        super().__init__(cluster(), clock.now_s)
        self._before = before
        self.calls: list[str | tuple[int | None, int]] = []

    def observe(self) -> Observation:
        self.calls.append("observe")
        return super().observe()

    def apply(self, decision: Decision, fence: Fence = UNFENCED) -> list[tuple[str, str]]:
        self.calls.append((fence.term, len(decision.actions)))

        def leads() -> bool:
            self._before()
            return fence.leads()

        return super().apply(decision, Fence(fence.term, leads))


@pytest.fixture
def clock() -> Moved:
    return Moved()


@pytest.fixture
def leases(tmp_path: Path, clock: Moved) -> list[FileLease]:
    return [FileLease(tmp_path / "lease", DURATION_S, clock=clock.now_s, boot="a") for _ in range(2)]


def decided(controller: Controller, count: int) -> None:
    """Have its core decide on so many starts."""
    config = SimplePolicy().config
    actions: list[Action] = [
        Start(f"i{number}", "f", f"gpu-{number // 4}", number % 4, config, Reason.POLICY)
        for number in range(count)
    ]
    step = controller.core.step

    def stepped(state: Any, seen: Observation) -> tuple[Any, Decision]:
        after, decision = step(state, seen)
        return after, Decision(tuple(actions), decision.outlook)

    controller.core.step = stepped


@pytest.mark.parametrize("is_taken", [True, False])
def test_one_that_stands_still_within_a_decision_makes_the_rest_only_if_it_still_leads(
    clock: Moved, leases: list[FileLease], is_taken: bool
) -> None:
    told, checks = Told(), 0

    def before() -> None:
        nonlocal checks
        checks += 1
        if checks == 3:
            clock.s += DURATION_S + 0.5
            if is_taken:
                assert leases[1].lead()

    backend = Slow(clock, before)
    controller = Controller(core_of(), backend, apply=True, lease=leases[0], reporters=[told], clock=clock)
    decided(controller, 5)
    controller.tick()
    assert len(backend.cluster.instances) == (2 if is_taken else 5)
    assert [one.mode for one in told.ticks] == [Mode.STANDBY if is_taken else Mode.APPLIED]
    assert len(told.happened(Happening.LOST_LEASE)) == is_taken
    assert leases[0].lead() is not is_taken


def test_a_decision_that_takes_longer_than_the_lease_keeps_it(clock: Moved, leases: list[FileLease]) -> None:
    def before() -> None:
        clock.s += 0.9 * FRESH * DURATION_S
        assert not leases[1].lead()

    backend = Slow(clock, before)
    controller = Controller(core_of(), backend, apply=True, lease=leases[0], clock=clock)
    decided(controller, 6)
    controller.tick()
    assert len(backend.cluster.instances) == 6


def test_who_begins_to_lead_says_its_term_before_it_looks(clock: Moved, leases: list[FileLease]) -> None:
    backend = Slow(clock)
    Controller(core_of(), backend, apply=True, lease=leases[0], clock=clock).tick()
    assert backend.calls[:2] == [(leases[0].term, 0), "observe"]
    assert leases[0].term > 0


def test_where_a_later_term_leads_it_says_so_and_waits_ever_longer(
    clock: Moved, leases: list[FileLease]
) -> None:
    """Two leases for one backend, by mistake: the older one is not let through, and not silent either."""
    terms, told = Terms(), Told()

    class Knowing(Slow):
        def apply(self, decision: Decision, fence: Fence = UNFENCED) -> list[tuple[str, str]]:
            made = super().apply(Decision(()), fence)
            terms.admit(fence.term)
            return made or super().apply(decision, fence)

    backend = Knowing(clock)
    controller = Controller(core_of(), backend, apply=True, lease=leases[0], reporters=[told], clock=clock)
    controller.tick()
    there = set(backend.cluster.instances)
    terms.admit(terms.highest + 1)
    for _ in range(20):
        clock.s += 1.0
        controller.tick()
    assert set(backend.cluster.instances) == there
    said = told.happened(Happening.LOST_LEASE)
    assert 3 <= len(said) <= 7
    assert all("is over" in one and "next try in" in one for one in said)


def test_terms() -> None:
    terms = Terms()
    assert terms.admit(3)
    assert not terms.admit(3)
    assert not terms.admit(None)
    with pytest.raises(FencedError, match=r"term 2 of the lease is over, 3 leads"):
        terms.admit(2)
    assert terms.admit(7)
    assert terms.highest == 7
