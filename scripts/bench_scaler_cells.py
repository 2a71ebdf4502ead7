"""What scripts/bench_scaler.py replays: functions, load, arrivals, and how often.

    single functions   six networks, each alone on 4 GPUs
    all                the six together on 4 GPUs, each with the same load
    standard, stress   the two workloads of HAS-GPU's artifact, times 1, 5 and 20
    azure              an hour of the Azure LLM code trace, counted per second
    servegen           the first day of ServeGen's m-small, whose windows of 600 s last 60 s here: a day in
                       8,640 s, ten times as fast as in reality and so harder to follow

The two traces are scaled so that their peak minute would keep 60 % of four whole GPUs busy, each executing
the batches with the largest rate within the objective.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from bench_scaler_times import NETWORKS, read_times

from scaler.arrivals import ArrivalProcess, RateSteps
from scaler.replay.chaos import Chaos
from scaler.sources.service_times import ServiceTimes
from scaler.trace import Trace

GPUS = 4
MULTIPLIER = 2.0
"""Objective as a multiple of the base latency, at p99."""

PEAK_SHARE = 0.6
POLICIES = ("hybrid", "has-gpu", "fast-gshare", "fast-gshare-best", "whole-gpu", "static", "oracle")
"""In this order: the oracle is allowed the violations that `hybrid` had."""

BASELINES = ("has-gpu", "fast-gshare", "fast-gshare-best", "whole-gpu", "static")

FIRST_SEEDS = ((15_000, 3), (60_000, 2), (math.inf, 1))
"""Seeds of the first part of a cell with at most so many requests a seed; the second part has the rest. Even
arrivals are the same with each seed, which is of the noise alone: one comes first."""

LEAST_SEEDS = 3
"""Of both parts together."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One load.

    Args:
        functions: networks served. trace: name of the load. scale: of it; 0: by its peak minute.
        arrivals: even or Poisson. repeat: how often one after another.
        plan: execution times that policies plan with. policies: replayed on it.
        kind: the table that it belongs to. chaos: what goes wrong, with its name.
    """

    functions: tuple[str, ...]
    trace: str
    scale: float
    arrivals: ArrivalProcess
    plan: str = "k11"
    policies: tuple[str, ...] = POLICIES
    kind: str = "main"
    repeat: int = 1
    chaos: tuple[str, Chaos] = field(default=("", Chaos()))

    @property
    def load(self) -> str:
        """The load's name: `standard-x5`."""
        return f"{self.trace}-x{self.scale:g}" if self.scale else self.trace

    @property
    def served(self) -> str:
        """The function, or `all`."""
        return self.functions[0] if len(self.functions) == 1 else "all"

    @property
    def key(self) -> str:
        """Folder of its results."""
        parts = [self.kind, self.served, self.load, self.arrivals.value, self.chaos[0]]
        return "_".join(part for part in parts if part)

    def source(self, policy: str) -> str:
        """Execution times that a policy plans with: the oracle knows the true ones."""
        return "truth" if policy == "oracle" else self.plan


def cells() -> list[Cell]:
    """All cells, the most telling first."""
    poisson, even = ArrivalProcess.POISSON, ArrivalProcess.EVEN
    alone, together = [(network,) for network in NETWORKS], [NETWORKS]
    ordered = [
        *_workloads(alone, poisson, (1, 5)),
        *_workloads(alone, even, (1,)),
        *_disturbed(alone[:1]),
        *_traces(("azure",), alone[:1], poisson),
        *_workloads(together, poisson, (1, 5)),
        *_workloads(alone, poisson, (20,)),
        *_priced(alone, "standard"),
        *_workloads(alone, even, (5, 20)),
        *_traces(("servegen",), alone[:1], poisson),
        *_traces(("azure",), together, poisson),
        *_priced(alone, "stress"),
        *_workloads(together, poisson, (20,)),
        *_workloads(together, even, (1, 5, 20)),
        *_priced(together, "standard"),
        *_priced(together, "stress"),
        *(
            cell
            for arrivals in (poisson, even)
            for cell in _traces(("azure", "servegen"), [*alone, *together], arrivals)
        ),
        *_disturbed(together),
    ]
    return list({cell.key: cell for cell in ordered}.values())


