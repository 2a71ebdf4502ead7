"""Predicted capacity against that of the replay's event loop: how far `scaler.capacity.rate` is off, and where.

    python scripts/check_capacity.py [--cases 60] [--requests 100000] [--seed 0] [--quantile 0.99]

Each case is drawn anew: device time D and host time H as the networks of the public V100 profiles have them
at SM partitions of 10 to 100 %, growth of D with the batch, quota, batch, number of instances, and an
objective from what just works up to several times that. The simulated capacity is the Poisson rate at which
the quantile of the latency equals the objective: a search to 1 % under the same draws for every rate. Runs
vary by 2.9 % and instances by 5.8 %; the instances are drawn anew every 2,000 requests. Each has a row and a
GPU of its own, so that nothing but quota and queue delays it.

The ratio predicted / simulated should lie in 0.85 to 1.05: below, instances are set aside for nothing; above,
the objective is missed.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

import numpy as np

from rapp.cli.tables import console, table
from rapp.inference.law import soft_maximum
from rapp.types import FloatArray
from scaler.capacity.rate import WINDOW_MS, capacity_rps
from scaler.replay import events
from scaler.replay.world import empty_world

LOW, HIGH = 0.85, 1.05
WORST = 15
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
    """A question that has an answer above 0."""
    while True:
        batch, instances = int(rng.choice([1, 2, 4, 8])), int(rng.choice([1, 1, 2, 3, 4, 6, 8, 12]))
        # Batches of 8 on a small SM partition take 8 times as long, on a large one as little as twice.
        first, growth = np.exp(rng.uniform(math.log(2), math.log(40))), rng.uniform(0.15, 1.0)
        device = first * (1 - growth + growth * np.arange(1, batch + 1))
        host = np.full(batch, first * np.exp(rng.uniform(math.log(0.1), math.log(3))))
        pace = np.exp(soft_maximum(np.log(device), np.log(host)))
        quota = rng.choice([0.1, 0.2, 0.3, 0.5, 0.7, 1.0])
        alone = max(pace[0], device[0] / quota - WINDOW_MS)
        slo_ms = alone * np.exp(rng.uniform(math.log(1.2), math.log(8)))
        question = Question(device, pace, float(quota), instances, float(slo_ms), quantile)
        if question.predicted_rps() > 0.05:
            return question


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
