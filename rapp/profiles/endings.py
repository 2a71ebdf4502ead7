"""Points that ended without a latency, gathered by why."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from rapp.profiles.coverage import describe_configs
from rapp.profiles.table import ProfileTable
from rapp.types import ResourceConfig

_HEAD = re.compile(r"(?:[^:]* ended with: )?[^:]*")


@dataclass(frozen=True, slots=True)
class Ending:
    """Points of one network that ended alike.

    Args:
        network: its name.
        status: `failed` or `skipped`.
        reason: what their reasons have in common: the text up to the first colon, or up to the second
            where the first is that of `batch 2 ended with: out of memory: 96 MiB short`.
        detail: what follows it at the first of them; empty if nothing does.
        details: how many different texts follow it.
        configs: the points, without repetition, in the order of the table.
    """

    network: str
    status: str
    reason: str
    detail: str
    details: int
    configs: tuple[ResourceConfig, ...]

    def describe(self) -> str:
        """`3 points failed: out of memory (SM 5 %, quota 100 %, batch 2-4)`."""
        points = "1 point" if len(self.configs) == 1 else f"{len(self.configs)} points"
        return f"{points} {self.status}: {self.reason} ({describe_configs(self.configs)})"


def endings(rows: ProfileTable) -> list[Ending]:
    """How points ended that have no latency, by network, then failed before skipped, most points first.

    A point that failed once and was measured at another time is not among them. Anchors do not count.

    Args:
        rows: the rows of one setting.
    """
    names = ("network", "sm_pct", "quota_pct", "batch", "status", "reason")
    rows = rows.filter(anchor=False)
    known, ended = set(), []
    for network, sm, quota, batch, status, reason in zip(
        *(rows.column(name).tolist() for name in names), strict=True
    ):
        config = ResourceConfig(sm, quota, batch)
        if status == "ok":
            known.add((network, config))
        else:
            ended.append((network, config, status, *_split(reason)))
    groups: dict[tuple[str, str, str], list[tuple[ResourceConfig, str]]] = defaultdict(list)
    for network, config, status, reason, detail in ended:
        if (network, config) not in known:
            groups[network, status, reason].append((config, detail))
    found = [
        Ending(
            network=network,
            status=status,
            reason=reason,
            detail=group[0][1],
            details=len({detail for _, detail in group}),
            configs=tuple(dict.fromkeys(config for config, _ in group)),
        )
        for (network, status, reason), group in groups.items()
    ]
    return sorted(found, key=lambda one: (one.network, one.status, -len(one.configs), one.reason))


def shared(found: Iterable[Ending]) -> list[tuple[tuple[str, ...], Ending]]:
    """What ended alike at several networks, at the same points for the same reason, as one.

    Returns the networks, and the first's ending; its `details` tells whether all have the same detail.
    """
    groups: dict[tuple[str, str, tuple[ResourceConfig, ...]], list[Ending]] = defaultdict(list)
    for one in found:
        groups[one.status, one.reason, tuple(sorted(one.configs))].append(one)
    return [
        (
            tuple(one.network for one in group),
            replace(group[0], details=max(len({e.detail for e in group}), *(e.details for e in group))),
        )
        for group in groups.values()
    ]


def _split(reason: str) -> tuple[str, str]:
    head = _HEAD.match(reason)
    end = head.end() if head else 0
    return reason[:end].strip(), reason[end:].lstrip(": ")
