"""Units of work: what becomes of each point when steps fail, and the comparison of outputs."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from profiler.bench import run_unit
from profiler.device import Failure, NetworkFile
from profiler.measure import StopRule
from profiler.outcome import Outcome, Stage, Status
from profiler.outputs import References
from profiler.plan import Point, WorkUnit
from rapp.types import ResourceConfig

NET = NetworkFile("net", None)
BATCHES, QUOTAS = (1, 2, 4), (100.0, 50.0, 10.0)
Device = Any


def unit(sm_pct: float = 50.0) -> WorkUnit:
    points = [Point("net", ResourceConfig(sm_pct, quota, batch)) for batch in BATCHES for quota in QUOTAS]
    return WorkUnit(NET, sm_pct, tuple(points))


def ran(
    device: Device, rule: StopRule, work: WorkUnit | None = None, **options: Any
) -> dict[tuple[int, float], Outcome]:
    """The outcomes of a unit, by batch and quota, each point exactly once and in order."""
    work, outcomes = work or unit(), []
    run_unit(device, work, rule, references=References(NET, BATCHES), report=outcomes.append, **options)
    assert [outcome.point for outcome in outcomes] == list(work.points)
    return {(one.point.config.batch, one.point.config.quota_pct): one for one in outcomes}


def test_a_unit_is_one_session(scripted: Callable[..., Device], quick: StopRule) -> None:
    device = scripted()
    outcomes = ran(device, quick)
    assert {one.status for one in outcomes.values()} == {Status.OK}
    assert device.opened == [("net", 100.0), ("net", 50.0)], "the first is for the references"
    assert device.prepared == [("net", 100.0, b) for b in BATCHES] + [("net", 50.0, b) for b in BATCHES]


def test_a_measured_outcome_holds_what_the_session_tells(
    scripted: Callable[..., Device], quick: StopRule, latency_truth: Callable[..., Any]
) -> None:
    outcome = ran(scripted(), quick)[4, 10.0]
    assert outcome.measurement is not None
    device_ms, latency_ms = latency_truth(outcome.point.config)
    assert outcome.measurement.latency_ms == pytest.approx(latency_ms)
    assert outcome.measurement.device_ms == pytest.approx(device_ms)
    assert (outcome.sm_count, outcome.peak_memory_mib, outcome.outputs_compared) == (7, 123.0, True)
    runs = outcome.measurement.n_samples + outcome.measurement.warm_up_runs
    assert outcome.seconds == pytest.approx(runs * latency_ms / 1e3), "virtual time"


def statuses(outcomes: dict[tuple[int, float], Outcome]) -> str:
    """One letter a point: ok, failed, skipped; batches ascending, quotas descending."""
    return " ".join("".join(outcomes[b, q].status.value[0] for q in QUOTAS) for b in BATCHES)


def failing(stage: str, failure: Failure, batch: int | None = None, quota: float | None = None) -> Any:
    def fails(at: str, _: str, sm: float, b: int | None, q: float | None) -> Failure | None:
        hit = at == stage and batch in (None, b) and quota in (None, q) and sm == 50.0
        return failure if hit else None

    return fails


@pytest.mark.parametrize(
    ("stage", "failure", "batch", "quota", "expected"),
    [
        ("prepare", Failure.OUT_OF_MEMORY, 2, None, "ooo fff sss"),
        ("prepare", Failure.TIMEOUT, 2, None, "ooo fff sss"),
        ("prepare", Failure.CRASHED, 2, None, "ooo fff ooo"),
        ("prepare", Failure.UNSUPPORTED, 1, None, "fff ooo ooo"),
        ("run", Failure.OUT_OF_MEMORY, 2, 50.0, "ooo ofo sss"),
        ("run", Failure.TIMEOUT, 2, 50.0, "ooo ofs oss"),
        ("run", Failure.TIMEOUT, 1, 100.0, "fss sss sss"),
        ("run", Failure.CRASHED, 2, 50.0, "ooo ofo ooo"),
        ("run", Failure.UNSUPPORTED, 2, 50.0, "ooo ofo ooo"),
        ("open", Failure.PARTITION, None, None, "fff fff fff"),
        ("open", Failure.CRASHED, None, None, "fff fff fff"),
    ],
)
def test_a_failure_ends_what_it_must_and_nothing_else(
    scripted: Callable[..., Device],
    quick: StopRule,
    stage: str,
    failure: Failure,
    batch: int | None,
    quota: float | None,
    expected: str,
) -> None:
    device = scripted(fails=failing(stage, failure, batch, quota))
    outcomes = ran(device, quick)
    assert statuses(outcomes) == expected
    for outcome in outcomes.values():
        assert (outcome.status == Status.OK) == (outcome.reason is None) == (outcome.failure is None)
        if outcome.status != Status.OK:
            assert failure.value in str(outcome.reason)
    tried = [outcome for outcome in outcomes.values() if outcome.stage is not None]
    assert [one.stage for one in tried] == [Stage(stage)], "one try tells all"
    device.close()


def test_after_a_crash_there_is_a_new_session(scripted: Callable[..., Device], quick: StopRule) -> None:
    device = scripted(fails=failing("run", Failure.CRASHED, 1, 100.0))
    ran(device, quick)
    assert device.opened.count(("net", 50.0)) == 2


def test_an_unsupported_point_leaves_the_session(scripted: Callable[..., Device], quick: StopRule) -> None:
    device = scripted(fails=failing("prepare", Failure.UNSUPPORTED, 1))
    ran(device, quick)
    assert device.opened.count(("net", 50.0)) == 1


def test_earlier_failures_are_remembered(scripted: Callable[..., Device], quick: StopRule) -> None:
    """As when a campaign goes on that was killed between a failure and the points that it decides."""
    first = ran(scripted(fails=failing("prepare", Failure.OUT_OF_MEMORY, 2)), quick)
    device = scripted()
    rest = WorkUnit(NET, 50.0, unit().points[4:])
    outcomes = ran(device, quick, rest, ended=[first[2, 100.0]])
    assert "".join(one.status.value[0] for one in outcomes.values()) == "ffsss"
    assert device.opened == []


def test_a_bug_is_no_outcome(scripted: Callable[..., Device], quick: StopRule) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    device = scripted(fails=broken)
    with pytest.raises(ZeroDivisionError):
        ran(device, quick)


def test_it_stops_between_points(scripted: Callable[..., Device], quick: StopRule) -> None:
    outcomes: list[Outcome] = []
    run_unit(
        scripted(),
        unit(),
        quick,
        references=References(NET, BATCHES),
        report=outcomes.append,
        stopped=lambda: len(outcomes) == 4,
    )
    assert len(outcomes) == 4


def test_other_outputs_than_at_full_partition_are_a_failure(
    scripted: Callable[..., Device], quick: StopRule
) -> None:
    outcomes = ran(scripted(shift=lambda sm: 0.02 if sm == 50 else 0.0), quick)
    assert statuses(outcomes) == "fff fff fff"
    assert {one.failure for one in outcomes.values()} == {Failure.WRONG_OUTPUT}
    assert "differs by 0.02 of its range" in str(outcomes[1, 100.0].reason)


def test_where_the_full_partition_fails_nothing_is_compared(
    scripted: Callable[..., Device], quick: StopRule
) -> None:
    def fails(stage: str, _: str, sm: float, batch: int | None, __: float | None) -> Failure | None:
        return Failure.OUT_OF_MEMORY if sm == 100 and stage == "prepare" and batch == 2 else None

    outcomes = ran(scripted(fails=fails), quick)
    assert statuses(outcomes) == "ooo ooo ooo"
    assert [outcomes[batch, 100.0].outputs_compared for batch in BATCHES] == [True, False, False]


def test_an_anchor_makes_the_references_in_its_session(
    scripted: Callable[..., Device], quick: StopRule
) -> None:
    device, references = scripted(), References(NET, BATCHES)
    outcomes: list[Outcome] = []
    anchor = Point("net", ResourceConfig(100, 100, 1), anchor=0)
    for work in (WorkUnit(NET, 100.0, (anchor,)), unit()):
        run_unit(device, work, quick, references=references, report=outcomes.append)
    assert device.opened == [("net", 100.0), ("net", 50.0)]
    assert all(one.outputs_compared for one in outcomes[1:])


def test_work_can_be_sent_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(unit())) == unit()
