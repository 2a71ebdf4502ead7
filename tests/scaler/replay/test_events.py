"""The event loop against queueing theory, and against what it must never do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.replay import events
from scaler.replay.compiling import COMPILED
from scaler.replay.world import LOST, REFUSED, SERVED, WAITING, World, empty_world

SERVICE_S = 0.02
REQUESTS = 400_000 if COMPILED else 20_000


def world(arrival: np.ndarray, servers: int, *, noise: np.ndarray | None = None, **changes: object) -> World:
    """One function, `servers` instances of batch 1 on rows of their own, each ready at 0."""
    arguments: dict = {
        "queue_limit": np.array([10**6]),
        "most_delay_s": np.array([0.0]),
        "objective_s": np.array([1.0]),
        "row_gpu": np.arange(servers),
        "gpus": servers,
        "instances": servers,
        "most_batch": 4,
        "noise": np.ones(1) if noise is None else noise,
        "beside": 1.0,
    } | changes
    w = empty_world(arrival, np.zeros(len(arrival), dtype=np.int64), **arguments)
    for i in range(servers):
        w.row[i] = i % len(w.row_gpu)
        w.device[i, 1:] = SERVICE_S / 2
        w.pace[i, 1:] = SERVICE_S
        w.window[i] = 0.04
        events.start(w, i, 0.0)
    return w


def mean_wait(load: float, servers: int, noise: np.ndarray | None = None) -> tuple[float, float]:
    """Mean wait in units of the service, and half the width of its 99 % interval by batch means."""
    rng = np.random.default_rng(3)
    arrival = np.cumsum(rng.exponential(SERVICE_S / load / servers, REQUESTS))
    w = world(arrival, servers, noise=noise)
    events.run_until(w, float(arrival[-1]) + 100)
    assert w.served[0] == REQUESTS
    service = 1.0 if noise is None else float(np.mean(noise))
    waits = w.latency / SERVICE_S - service
    means = waits[: REQUESTS // 20 * 20].reshape(20, -1).mean(axis=1)
    return float(means.mean()), 2.86 * float(means.std(ddof=1)) / np.sqrt(20)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_one_server_with_constant_service_waits_as_pollaczek_and_khinchine_say(load: float) -> None:
    wait, within = mean_wait(load, 1)
    assert abs(wait - load / (2 * (1 - load))) < within


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_one_server_with_exponential_service_waits_as_erlang_says(load: float) -> None:
    noise = np.random.default_rng(5).exponential(1.0, REQUESTS)
    wait, within = mean_wait(load, 1, noise)
    assert abs(wait - load / (1 - load)) < within + 0.02 * load / (1 - load)


@pytest.mark.parametrize(("load", "theory"), [(0.5, 0.0498), (0.8, 0.3866)])
def test_four_servers_with_constant_service_wait_as_crommelin_says(load: float, theory: float) -> None:
    # Crommelin 1932; the figures are the stationary distribution of N' = max(N - 4, 0) + Poisson(4 load),
    # with the mean wait from the mean queue by Little's law, solved in `_crommelin` below.
    assert abs(_crommelin(load, 4) - theory) < 1e-3
    wait, within = mean_wait(load, 4)
    assert abs(wait - theory) < within + 1e-3


def _crommelin(load: float, servers: int, most: int = 400) -> float:
    """Mean wait of M/D/c in units of the service."""
    rate = load * servers
    poisson = np.exp(-rate + np.cumsum(np.log(np.r_[1.0, rate / np.arange(1, most)])))
    step = np.zeros((most, most))
    for n in range(most):
        left = max(n - servers, 0)
        step[n, left:] = poisson[: most - left]
    step /= step.sum(axis=1, keepdims=True)
    system = np.vstack([step.T - np.eye(most), np.ones(most)])
    stationary = np.linalg.lstsq(system, np.r_[np.zeros(most), 1.0], rcond=None)[0]
    return float(np.maximum(np.arange(most) - servers, 0) @ stationary / rate)


def test_a_quota_makes_a_saturated_loop_as_slow_as_its_law() -> None:
    w = world(np.zeros(200), 1)
    w.quota[0] = 0.25
    w.tokens[0] = 0.0
    events.run_until(w, 100.0)
    # Saturated: L = D / q. The queue is served one after another.
    assert np.allclose(np.diff(np.sort(w.latency)), SERVICE_S / 2 / 0.25)


def test_an_idle_instance_has_saved_a_window() -> None:
    w = world(np.arange(1, 50) * 1.0, 1)
    w.quota[0], w.device[0, 1] = 0.1, 0.01
    events.run_until(w, 100.0)
    # Isolated with a full bucket: L = max(T, D / q - W).
    assert np.allclose(w.latency, 0.01 / 0.1 - 0.04)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    rate=st.floats(1, 400),
    quotas=st.lists(st.floats(0.02, 1.0), min_size=1, max_size=5),
    rows=st.integers(1, 3),
    limit=st.integers(0, 30),
    delay=st.sampled_from((0.0, 0.01)),
)
def test_every_request_is_accounted_for_and_no_row_does_more_than_its_time(
    seed: int, rate: float, quotas: list[float], rows: int, limit: int, delay: float
) -> None:
    rng = np.random.default_rng(seed)
    arrival = np.cumsum(rng.exponential(1 / rate, 300))
    noise = np.exp(rng.normal(0, 0.1, 64))
    w = world(
        arrival, len(quotas), noise=noise, row_gpu=np.zeros(rows, dtype=np.int64), gpus=1, beside=1.1,
        queue_limit=np.array([limit]), most_delay_s=np.array([delay]),
    )  # fmt: skip
    w.quota[:] = quotas
    w.batch[:] = rng.integers(1, 5, len(quotas))
    w.tokens[:] = 0.0
    died = False
    for moment in np.linspace(0, arrival[-1] + 1, 7)[1:]:
        events.run_until(w, float(moment))
        carried = int(w.carried_count.sum())
        assert w.arrived[0] == w.served[0] + w.queue_length[0] + carried + w.refused[0] + w.lost[0]
        assert np.all(w.row_busy <= w.now[0] + 1e-9)
        for row in range(rows):
            # What is on the device now is charged when it ends.
            mine = w.row == row
            assert w.device_used[mine].sum() <= w.row_busy[row] + 1e-9
        # What a bucket lets through: its share of the time, and one batch of debt.
        assert np.all(w.device_used <= w.quota * w.now[0] + w.work + 1e-9)
        if not died and len(quotas) > 1:
            events.stop(w, 0)
            died = True
    kinds = np.bincount(w.outcome, minlength=4)
    assert kinds[WAITING] == w.queue_length[0] + w.carried_count.sum() + (len(arrival) - w.arrived[0])
    assert (kinds[SERVED], kinds[REFUSED], kinds[LOST]) == (w.served[0], w.refused[0], w.lost[0])
    assert np.isfinite(w.latency).sum() == kinds[SERVED]


def test_the_same_seed_gives_the_same_answer() -> None:
    arrival = np.cumsum(np.random.default_rng(1).exponential(0.005, 2_000))
    first, second = (world(arrival, 3, noise=np.linspace(0.9, 1.1, 17)) for _ in range(2))
    for w in (first, second):
        events.run_until(w, 60.0)
    assert np.array_equal(first.latency, second.latency)
