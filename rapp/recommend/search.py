"""`recommend`: the cheapest configurations that meet an objective."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapp.errors import ConfigError, InfeasibleError
from rapp.latency_model import LatencyModel
from rapp.recommend.objective import Objective, Risk
from rapp.recommend.options import Choice, Options, price
from rapp.types import FloatArray, QuotaKind, ResourceGrid

FRONT_STEP = 0.01
"""A dearer point is on the front if it is faster by at least this share: less is far below the error of any
prediction, and a soft maximum would put a point on the front for each of its steps."""


class UnmetObjectiveError(InfeasibleError):
    """No configuration of the grid meets the objective.

    Args:
        message: one line that names the nearest.
        nearest: the choice whose requests take the least time.
    """

    def __init__(self, message: str, nearest: Choice) -> None:
        self.nearest = nearest
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), nearest=self.nearest), (str(self),)


@dataclass(frozen=True, slots=True, eq=False)
class Recommendation:
    """What `recommend` found.

    Args:
        network: name of the network.
        objective: what was asked.
        quota_kind: the law that the latencies and so the prices follow.
        choices: the cheapest that meet the objective, cheapest first.
        front: the Pareto front of GPU share against request latency over the whole grid, cheapest first:
            each is the cheapest that is so fast, and at least 1 % faster than the one before. All of them
            carry the load, but the objective is met only where `request_ms` says so.
        options: every configuration of the grid.
        grid: the grid.
    """

    network: str
    objective: Objective
    quota_kind: QuotaKind
    choices: tuple[Choice, ...]
    front: tuple[Choice, ...]
    options: Options
    grid: ResourceGrid

    @property
    def best(self) -> Choice:
        """The cheapest that meets the objective."""
        return self.choices[0]


def recommend(
    model: LatencyModel,
    objective: Objective,
    grid: ResourceGrid | None = None,
    *,
    top: int = 5,
    quota_kind: QuotaKind = QuotaKind.GPU_TIME,
) -> Recommendation:
    """Find the cheapest configurations that meet an objective; `price` has the formulas.

    One configuration serves the load, with as many equal instances as it needs, each one batch after another
    without a pause (`idle_ms=0`). The price is the GPU share that they set aside.

    A `gpu_time` quota limits what it prices, device time. A `launch_gate` quota does not: a network that the
    device holds up runs at full speed under 10 % of it, so that its price means nothing where it is shared.

    Args:
        model: the network's latency.
        objective: latency objective, load, risk.
        grid: what to choose from; the grid of the public V100 profiles without it.
        top: how many choices to give, >= 1.
        quota_kind: the law of the quota.

    Raises:
        UnmetObjectiveError: none meets the objective; names and carries the nearest.
        ConfigError: `top` below 1.
    """
    if top < 1:
        raise ConfigError(f"top is {top}: it must be 1 or more")
    grid = ResourceGrid() if grid is None else grid
    options = price(model.latency_grid(grid, quota_kind=quota_kind, idle_ms=0.0), objective)
    order = options.cheapest_first()
    meeting = order[options.meets[order]]
    if not len(meeting):
        nearest = options.choice(int(np.argmin(options.request_ms)))
        raise UnmetObjectiveError(_unmet(model.name, objective, len(options), nearest), nearest)
    return Recommendation(
        network=model.name,
        objective=objective,
        quota_kind=quota_kind,
        choices=tuple(options.choice(int(index)) for index in meeting[:top]),
        front=tuple(options.choice(int(index)) for index in pareto(order, options.request_ms)),
        options=options,
        grid=grid,
    )


def pareto(order: NDArray[np.int64], request_ms: FloatArray, step: float = FRONT_STEP) -> NDArray[np.int64]:
    """The indices that are faster, by the share `step`, than each before them in `order`, from cheap to dear.

    Shapes: order (N,), request_ms (N,), answer (F,) with F <= N.
    """
    ordered = request_ms[order]
    fastest_before = np.minimum.accumulate(np.concatenate(([np.inf], ordered[:-1])))
    kept: list[int] = []
    for place in np.flatnonzero(ordered < fastest_before):
        if not kept or ordered[place] < (1 - step) * ordered[kept[-1]]:
            kept.append(int(place))
    return order[kept]


def _unmet(network: str, objective: Objective, count: int, nearest: Choice) -> str:
    bound = "the upper end of the interval" if objective.risk == Risk.UPPER else "the mean"
    config = nearest.config
    copies = "1 instance" if nearest.instances == 1 else f"{nearest.instances} instances"
    # Rounded up, so that the figure works when it is given as the objective.
    reachable = math.ceil(nearest.request_ms * 100) / 100
    return (
        f"{network}: none of {count:,} configurations serves {objective.rps:g} requests/s within"
        f" {objective.slo_ms:g} ms ({bound} of the latency, batching included); the nearest is"
        f" SM {config.sm_pct:g} %, quota {config.quota_pct:g} %, batch {config.batch} on {copies},"
        f" which meets {reachable:g} ms"
    )
