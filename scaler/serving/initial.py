"""Which instances a server starts with: those that functions.yaml names, or a fair share of the device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rapp.errors import ConfigError
from rapp.types import ResourceConfig
from scaler.core.decision import Decision, Reason, Start
from scaler.functions import FunctionSpec
from scaler.serving.devices import ServingDevice
from scaler.serving.placement import Occupant, why_no_room


def initial_decision(
    functions: Sequence[FunctionSpec],
    memory_mib: Mapping[str, float],
    device: ServingDevice,
    whole_units: int | None,
) -> Decision:
    """The instances to start: `min_instances` of each function, placed by first fit.

    A function with `initial` gets that; the others share what is left of the SMs (or cores) evenly, in rows
    that they share if there are more of them than cores.

    Args:
        memory_mib: by function, of one instance.
        whole_units: cores of a device whose partitions are whole cores; None: any percentage.

    Raises:
        ConfigError: they do not fit.
    """
    counts = {spec.name: spec.min_instances for spec in functions}
    wanted = [spec for spec in functions if counts[spec.name] > 0]
    explicit = [spec for spec in wanted if spec.initial is not None]
    implicit = [spec for spec in wanted if spec.initial is None]
    placed: list[Start] = []
    there: list[Occupant] = []

    def place(spec: FunctionSpec, config: ResourceConfig, count: int) -> None:
        for number in range(count):
            row = _row(spec, config, memory_mib[spec.name], there, device)
            there.append(Occupant(row, config, memory_mib[spec.name]))
            name = f"{spec.name}-{number}"
            placed.append(Start(name, spec.name, device.view.id, row, config, Reason.MINIMUM))

    for spec in explicit:
        assert spec.initial is not None
        place(spec, spec.initial.config, counts[spec.name])
    if implicit:
        left_pct = 100 - sum({one.row: one.config.sm_pct for one in there}.values())
        for spec, config in zip(implicit, _shares(implicit, left_pct, whole_units), strict=True):
            place(spec, config, counts[spec.name])
    return Decision(tuple(placed))


def _shares(
    functions: Sequence[FunctionSpec], left_pct: float, whole_units: int | None
) -> list[ResourceConfig]:
    """A configuration for each function that names none."""
    units = whole_units or 100
    left = math.floor(left_pct / 100 * units + 1e-6)
    if left < 1:
        names = ", ".join(spec.name for spec in functions)
        raise ConfigError(f"nothing of the device is left for {names}: give them an `initial` configuration")
    each = max(left // len(functions), 1)
    rows = min(left // each, len(functions))
    configs = []
    for place, spec in enumerate(functions):
        sharing = sum(1 for other in range(len(functions)) if other % rows == place % rows)
        quota_pct = math.floor(100 / sharing / spec.min_instances * 100) / 100
        # More in a batch makes a GPU faster, and a core only later.
        batch = 1 if whole_units else spec.max_batch
        configs.append(ResourceConfig(100 * each / units, quota_pct, batch))
    return configs


def _row(
    spec: FunctionSpec,
    config: ResourceConfig,
    memory_mib: float,
    there: Sequence[Occupant],
    device: ServingDevice,
) -> int:
    """The first row with room."""
    why = device.why_not(config.sm_pct)
    rows = range(max((one.row for one in there), default=-1) + 2)
    if why is None:
        for row in rows:
            why = why_no_room(device.view, there, Occupant(row, config, memory_mib), spec.max_batch)
            if why is None:
                return row
    raise ConfigError(f"function {spec.name}: its first instances do not fit: {why}")