Served = Sequence[tuple[str, ...]]


def _workloads(served: Served, arrivals: ArrivalProcess, scales: Sequence[int]) -> list[Cell]:
    return [
        Cell(functions, trace, scale, arrivals)
        for scale in scales
        for trace in ("standard", "stress")
        for functions in served
    ]


def _traces(traces: Sequence[str], served: Served, arrivals: ArrivalProcess) -> list[Cell]:
    return [Cell(functions, trace, 0, arrivals) for trace in traces for functions in served]


def _priced(served: Served, trace: str) -> list[Cell]:
    return [
        Cell(functions, trace, 5, ArrivalProcess.POISSON, plan, ("hybrid", "static"), f"price-{plan}")
        for functions in served
        for plan in ("k0", "k3", "truth")
    ]


def _disturbed(served: Served) -> list[Cell]:
    return [
        Cell(
            functions, "stress" if len(functions) == 1 else "standard", 5, ArrivalProcess.POISSON,
            policies=("hybrid", "has-gpu", "static") if len(functions) == 1 else ("hybrid",),
            kind="chaos", repeat=4, chaos=(name, chaos),
        )
        for functions in served
        for name, chaos in disturbances().items()
    ]  # fmt: skip


def disturbances() -> dict[str, Chaos]:
    """What goes wrong in a run of 1,000 s."""
    return {
        "quiet": Chaos(),
        "crash-every-30-s": Chaos(crash_every_s=30.0),
        "gpu-lost": Chaos(lost_gpus=((500.0, "gpu-0"),)),
        "blind-20-s": Chaos(blind=((500.0, 520.0),)),
        "model-0.7": Chaos(model_factor=0.7),
        "model-1.5": Chaos(model_factor=1.5),
    }


def trace_of(cell: Cell, times: Path, workloads: Path, traces: Path) -> Trace:
    """The load of a cell, scaled and repeated."""
    if cell.trace in ("standard", "stress"):
        trace = Trace.read(f"{workloads}#{cell.trace}").scaled(cell.scale)
    elif cell.trace == "azure":
        trace = scaled_to_peak(Trace.read(traces / "azure_llm2023_code_1s.csv"), cell, times)
    else:
        day = Trace.read(traces / "servegen_m_small_600s.csv").window(0, 86_400)
        steps = day.load[None]
        assert isinstance(steps, RateSteps)
        fast = Trace.of({None: RateSteps(steps.edges_s / 10, steps.rps)}, "servegen")
        trace = scaled_to_peak(fast, cell, times)
    return trace.repeated(cell.repeat) if cell.repeat > 1 else trace


def scaled_to_peak(trace: Trace, cell: Cell, times: Path) -> Trace:
    """The trace whose peak minute is `PEAK_SHARE` of the GPUs; each function has the whole of it."""
    rates = trace.rates(["any"])["any"]
    sums = np.cumsum(np.insert(rates, 0, 0.0))
    peak_rps = float(np.max(sums[60:] - sums[:-60]) / 60)
    whole_s = sum(whole_gpu_s(read_times(times, "truth", network)) for network in cell.functions)
    return trace.scaled(PEAK_SHARE * GPUS / (peak_rps * whole_s))


def whole_gpu_s(times: ServiceTimes) -> float:
    """Seconds of a whole GPU for a request, in the batch with the largest rate within the objective."""
    batch = np.arange(1, int(times.batch[-1]) + 1)
    execution_ms = times.execution_ms(100.0, batch)
    meets = execution_ms <= MULTIPLIER * times.base_ms()
    return float((execution_ms / batch)[meets].min() / 1e3)


def seeds(cell: Cell, requests: float, part: int, enough: int) -> range:
    """Seeds of a part of a cell with so many requests a seed; `enough` are to come from both parts."""
    first = next(count for most, count in FIRST_SEEDS if requests <= most)
    if cell.arrivals == ArrivalProcess.EVEN:
        first = 1
    both = max(math.ceil(enough / max(requests, 1.0)), LEAST_SEEDS)
    return range(first) if part == 0 else range(first, both)
