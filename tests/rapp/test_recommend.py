"""Prices and choices, worked out by hand on a closed form."""

from __future__ import annotations

import pickle
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapp.errors import ConfigError, InfeasibleError
from rapp.recommend import Objective, Risk, UnmetObjectiveError, price, recommend
from rapp.recommend.search import pareto
from rapp.testing import ClosedFormModel
from rapp.types import QuotaKind, ResourceConfig, ResourceGrid

# D = 20 ms at SM 100 %, batch 1; H = 2 ms.
DEVICE_BOUND = ClosedFormModel("net", work_ms=20.0, launch_ms=2.0, spread=0.25)


def priced(config: ResourceConfig, objective: Objective, model: ClosedFormModel = DEVICE_BOUND):
    grid = ResourceGrid([config.sm_pct], [config.quota_pct], [config.batch])
    return price(model.latency_grid(grid, quota_kind=QuotaKind.GPU_TIME, idle_ms=0.0), objective).choice(0)


def test_a_configuration_is_priced_as_the_formulas_say():
    # D = 20 x 5/2 / 0.5 = 100 ms, at quota 50 % 200 ms. 100 requests/s x 200 ms / (1000 x 4) = 5 busy
    # instances, 5 / 0.8 = 6.25 -> 7. Each gets 100/7 requests/s: three more arrive in 3 x 70 ms = 210 ms.
    choice = priced(ResourceConfig(50, 50, 4), Objective(slo_ms=500, rps=100))
    assert choice.instances == 7
    assert choice.latency_ms == choice.mean_ms == pytest.approx(200)
    assert choice.fill_ms == pytest.approx(210)
    assert choice.request_ms == pytest.approx(410)
    assert choice.gpu_share == pytest.approx(7 * 0.5 * 0.5)
    assert choice.utilisation == pytest.approx(5 / 7)
    assert choice.host_cores == pytest.approx(7 * 2 / 200)


def test_a_single_request_does_not_wait_for_others():
    choice = priced(ResourceConfig(100, 100, 1), Objective(slo_ms=30, rps=0.01))
    assert (choice.instances, choice.fill_ms) == (1, 0.0)
    assert choice.request_ms == pytest.approx(20)


def test_a_load_that_fits_exactly_needs_no_further_instance():
    # 3 x 0.8 / 20 ms = 120 requests/s; 120 x 20 / 1000 / 0.8 is 3.0000000000000004 or so in floats.
    for n in range(1, 200):
        choice = priced(ResourceConfig(100, 100, 1), Objective(slo_ms=30, rps=n * 0.8 / 0.020))
        assert choice.instances == n
    assert priced(ResourceConfig(100, 100, 1), Objective(slo_ms=30, rps=120.5)).instances == 4


def test_the_upper_end_is_dearer_than_the_mean():
    config = ResourceConfig(100, 100, 1)
    mean = priced(config, Objective(slo_ms=60, rps=100))
    upper = priced(config, Objective(slo_ms=60, rps=100, risk=Risk.UPPER))
    assert upper.latency_ms == pytest.approx(1.25 * mean.latency_ms) == pytest.approx(upper.high_ms)
    assert (mean.instances, upper.instances) == (3, 4)


def brute_force(model, objective, grid):
    """The cheapest that meets the objective, one configuration after another."""
    found = []
    for config in grid:
        answer = model.latency(config, quota_kind=QuotaKind.GPU_TIME, idle_ms=0.0)
        latency = answer.mean_ms if objective.risk == "mean" else answer.high_ms
        n = 1
        while n * 1000 * config.batch / latency * objective.utilisation < objective.rps * (1 - 1e-9):
            n += 1
        request = latency + (config.batch - 1) / (objective.rps / n) * 1000
        if request <= objective.slo_ms:
            found.append((round(n * config.gpu_share, 9), request))
    return min(found, default=None)


@settings(deadline=None, max_examples=60)
@given(
    slo=st.floats(5, 500),
    rps=st.floats(0.5, 300),
    risk=st.sampled_from(Risk),
    utilisation=st.sampled_from([0.5, 0.8, 1.0]),
)
def test_the_best_is_what_brute_force_finds(slo, rps, risk, utilisation):
    objective = Objective(slo, rps, risk, utilisation)
    grid = ResourceGrid([10, 40, 100], [20, 50, 100], [1, 2, 8])
    expected = brute_force(DEVICE_BOUND, objective, grid)
    if expected is None:
        with pytest.raises(UnmetObjectiveError):
            recommend(DEVICE_BOUND, objective, grid)
        return
    found = recommend(DEVICE_BOUND, objective, grid, top=100)
    assert (found.best.gpu_share, found.best.request_ms) == pytest.approx(expected)
    assert all(choice.request_ms <= slo for choice in found.choices)
    keys = [(round(choice.gpu_share, 9), choice.request_ms) for choice in found.choices]
    assert keys == sorted(keys)
    assert len(found.choices) == found.options.meets.sum()


