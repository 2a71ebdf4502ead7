"""Predicted capacity against that of the replay's event loop: how far `scaler.capacity.rate` is off.

    python scripts/check_capacity.py [--cases 60] [--requests 100000] [--seed 0] [--quantile 0.99]

Each case is drawn anew: a network, an objective of 1.5 to 5 times its base latency and a demand, for which
instances are planned as policies plan them. The simulated capacity of those is the Poisson rate at which the
quantile of the latency equals the objective: a search to 1 % under the same draws for every rate. Runs vary
by 2.9 % and instances by 5.8 %; the instances are drawn anew every 2,000 requests. Each has a GPU of its own,
so that nothing but quota and queue delays it.

The ratio predicted / simulated should lie in 0.85 to 1.05: below, instances are set aside for nothing; above,
the objective is missed.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

import numpy as np

from rapp.cli.tables import console, table
from rapp.types import FloatArray
from scaler.capacity.plans import plan_table
from scaler.capacity.rate import WINDOW_MS, capacity_rps
from scaler.replay import events
from scaler.replay.world import empty_world
from scaler.sources.service_times import ServiceTimes

LOW, HIGH = 0.85, 1.05
WORST, MOST_INSTANCES = 15, 24
RUN_NOISE, INSTANCE_NOISE, RENEWED = 0.029, 0.058, 2000


@dataclass(frozen=True, slots=True)
class Question:
    """Instances and their objective; device_ms and pace_ms (b,) for batches of 1 to b."""

    device_ms: FloatArray
    pace_ms: FloatArray
    quota: float
    instances: int
    slo_ms: float
    quantile: float

    @property
    def batch(self) -> int:
        """Largest batch."""
        return len(self.device_ms)

    def predicted_rps(self) -> float:
        """As the project predicts it."""
        args = self.device_ms, self.pace_ms, self.quota, self.instances, self.slo_ms, self.quantile
        return float(capacity_rps(*args))

    def __str__(self) -> str:
        d, t = self.device_ms, self.pace_ms
        return (
            f"D {d[0]:.3g} to {d[-1]:.3g}, T {t[0]:.3g} to {t[-1]:.3g} ms, quota {100 * self.quota:.0f} %,"
            f" batch {self.batch}, {self.instances} instances, objective {self.slo_ms:.3g} ms"
        )


def drawn(rng: np.random.Generator, quantile: float) -> Question:
    """Instances as planned for a demand on a network, half of them resized to less of it."""
    while True:
        times = network(rng, int(rng.choice([4, 8, 16])))
        slo_ms = times.base_ms() * _log_uniform(rng, 1.5, 5)
        demand_rps = _log_uniform(rng, 0.05, 8) * 1e3 / float(times.device_ms[-1, 0])
        plans = plan_table(times, slo_ms, quantile, int(times.batch[-1]))
        plan = plans.cheapest(demand_rps, scarcity=float(rng.integers(2)))
        if plan is None or plan.number > MOST_INSTANCES:
            continue
        if rng.random() < 0.5:
            plan = plans.resized(plan.number, plan.config.sm_pct, demand_rps * rng.uniform(0.3, 1))
        batch = np.arange(1, plan.config.batch + 1)
        device_ms, _ = times.device_and_host_ms(plan.config.sm_pct, batch)
        pace_ms = times.execution_ms(plan.config.sm_pct, batch)
        question = Question(device_ms, pace_ms, plan.config.quota_pct / 100, plan.number, slo_ms, quantile)
        if question.predicted_rps() > 0:
            return question


def network(rng: np.random.Generator, most_batch: int) -> ServiceTimes:
    """Times in closed form, in the ranges of the public V100 profiles.

    D grows with the batch by 15 to 95 % of its first, and by 1 / SM but for a part that gains nothing from
    more SMs, up to a half; H is a tenth to twice the least D.
    """
    sm_pct, batch = np.arange(5.0, 101.0, 5.0), np.unique(np.minimum([1.0, 2, 4, 8, 16], most_batch))
    first, growth, serial = _log_uniform(rng, 2, 25), rng.uniform(0.15, 0.95), rng.uniform(0, 0.5)
    device = np.outer(serial + (1 - serial) * 100 / sm_pct, first * (1 + growth * (batch - 1)))
    host = np.full_like(device, first * _log_uniform(rng, 0.1, 2))
    return ServiceTimes("drawn", "closed form", sm_pct, batch, device, host, np.ones_like(device))


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(math.log(low), math.log(high))))


class Simulation:
    """The event loop on the draws of one question, for any rate."""

    def __init__(self, question: Question, requests: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._question, self._marks = question, np.cumsum(rng.standard_exponential(requests))
        self._noise = np.exp(rng.normal(-(RUN_NOISE**2) / 2, RUN_NOISE, 1 << 16))
        sets = requests // RENEWED + 1
        normal = rng.normal(-(INSTANCE_NOISE**2) / 2, INSTANCE_NOISE, (sets, question.instances))
        self._factor = np.exp(normal)

    def latency_ms(self, rate_rps: float) -> float:
        """Quantile of the latency at a rate, ms."""
        q, arrival = self._question, self._marks / rate_rps
        w = empty_world(
            arrival, np.zeros(len(arrival), np.int64), queue_limit=np.array([len(arrival)]),
            most_delay_s=np.zeros(1), objective_s=np.ones(1), row_gpu=np.arange(q.instances),
            gpus=q.instances, instances=q.instances, most_batch=q.batch, noise=self._noise, beside=1.0,
        )  # fmt: skip
        for i in range(q.instances):
            w.row[i], w.batch[i], w.quota[i], w.window[i] = i, q.batch, q.quota, WINDOW_MS / 1e3
            events.start(w, i, 0.0)
        for number, factor in enumerate(self._factor):
            w.device[:, 1:] = factor[:, None] * q.device_ms / 1e3
            w.pace[:, 1:] = factor[:, None] * q.pace_ms / 1e3
            last = (number + 1) * RENEWED
            events.run_until(w, arrival[last] if last < len(arrival) else arrival[-1] + 1e6)
        return float(1e3 * np.quantile(w.latency, q.quantile))

    def capacity_rps(self, near_rps: float) -> float:
        """The rate at which the quantile equals the objective, to 1 %; the search begins at `near_rps`."""
        step, low, high = 1.15, 0.0, math.inf
        rate = near_rps
        while high / max(low, 1e-9) > 1.01:
            if self.latency_ms(rate) <= self._question.slo_ms:
                low = rate
            else:
                high = rate
            rate = low * step if math.isinf(high) else high / step if low == 0 else math.sqrt(low * high)
        return math.sqrt(low * high)


def main() -> None:
    """Ask, simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--requests", type=int, default=100_000, help="of each simulation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quantile", type=float, default=0.99)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    questions = [drawn(rng, given.quantile) for _ in range(given.cases)]
    predicted = np.array([question.predicted_rps() for question in questions])
    simulated = np.array(
        [
            Simulation(question, given.requests, seed).capacity_rps(near)
            for seed, (question, near) in enumerate(zip(questions, predicted, strict=True))
        ]
    )
    show(questions, predicted, simulated)


def show(questions: list[Question], predicted: FloatArray, simulated: FloatArray) -> None:
    """Print quantiles of the ratio and the worst cases."""
    out, ratio = console(), predicted / simulated
    out.print(f"predicted / simulated capacity of {len(ratio)} cases")
    made = table("quantile", "ratio")
    for level in (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0):
        made.add_row(f"{level:.0%}", f"{np.quantile(ratio, level):.3f}")
    out.print(made)
    within = np.mean((ratio >= LOW) & (ratio <= HIGH))
    out.print(f"{within:.0%} within {LOW:g} to {HIGH:g}; {np.mean(ratio > HIGH):.0%} above")
    order = np.argsort(-np.abs(np.log(ratio)))
    for i in order[:WORST]:
        out.print(f"{ratio[i]:.3f} of {simulated[i]:.4g} rps: {questions[i]}", soft_wrap=True)


if __name__ == "__main__":
    main()
