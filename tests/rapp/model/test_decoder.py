"""The decoder against the same thing written in numpy, and against the laws that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rapp.inference.law import log_latency, soft_maximum
from rapp.inference.posterior import Curves
from rapp.inference.tables import Tables
from rapp.knots import Knots
from rapp.model.decoder import Decoder

KNOTS = Knots.around([1, 4, 8], [10, 40, 70, 100], [20, 60, 100])
NAMES = ("mean_ms", "low_ms", "high_ms", "device_ms", "host_ms")


def tables_of(seed: int, knots: Knots = KNOTS, noise: float = 0.2) -> Tables:
    """Rough curves: device time falls with the partition and rises with the batch, neither smoothly."""
    rng = np.random.default_rng(seed)
    log_b, log_s = np.log(knots.batch), np.log(knots.sm_pct / 100)
    device = 0.8 * log_b[:, None] - 0.7 * log_s[None] + rng.normal(0, 0.3, size=knots.shape[:2]) + 1
    quota = -rng.uniform(0, 1.2) * np.log(knots.quota_pct / 100)
    host = rng.uniform(0, 3) + quota + rng.normal(0, noise, size=knots.shape)
    return Tables.of(Curves(device, host, rng.uniform(0.02, 0.4, size=knots.shape)))


def decode(
    tables: Tables,
    configs: np.ndarray,
    gpu_time: np.ndarray | bool,
    credit: float = 0.0,
    factor: float = 1.6,
    knots: Knots = KNOTS,
) -> dict[str, np.ndarray]:
    """Answers at configs (N, 3): batch, SM partition, quota."""
    curves = (tables.log_latency, tables.log_device, tables.log_host, tables.deviation)
    limits = np.broadcast_to(np.asarray(gpu_time, np.float32), len(configs)).copy()
    columns = [torch.from_numpy(configs[:, i].astype(np.float32)) for i in range(3)]
    with torch.no_grad():
        answers = Decoder(knots)(
            *map(torch.from_numpy, curves), *columns, torch.from_numpy(limits), torch.tensor(credit),
            torch.tensor(factor),
        )  # fmt: skip
    return {name: answer.double().numpy() for name, answer in zip(NAMES, answers, strict=True)}


def interpolated(table: np.ndarray, *places: tuple[np.ndarray, float]) -> float:
    """One value of a table, linear in the logarithm along each axis in turn; constant beyond the ends."""
    value = table.astype(np.float64)
    for axis, place in reversed(places):
        at, knots = np.log(place), np.log(axis)
        value = np.apply_along_axis(lambda row, at=at, knots=knots: np.interp(at, knots, row), -1, value)
    return float(value)


def random_configs(count: int, seed: int) -> np.ndarray:
    """Inside the knots, the batches not only whole."""
    rng = np.random.default_rng(seed)
    low = np.array([1, 1, 20])
    return np.exp(rng.uniform(np.log(low), np.log([128, 100, 100]), size=(count, 3)))


@pytest.mark.parametrize("gpu_time", [False, True])
def test_between_knots_logarithms_are_interpolated(gpu_time: bool) -> None:
    tables, configs, credit, factor = tables_of(0), random_configs(60, 1), 3.0, 1.7
    found = decode(tables, configs, gpu_time, credit, factor)
    for i, (batch, sm, quota) in enumerate(configs):
        two = (KNOTS.batch, batch), (KNOTS.sm_pct, sm)
        three = (*two, (KNOTS.quota_pct, 100.0 if gpu_time else quota))
        device, host = (interpolated(table, *two) for table in (tables.log_device, tables.log_host))
        mean = interpolated(tables.log_latency, *three)
        if gpu_time:
            arrays = (np.array([value]) for value in (device, host, quota / 100))
            mean = float(log_latency(*arrays, np.array([True]), credit)[0][0])
        half = factor * interpolated(tables.deviation, *three)
        wanted = np.exp([mean, mean - half, mean + half, device, host])
        np.testing.assert_allclose([found[name][i] for name in NAMES], wanted, rtol=1e-6)


def test_knots_are_exact() -> None:
    tables = tables_of(3)
    index = np.stack([axis.ravel() for axis in np.indices(KNOTS.shape)])
    b, s, q = index
    configs = np.stack([KNOTS.batch[b], KNOTS.sm_pct[s], KNOTS.quota_pct[q]], axis=1)
    found = decode(tables, configs, False)
    np.testing.assert_allclose(np.log(found["mean_ms"]), tables.log_latency[b, s, q], atol=1e-5)
    np.testing.assert_allclose(np.log(found["device_ms"]), tables.log_device[b, s], atol=1e-5)
    np.testing.assert_allclose(np.log(found["host_ms"]), tables.log_host[b, s], atol=1e-5)
    half = np.log(found["high_ms"] / found["mean_ms"])
    np.testing.assert_allclose(half, 1.6 * tables.deviation[b, s, q], atol=1e-5)


def test_beyond_the_knots_the_law_goes_on() -> None:
    tables = tables_of(4)
    last = decode(tables, np.array([[128.0, 1, 20]]), False)
    beyond = decode(tables, np.array([[256.0, 1, 20], [128, 0.25, 20], [128, 1, 5], [512, 0.5, 20]]), False)
    # Device time goes with batch / SM; the quota does not touch it.
    np.testing.assert_allclose(beyond["device_ms"] / last["device_ms"], [2, 4, 1, 8], rtol=1e-4)
    # A gate's latency goes with 1 / quota.
    assert beyond["mean_ms"][2] / last["mean_ms"][0] == pytest.approx(4, rel=1e-4)
    # No latency is below its device time, which alone is known there.
    floor = np.maximum(last["mean_ms"], beyond["device_ms"])[[0, 1, 3]]
    np.testing.assert_allclose(beyond["mean_ms"][[0, 1, 3]], floor, rtol=1e-4)
    assert (floor > last["mean_ms"]).all(), "the tables do not tell the law from a clamp"


def test_a_quota_of_device_time_is_the_token_bucket_of_rapp_inference() -> None:
    rng, tables = np.random.default_rng(0), tables_of(5)
    configs = random_configs(200, 2)
    configs[:, 2] = rng.uniform(1, 100, size=200)  # below the trained quotas too: the law needs no knots
    for credit in (0.0, 2.0, 50.0):
        found = decode(tables, configs, True, credit)
        device, host = np.log(found["device_ms"]), np.log(found["host_ms"])
        wanted, _, _ = log_latency(device, host, configs[:, 2] / 100, np.ones(200, bool), credit)
        np.testing.assert_allclose(found["mean_ms"], np.exp(wanted), rtol=1e-6)
        # In the limit: the slower of D and H, or the debt D / q less what was saved.
        pace = np.maximum(found["device_ms"], found["host_ms"])
        hard = np.maximum(pace, found["device_ms"] * 100 / configs[:, 2] - credit)
        assert (found["mean_ms"] >= hard * (1 - 1e-5)).all()
        assert (found["mean_ms"] <= hard * np.exp(np.log(2) / 12) * (1 + 1e-5)).all()


def test_a_quota_of_all_is_none_for_either_kind() -> None:
    tables, configs = tables_of(6, noise=0.0), random_configs(50, 3)
    index = KNOTS.nearest(*configs.T)
    configs = np.stack([KNOTS.batch[index[0]], KNOTS.sm_pct[index[1]], np.full(50, 100.0)], axis=1)
    pace = soft_maximum(tables.log_device, tables.log_host)[index[0], index[1]]
    for kind in (False, True):
        # Without a credit: D that is paid as it is spent leaves no debt.
        found = decode(tables, configs, kind, credit=0.0)
        np.testing.assert_allclose(np.log(found["mean_ms"]), pace, atol=1e-6)


def test_kinds_may_be_mixed_in_one_question() -> None:
    tables, configs = tables_of(7), random_configs(40, 4)
    kinds = np.arange(40) % 2 == 1
    mixed = decode(tables, configs, kinds)
    for kind in (False, True):
        alone = decode(tables, configs, kind)
        for name in NAMES:
            np.testing.assert_array_equal(mixed[name][kinds == kind], alone[name][kinds == kind])


@given(
    seed=st.integers(0, 10_000),
    batch=st.floats(1, 300),
    sm=st.floats(0.5, 100),
    quotas=st.lists(st.floats(1, 100), min_size=2, max_size=8, unique=True),
    credit=st.sampled_from((0.0, 1.0, 30.0)),
)
@settings(max_examples=60, deadline=None)
def test_more_quota_is_never_slower_and_the_interval_holds_the_mean(
    seed: int, batch: float, sm: float, quotas: list[float], credit: float
) -> None:
    configs = np.array([(batch, sm, quota) for quota in sorted(quotas)])
    for gpu_time in (False, True):
        found = decode(tables_of(seed), configs, gpu_time, credit)
        assert (np.diff(found["mean_ms"]) <= 0).all(), gpu_time  # not even by a last bit
        assert (found["low_ms"] < found["mean_ms"]).all()
        assert (found["mean_ms"] < found["high_ms"]).all()
        if gpu_time:
            assert (found["mean_ms"] >= found["device_ms"] * (1 - 1e-5)).all()


def test_profiles_without_a_quota_have_one_knot() -> None:
    knots = Knots.around([1, 4], [10, 100], [100])
    assert knots.shape[2] == 1
    tables = tables_of(0, knots)
    found = decode(tables, np.array([[4.0, 10, 100], [4, 10, 50]]), False, knots=knots)
    at = np.flatnonzero(knots.batch == 4)[0], np.flatnonzero(knots.sm_pct == 10)[0]
    assert np.log(found["mean_ms"][0]) == pytest.approx(tables.log_latency[at][0], abs=1e-5)
    assert found["mean_ms"][1] == pytest.approx(2 * found["mean_ms"][0], rel=1e-4)