def test_the_front_holds_what_nothing_beats():
    found = recommend(DEVICE_BOUND, Objective(slo_ms=200, rps=40))
    share, request = found.options.gpu_share, found.options.request_ms
    assert len(found.front) > 5
    for one in found.front:
        as_cheap = share <= one.gpu_share + 1e-9
        assert one.request_ms == request[as_cheap].min()
    for before, after in pairwise(found.front):
        assert after.gpu_share > before.gpu_share
        assert after.request_ms < 0.99 * before.request_ms
    # Whatever is not on the front has one on it that is as cheap, and as fast but for 1 %.
    for one, ms in zip(share, request, strict=True):
        assert any(c.gpu_share <= one + 1e-9 and 0.99 * c.request_ms <= ms for c in found.front)


def test_a_front_has_no_point_for_each_hair_of_latency():
    order, request = np.arange(5), np.array([10.0, 9.99, 9.95, 9.8, 9.79])
    assert pareto(order, request).tolist() == [0, 3]
    assert pareto(order, request, step=0).tolist() == [0, 1, 2, 3, 4]


def test_of_two_equally_fast_the_cheaper_is_on_the_front():
    assert pareto(np.array([2, 0, 1]), np.array([5.0, 4.0, 5.0])).tolist() == [2, 1]


def test_the_price_follows_device_time_whatever_a_launch_gate_lets_through():
    """Under the gate a device-bound network is as fast at quota 10 % as at 100 %."""
    objective = Objective(slo_ms=60, rps=30)
    fair = recommend(DEVICE_BOUND, objective)
    gated = recommend(DEVICE_BOUND, objective, quota_kind=QuotaKind.LAUNCH_GATE)
    assert fair.quota_kind == QuotaKind.GPU_TIME
    # 30 requests/s x 20 ms of a whole GPU is 0.6 GPUs of device time; no honest price lies below at batch 1.
    single = recommend(DEVICE_BOUND, objective, ResourceGrid(batch=[1]))
    assert single.best.gpu_share >= 0.6
    assert gated.best.gpu_share < 0.3 * fair.best.gpu_share


def test_an_objective_out_of_reach_names_the_nearest_which_then_works():
    objective = Objective(slo_ms=10, rps=100)
    with pytest.raises(InfeasibleError, match=r"SM 100 %, quota 100 %, batch 1 on 3 instances") as caught:
        recommend(DEVICE_BOUND, objective)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.nearest.request_ms == pytest.approx(20)
    reachable = float(message.rsplit("meets ", 1)[1].removesuffix(" ms"))
    assert recommend(DEVICE_BOUND, Objective(reachable, 100)).best.config == ResourceConfig(100, 100, 1)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.nearest) == (message, caught.value.nearest)


def test_batching_that_misses_the_objective_is_not_recommended():
    """At 1 request/s eight requests take seven seconds to come together, however cheap the batch is."""
    found = recommend(DEVICE_BOUND, Objective(slo_ms=2000, rps=1), top=10_000)
    assert {choice.config.batch for choice in found.choices} == {1, 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"slo_ms": 0, "rps": 1}, "slo_ms is 0"),
        ({"slo_ms": float("nan"), "rps": 1}, "slo_ms is nan"),
        ({"slo_ms": 1, "rps": -2}, "rps is -2"),
        ({"slo_ms": 1, "rps": float("inf")}, "rps is inf"),
        ({"slo_ms": 1, "rps": 1, "utilisation": 0}, "utilisation is 0"),
        ({"slo_ms": 1, "rps": 1, "utilisation": 1.1}, "utilisation is 1.1"),
        ({"slo_ms": 1, "rps": 1, "risk": "tail"}, "risk is 'tail'"),
    ],
)
def test_an_objective_out_of_range_is_a_typed_error(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Objective(**arguments)


def test_top_is_checked():
    with pytest.raises(ConfigError, match="top is 0"):
        recommend(DEVICE_BOUND, Objective(60, 10), top=0)


def test_the_whole_grid_is_priced_in_a_few_milliseconds():
    grid = DEVICE_BOUND.latency_grid(ResourceGrid(), quota_kind=QuotaKind.GPU_TIME)

    class Answered:
        name = "net"

        def latency_grid(self, *_, **__):
            return grid

    def once() -> float:
        start = time.perf_counter()
        recommend(Answered(), Objective(100, 50))
        return time.perf_counter() - start

    assert min(once() for _ in range(20)) < 0.010
