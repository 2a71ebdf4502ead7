"""Times at the partitions that a machine can give, and a core that asks for no others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapp.recommend import Risk
from scaler.core.decision import Start
from scaler.core.observation import FunctionView, GpuView, Observation
from scaler.core.step import Core
from scaler.forecast.registry import forecaster
from scaler.policies.registry import policy
from scaler.sources.partitions import MOST_STEPS, in_steps
from scaler.testing.fleet import times_of
from scaler.testing.policy_loop import function

SPEC = function("f")


@given(cores=st.integers(1, 16))
def test_at_whole_cores_nothing_changes_and_other_partitions_are_no_choice(cores: int) -> None:
    plain = times_of(SPEC)
    made = in_steps(plain, 100.0 / cores)
    assert made.sm_pct == pytest.approx(100.0 / cores * np.arange(1, cores + 1))
    for risk in Risk:
        np.testing.assert_allclose(
            made.latency_ms(made.sm_pct[:, None], 40.0, plain.batch, risk=risk),
            plain.latency_ms(made.sm_pct[:, None], 40.0, plain.batch, risk=risk),
            rtol=1e-9,
        )


def test_a_machine_of_many_cores_has_no_more_than_a_hundred_partitions() -> None:
    made = in_steps(times_of(SPEC), 100.0 / 256)
    assert len(made.sm_pct) == MOST_STEPS
    assert made.sm_pct[-1] == pytest.approx(100.0)
    assert np.allclose(made.sm_pct * 2.56, np.round(made.sm_pct * 2.56))


def test_the_core_orders_whole_cores_of_a_cpu() -> None:
    core = Core([SPEC], {"f": times_of(SPEC)}, forecaster("last-value"), policy("hybrid"))
    cpu = GpuView("cpu:0", 16_000.0, 4.0, 25.0)
    _, decision = core.step(None, Observation(0.0, {"f": FunctionView(20)}, (), (cpu,)))
    starts = [action for action in decision.actions if isinstance(action, Start)]
    assert starts
    assert all(one.config.sm_pct % 25.0 == 0 for one in starts)
