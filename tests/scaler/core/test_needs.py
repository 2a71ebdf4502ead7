"""What is read once and kept says what the times themselves say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapp.types import ResourceConfig
from scaler.core.corrected import corrected
from scaler.core.needs import instance_need, latency_ms
from scaler.forecast.base import Forecast
from scaler.policies.base import Case
from scaler.policies.changes import need, throughput_rps
from scaler.sources.service_times import Gate, ServiceTimes
from scaler.testing.fleet import times_of
from scaler.testing.policy_loop import function

SPEC = function()
PLAIN = times_of(SPEC)
CORRECTED = corrected(PLAIN, device_factor=1.4, pace_factor=0.8, spread=0.5)
SHAPE = len(PLAIN.sm_pct), 3, len(PLAIN.batch)
GATED = ServiceTimes(
    "n", "gated", PLAIN.sm_pct, PLAIN.batch, PLAIN.device_ms, PLAIN.host_ms, PLAIN.upper, None,
    Gate(np.array([10.0, 50.0, 100.0]), np.linspace(90, 10, np.prod(SHAPE)).reshape(SHAPE)),
)  # fmt: skip

_configs = st.builds(
    ResourceConfig, st.floats(2.0, 100.0), st.floats(1.0, 100.0), st.integers(1, 12)
)  # fmt: skip


@pytest.mark.parametrize("times", [PLAIN, CORRECTED, GATED], ids=["plain", "corrected", "gated"])
@given(configs=st.lists(_configs, min_size=1, max_size=5))
@settings(deadline=None, max_examples=25)
def test_a_latency_is_that_of_the_times(times: ServiceTimes, configs: list[ResourceConfig]) -> None:
    for config in configs:
        own = float(times.latency_ms(config.sm_pct, config.quota_pct, config.batch))
        # A second time, from what is kept.
        assert [latency_ms(times, config, 8) for _ in range(2)] == pytest.approx([own] * 2, rel=1e-12)


def test_a_policy_counts_what_the_check_counts() -> None:
    config = ResourceConfig(40.0, 30.0, 4)
    quiet = Forecast(0.0, 0.0)
    case = Case(SPEC, 300.0, CORRECTED, 1500.0, (), 0.0, quiet, quiet, 0, 0, None, 0.0)
    assert need(case, config) == instance_need(SPEC, PLAIN, 1500.0, config)
    both = [config, ResourceConfig(70.0, 100.0, 8)]
    own = sum(1e3 * of.batch / float(CORRECTED.latency_ms(of.sm_pct, of.quota_pct, of.batch)) for of in both)
    assert throughput_rps(case, both) == pytest.approx(own)
    assert throughput_rps(case, []) == 0.0
