"""How `hybrid` exchanges fleets and shares SMs where there is no room for all."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.capacity.plans import plan_table
from scaler.core.decision import Drain, Resize, Start
from scaler.core.observation import Phase
from scaler.forecast.base import Forecast
from scaler.gpu import Gpu, Need
from scaler.packing import Pool
from scaler.policies.base import Case, Member
from scaler.policies.hybrid import Hybrid
from scaler.policies.hybrid_exchange import excess, instead, replaced
from scaler.policies.hybrid_fleets import Fleet, Wanted, most_rps
from scaler.policies.hybrid_room import allowed_sm_pct
from scaler.testing.fleet import times_of
from scaler.testing.policy_loop import function

TABLE = plan_table(times_of(function(max_batch=4)), 120.0, 0.99, 4)
COLD_START_S = 5.0


def full(**own_pct: float) -> Pool:
    """Four GPUs on which functions have SMs, in pieces of at most 10 %."""
    pool = Pool(Gpu(f"g{number}", 1e6, 1e3) for number in range(4))
    for name, sm_pct in own_pct.items():
        for piece in range(int(sm_pct / 10)):
            place = pool.find(Need(10.0, 100.0))
            assert place is not None
            pool.add(f"{name}-{piece}", *place, Need(10.0, 100.0))
    return pool


NOTHING_FREE = full(others=400.0)


def test_who_needs_little_leaves_the_rest_to_those_who_need_more() -> None:
    own = {"a": 100.0, "b": 150.0, "c": 150.0}
    allowed = allowed_sm_pct(full(**own), own, ["b", "c"], {"a": 20.0, "b": 300.0, "c": 250.0})
    assert allowed == {"a": 20.0, "b": 190.0, "c": 190.0}


def test_while_nobody_is_short_all_keep_what_they_have() -> None:
    own = {"a": 100.0, "b": 150.0}
    allowed = allowed_sm_pct(full(**own), own, [], {"a": 20.0, "b": 30.0})
    assert allowed == {"a": 240.0, "b": 300.0}  # 250 down to a step


@given(st.lists(st.sampled_from([None, 5.0, 50.0, 120.0, 400.0]), min_size=1, max_size=8))
@settings(max_examples=50)
def test_those_who_are_short_are_owed_no_more_than_there_is(needs: list[float | None]) -> None:
    own = {str(number): 0.0 for number in range(len(needs))}
    wanted = dict(zip(own, needs, strict=True))
    parts = allowed_sm_pct(NOTHING_FREE, own | {"others": 400.0}, list(own), wanted | {"others": 5.0})
    assert sum(parts[name] for name in own) <= 400.0 + 1e-6
    # Nobody has less than an equal part who needs it; steps are rounded down.
    for name, need in wanted.items():
        assert parts[name] >= min(need or 400.0, 395.0 / len(own)) - 20.0


def test_instances_that_serve_nothing_in_time_still_serve_all_they_can(
    case: Callable[..., Case], member: Callable[..., Member], pool: Callable[..., Pool]
) -> None:
    # A batch takes 10 ms, beside others 10.5: no quota meets 10.2 ms.
    own = member("f-0-0", sm=100.0, quota=100.0, batch=1)
    known = case(20.0, [own], slo_ms=10.2, forecast=Forecast(20.0, 20.0), soon=Forecast(20.0, 20.0))
    _, actions, rates = Hybrid().decide(Hybrid().start(), 0.0, [known], pool(1, [own]))
    assert rates["f"] == 0.0
    assert all(action.quota_pct == 100.0 for action in actions if isinstance(action, Resize))


@given(st.floats(1, 400), st.floats(0, 300), st.integers(0, 6))
@settings(deadline=None, max_examples=40)
def test_what_takes_the_place_fits_and_serves_more(rps: float, there_rps: float, number: int) -> None:
    def fits(sm_pct: float, most: int) -> int:
        return min(most, int(number * (50 // sm_pct)))

    wanted = Wanted(rps, rps, 1, room_pct=250.0)
    found = instead(TABLE, wanted, there_rps, rps, COLD_START_S, fits)
    if there_rps >= rps or number == 0:
        assert found is None
    if found is not None:
        assert found.number <= fits(found.sm_pct, 100)
        assert found.number * found.sm_pct <= 250.0
        assert min(most_rps(TABLE, found), rps) > min(there_rps, rps)


def test_what_serves_nothing_gives_way_to_anything(member: Callable[..., Member]) -> None:
    wanted = Wanted(20.0, 40.0, 1, room_pct=60.0)
    found = instead(TABLE, wanted, 0.0, 20.0, COLD_START_S, lambda sm_pct, most: min(most, int(60 // sm_pct)))
    assert found is not None
    assert most_rps(TABLE, found) >= 20.0


def test_old_instances_stay_until_the_new_serve_as_much(member: Callable[..., Member]) -> None:
    new, old = ([member(f"{sm}-{n}", sm=sm) for n in range(2)] for sm in (10.0, 50.0))
    little, much = (most_rps(TABLE, fleet) for fleet in (Fleet(1, 10.0), Fleet(2, 50.0)))
    assert little < much
    assert replaced(TABLE, new[:1], 1, old, rps=little)
    assert not replaced(TABLE, new[:1], 1, old, rps=much)
    assert replaced(TABLE, old, 2, new, rps=10 * much)
    starting = [old[0], member("s", sm=50.0, phase=Phase.STARTING)]
    assert not replaced(TABLE, starting, 2, new, rps=1.0)


def test_old_instances_leave_room_that_others_are_owed(member: Callable[..., Member]) -> None:
    new, old = [member("n", sm=40.0)], [member("o50", sm=50.0), member("o30", sm=30.0)]

    def left(room_pct: float, least: int = 1) -> list[str]:
        return [one.id for one in excess(new, old, room_pct, least)]

    assert left(120.0) == []
    assert left(100.0) == ["o30"]
    assert left(40.0) == ["o30", "o50"]
    assert left(0.0, least=2) == ["o30"]
    assert excess([*new, member("s", phase=Phase.STARTING)], old, 0.0, 1) == []


def test_a_late_fleet_leaves_its_room_where_free_sms_are_in_pieces(
    case: Callable[..., Case], member: Callable[..., Member]
) -> None:
    # At SM 30 % a batch takes 27 ms; more than 40 % is free only where its own instances are.
    own = [member(f"f-0-{n}", sm=30.0, quota=100.0, batch=1, gpu=f"g{n}") for n in range(2)]
    spec = function(max_batch=1)
    given = {"max_batch": 1, "times": times_of(spec), "slo_ms": 25.0, "forecast": Forecast(20.0, 20.0)}

    def pool(members: list[Member]) -> Pool:
        made = full()
        del made.gpus["g2"], made.gpus["g3"]
        for n in range(2):
            made.add(f"other-{n}", f"g{n}", 1, Need(30.0, 100.0))
        for one in members:
            made.add(one.id, one.gpu, one.row, Need(30.0, 100.0, 1000.0))
        return made

    late = case(20.0, own, latency_ms=30.0, soon=Forecast(20.0, 20.0), **given)
    memory, actions, _ = Hybrid().decide(Hybrid().start(), 0.0, [late], pool(own))
    assert {action.id for action in actions if isinstance(action, Drain)} == {one.id for one in own}
    gone = case(20.0, [], queue=20, soon=Forecast(20.0, 20.0), **given)
    _, actions, rates = Hybrid().decide(memory, 1.0, [gone], pool([]))
    assert all(action.config.sm_pct > 40.0 for action in actions if isinstance(action, Start))
    assert rates["f"] >= 20.0
    # What is in time is left alone, whatever is computed.
    good = case(20.0, own, latency_ms=20.0, soon=Forecast(20.0, 20.0), **given)
    assert not any(
        isinstance(action, Drain) for action in Hybrid().decide(Hybrid().start(), 0.0, [good], pool(own))[1]
    )
