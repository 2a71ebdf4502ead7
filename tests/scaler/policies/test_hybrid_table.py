"""Rates of a table made for rounded execution times are never more than those of the times themselves."""

from __future__ import annotations

import numpy as np
import pytest

from scaler.capacity.fleet import served_rps
from scaler.capacity.plans import plan_table
from scaler.core.corrected import corrected
from scaler.policies.hybrid_table import BESIDE, COARSE, planned_table
from scaler.testing.fleet import times_of

FACTORS = (0.62, 0.9, 0.97, 1.0, 1.03, 1.18, 1.5)


@pytest.mark.parametrize("pace", FACTORS)
@pytest.mark.parametrize("shape", [0.93, 1.0, 1.1])
def test_what_is_planned_with_is_served(case, pace: float, shape: float) -> None:
    seen = case(max_batch=4)
    plain = times_of(seen.spec, 10.0)
    times = corrected(plain, device_factor=pace * shape, pace_factor=pace, spread=0.0)
    table, gain = planned_table(case(max_batch=4, times=times))
    beside = corrected(plain, device_factor=BESIDE * pace * shape, pace_factor=BESIDE * pace, spread=0.0)
    exact = plan_table(beside, seen.slo_ms, seen.spec.slo_quantile, 4)
    for number in (1, 3):
        planned, true = gain * served_rps(table, number), served_rps(exact, number)
        # Tables of plans themselves round by 2 %; where times are rounded down, by a quarter of a step at
        # most, a rate may set in a little early.
        if gain >= 1:
            assert (planned[:, :-1] <= 1.03 * true[:, 1:] + 0.3).all()
        assert 0.85 < planned.sum() / true.sum() < 1.03


def test_factors_within_a_step_share_a_table(case) -> None:
    plain = times_of(case().spec, 10.0)

    def planned(pace: float) -> tuple[object, float]:
        return planned_table(case(times=corrected(plain, device_factor=pace, pace_factor=pace, spread=0.0)))

    first, second, next_one = (planned(pace) for pace in (1.0, 1.01, 1.01 * COARSE**2))
    assert first[0] is second[0] is not next_one[0]
    assert first[1] / second[1] == pytest.approx(1.01)
    assert np.isfinite(next_one[1])
