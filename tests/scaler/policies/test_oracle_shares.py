"""The oracle's shares: never more than there is, and as few requests late as can be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.arrivals import RateSteps
from scaler.capacity.plans import PlanTable
from scaler.policies.oracle_shares import LENIENT, Claim, rate_rps, shares
from scaler.policies.static import function_table
from scaler.testing.policy_loop import Demand, Loop, function
from scaler.testing.simple_policy import SimplePolicy


def load(*rps: float) -> RateSteps:
    return RateSteps(10.0 * np.arange(len(rps) + 1), np.array(rps))


def table(slo_ms: float = 300.0) -> PlanTable:
    loop = Loop(SimplePolicy(), [function(slo_ms=slo_ms)])
    return function_table(loop.cases({"f": Demand(0.0)})[0][0])


def serves(claim: Claim, gpus: float, instances: int, rps: float) -> bool:
    """Whether some like instances within a share serve a rate."""
    plans = claim.table
    return any(
        plans.resized(number, sm_pct, rps).capacity_rps >= rps
        for sm_pct in plans.sm_pct.tolist()
        for number in {1, 2, 3, 4, min(int(gpus * (100.0 // sm_pct) + 1e-6), instances)}
        if 0 < number <= min(int(gpus * (100.0 // sm_pct) + 1e-6), instances)
    )


@given(
    peaks=st.lists(st.sampled_from([1.0, 30.0, 150.0, 700.0]), min_size=1, max_size=5), gpus=st.integers(1, 6)
)
@settings(deadline=None, max_examples=20)
def test_shares_are_of_what_is_there(peaks: list[float], gpus: int) -> None:
    plans = table()
    given_ = shares(tuple(Claim(plans, load(peak, peak / 9), 10) for peak in peaks), gpus)
    assert sum(one.gpus for one in given_) <= gpus + 1e-6
    assert sum(one.instances for one in given_) <= 10 * gpus


def test_where_there_is_enough_each_peak_is_served_and_nothing_is_left() -> None:
    plans = table()
    claims = tuple(Claim(plans, load(peak), 10) for peak in (20.0, 80.0, 200.0))
    given_ = shares(claims, 4)
    assert sum(one.gpus for one in given_) == pytest.approx(4.0)
    for claim, share in zip(claims, given_, strict=True):
        assert serves(claim, share.gpus, share.instances, float(claim.load.rps.max()))


def test_where_there_is_too_little_all_the_time_functions_are_served_in_whole() -> None:
    light, heavy = table(300.0), table(30.0)
    claims = (Claim(heavy, load(100.0), 10), Claim(light, load(80.0), 10), Claim(light, load(75.0), 10))
    first, *others = shares(claims, 2)
    for claim, share in zip(claims[1:], others, strict=True):
        assert serves(claim, share.gpus, share.instances, float(claim.load.rps.max()))
    assert not serves(claims[0], first.gpus, first.instances, 100.0)


def test_where_there_is_too_little_at_rare_peaks_the_peaks_are_given_up() -> None:
    plans = table()
    # Alone each peak has room, both together have not.
    rare = load(200.0, *[80.0] * 200)
    claims = (Claim(plans, rare, 10), Claim(plans, rare, 10))
    assert not all(serves(claims[0], one.gpus, one.instances, 200.0) for one in shares(claims, 2))
    assert all(serves(claims[0], one.gpus, one.instances, 80.0) for one in shares(claims, 2))


def test_where_a_short_tail_takes_too_much_all_are_served_within_a_longer_one() -> None:
    strict, easy = table(30.0), table(300.0)
    claims = tuple(Claim(strict, load(100.0), 10, (easy,) * len(LENIENT)) for _ in range(2))
    for claim, share in zip(claims, shares(claims, 2), strict=True):
        assert not serves(claim, share.gpus, share.instances, 100.0)
        assert serves(replace(claim, table=easy), share.gpus, share.instances, 100.0)


def test_memory_bounds_instances_as_rows_do() -> None:
    plans = table()
    claims = tuple(Claim(plans, load(100.0), in_memory) for in_memory in (3, 3))
    assert [one.instances for one in shares(claims, 2)] == [3, 3]


def test_the_rate_of_a_part_of_the_requests() -> None:
    # 10, 30 and 60 % of the requests.
    steps = load(60.0, 10.0, 30.0)
    assert [rate_rps(steps, level) for level in (0.05, 0.3, 0.5, 1.0)] == [10.0, 30.0, 60.0, 60.0]
