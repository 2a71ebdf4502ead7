"""What a campaign measures, and in which order.

Networks come in the order given. Each is swept in sessions: one for each SM partition, the partitions in an
order drawn by the seed, so that a slow drift of the device does not look like an effect of the partition.
Inside a session batches ascend, so that a larger batch can be left out once a smaller one did not fit, and
quotas descend, so that lower ones can be left out once one timed out. An anchor, always the same
configuration in a session of its own, stands at the start, in the middle and at the end of the sweep of a
network: how far it moved is the drift.

Nothing here touches a device, a clock or a file: the same arguments give the same plan.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from profiler.device import NetworkFile
from rapp.errors import ConfigError
from rapp.types import ResourceConfig, ResourceGrid

FULL_PCT = 100.0
"""SM partition and quota of anchors, and the quota that others are derived from: nothing limits the run."""

WhyNot = Callable[[NetworkFile, ResourceConfig], str | None]
"""Why a configuration of a network cannot be measured; None if it can be tried."""


class QuotaMode(StrEnum):
    """`measure`: every quota. `derive`: quota 100 %, and the rest is computed from it (`profiler.derive`)."""

    MEASURE = "measure"
    DERIVE = "derive"


@dataclass(frozen=True, slots=True)
class Point:
    """One planned point; what identifies it in a campaign.

    Args:
        network: its name.
        config: where.
        anchor: 0 at the start of the network's sweep, 1 in its middle, 2 at its end; None: of the grid.
    """

    network: str
    config: ResourceConfig
    anchor: int | None = None

    def __str__(self) -> str:
        told = f"{self.network}, SM {self.config.sm_pct:g} %, quota {self.config.quota_pct:g} %"
        return f"{told}, batch {self.config.batch}" + ("" if self.anchor is None else ", anchor")


@dataclass(frozen=True, slots=True)
class WorkUnit:
    """Points of one network at one SM partition, to be measured in this order in one session.

    It can be sent to another process.
    """

    network: NetworkFile
    sm_pct: float
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """The sweep of one network.

    Args:
        network: which.
        units: what to measure, in order.
        derived: what is computed from the points at quota 100 % instead.
        skipped: points that are not tried, and why.
    """

    network: NetworkFile
    units: tuple[WorkUnit, ...]
    derived: tuple[Point, ...]
    skipped: Mapping[Point, str]

    @property
    def measured(self) -> Iterator[Point]:
        """The points to measure, in order, anchors among them."""
        return (point for unit in self.units for point in unit.points)

    @property
    def candidates(self) -> tuple[ResourceConfig, ...]:
        """The configurations to measure, anchors not among them."""
        return tuple(point.config for point in self.measured if point.anchor is None)

    @property
    def anchors(self) -> tuple[WorkUnit, ...]:
        """The units of its anchors, in order."""
        return tuple(unit for unit in self.units if unit.points[0].anchor is not None)

    @property
    def batches(self) -> tuple[int, ...]:
        """The batches to measure, ascending."""
        return tuple(sorted({point.config.batch for point in self.measured}))


def plan_network(
    network: NetworkFile,
    grid: ResourceGrid,
    *,
    mode: QuotaMode = QuotaMode.MEASURE,
    seed: int = 0,
    anchors: bool = True,
    why_not: WhyNot = lambda network, config: None,
) -> NetworkPlan:
    """The sweep of one network over a grid.

    Args:
        grid: every configuration of it is a point of the plan. In mode `derive`, quota 100 % is added.
        seed: of the order of partitions.
        why_not: decides what is skipped from the start.
    """
    derive = mode == QuotaMode.DERIVE
    quotas = sorted({*grid.quota_pct, *((FULL_PCT,) if derive else ())}, reverse=True)
    configs = [
        ResourceConfig(sm_pct, quota_pct, batch)
        for sm_pct in shuffled(set(grid.sm_pct), seed, network.name)
        for batch in sorted(set(grid.batch))
        for quota_pct in quotas
    ]
    reasons = {config: why_not(network, config) for config in configs}
    tried = [config for config in configs if reasons[config] is None]
    verified = _where_to_verify(tried) if derive else frozenset()
    measured = [c for c in tried if not derive or c.quota_pct == FULL_PCT or c in verified]
    units = [
        WorkUnit(network, sm_pct, tuple(Point(network.name, config) for config in own))
        for sm_pct, own in itertools.groupby(measured, key=lambda config: config.sm_pct)
    ]
    if anchors and units:
        units = _anchored(units, network, sorted(set(grid.batch)), why_not)
    left = set(tried).difference(measured)
    return NetworkPlan(
        network=network,
        units=tuple(units),
        derived=tuple(Point(network.name, config) for config in tried if config in left),
        skipped={Point(network.name, c): reason for c, reason in reasons.items() if reason is not None},
    )


def shuffled(values: set[float], seed: int, *labels: str) -> list[float]:
    """The values in an order that hangs on seed and labels alone, on any machine and in any version."""

    def rank(value: float) -> bytes:
        return hashlib.sha256(":".join((str(seed), *labels, repr(float(value)))).encode()).digest()

    return sorted(values, key=rank)


def _anchored(
    units: Sequence[WorkUnit], network: NetworkFile, batches: Sequence[int], why_not: WhyNot
) -> list[WorkUnit]:
    """With anchors before, between and after; a single unit has no middle."""
    possible = (ResourceConfig(FULL_PCT, FULL_PCT, batch) for batch in batches)
    config = next((one for one in possible if why_not(network, one) is None), None)
    if config is None:
        return list(units)

    def anchor(place: int) -> WorkUnit:
        return WorkUnit(network, FULL_PCT, (Point(network.name, config, place),))

    middle = (len(units) + 1) // 2
    between = [anchor(1)] if len(units) > 1 else []
    return [anchor(0), *units[:middle], *between, *units[middle:], anchor(2)]


def _where_to_verify(tried: Sequence[ResourceConfig]) -> frozenset[ResourceConfig]:
    """Which of the quotas under 100 % are measured after all, to see whether the computed ones hold.

    Up to three, spread over the axis, at two ends of the grid: the smallest partition with its largest
    batch, where the device sets the pace, and the largest partition with its smallest, where the host may.
    """
    limited = [config for config in tried if config.quota_pct < FULL_PCT]
    if not limited:
        return frozenset()
    smallest = min(limited, key=lambda config: (config.sm_pct, -config.batch))
    largest = max(limited, key=lambda config: (config.sm_pct, -config.batch))
    quotas = sorted({config.quota_pct for config in limited})
    count = min(3, len(quotas))
    return frozenset(
        ResourceConfig(end.sm_pct, quotas[(2 * index + 1) * len(quotas) // (2 * count)], end.batch)
        for end in (smallest, largest)
        for index in range(count)
    )


def check_names(networks: Sequence[NetworkFile]) -> None:
    """Raise ConfigError unless there are networks and each has a name of its own."""
    if not networks:
        raise ConfigError("no network to profile")
    seen: dict[str, NetworkFile] = {}
    for network in networks:
        if network.name in seen:
            raise ConfigError(
                f"two networks are called {network.name} ({seen[network.name].path or 'by name'} and"
                f" {network.path or 'by name'}): rename one file, since the name tells their rows apart"
            )
        seen[network.name] = network
