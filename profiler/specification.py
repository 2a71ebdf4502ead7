"""What makes two runs of the command the same campaign: what is measured, on what, and by which rules.

Paths of networks are not in it, nor is what a run may take (`--budget-minutes`): a campaign can be moved and
go on. Versions of software are: half a table from another runtime would be two campaigns in one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from profiler.device import DeviceInfo, NetworkFile
from profiler.measure import StopRule
from profiler.plan import QuotaMode
from rapp.types import ResourceGrid

Specification = Mapping[str, Any]
"""As JSON values: two that differ in it are different campaigns."""


def specify(
    networks: Sequence[NetworkFile],
    grid: ResourceGrid,
    info: DeviceInfo,
    rule: StopRule,
    *,
    mode: QuotaMode = QuotaMode.MEASURE,
    seed: int = 0,
    anchors: bool = True,
    options: Mapping[str, Any] | None = None,
) -> Specification:
    """The specification of a campaign.

    Args:
        options: what else changes its measurements, such as limits of the device or of adaptive sampling.
    """
    device = asdict(info)
    # What is free of it changes from one run to the next, and changes no measurement.
    del device["memory_mib"]
    content = {
        "networks": {network.name: network.graph_hash for network in networks},
        "sm_pct": list(grid.sm_pct),
        "quota_pct": list(grid.quota_pct),
        "batch": list(grid.batch),
        "quota_mode": mode.value,
        "seed": seed,
        "anchors": anchors,
        "device": device,
        "stop_rule": asdict(rule),
        "options": dict(options or {}),
    }
    # As it will be read back: enumerations are text by then, tuples lists.
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def differences(there: Specification, here: Specification) -> list[str]:
    """Each value in which two specifications differ, as a line for a person: `seed was 1 and is 2`."""
    return list(_differing(there, here))


def _differing(there: Any, here: Any, name: str = "") -> Iterator[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys([*there, *here]):
            yield from _differing(there.get(key), here.get(key), f"{name}.{key}" if name else str(key))
    elif there != here:
        yield f"{name} was {_shown(there)} and is {_shown(here)}"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(_shown(one) for one in value)
    if isinstance(value, float):
        return f"{value:g}"
    return "not there" if value is None else str(value)
